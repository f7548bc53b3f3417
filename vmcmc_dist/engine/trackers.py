"""TensorBoard, Weights & Biases, MLflow: each gets every record; none is needed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from vmcmc_dist.config import Config, flatten, to_dict
from vmcmc_dist.engine.run_folder import RunFolder
from vmcmc_dist.errors import ConfigError
from vmcmc_dist.langevin.noise import stream_seed

Write = Callable[[dict[str, float], int, Path | None], None]


class Trackers:
    """The trackers that the config names, open on the first worker only.

    A resumed run goes on in the same TensorBoard folder (later events are purged), the same
    Weights & Biases run, and the same MLflow run.
    That their packages are installed is checked before a run starts.
    """

    def __init__(self, config: Config, folder: RunFolder, images: int, *, active: bool):
        self._writes: list[Write] = []
        self._closes: list[Callable[[], Any]] = []
        if not active:
            return
        if config.watch.tensorboard:
            self._tensorboard(folder, images)
        if config.watch.wandb:
            self._wandb(config, folder)
        if config.watch.mlflow:
            self._mlflow(config, folder)

    def write(self, record: dict[str, Any], picture: Path | None = None) -> None:
        """One record of metrics.jsonl; nested keys become a/b."""
        kind = record.get("kind", "train")
        values = {
            f"{kind}/{key.replace('.', '/')}": float(value)
            for key, value in flatten(record).items()
            if isinstance(value, (int, float)) and key != "images"
        }
        for write in self._writes:
            write(values, record["images"], picture)

    def close(self) -> None:
        for close in self._closes:
            close()

    def _tensorboard(self, folder: RunFolder, images: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        writer = SummaryWriter(str(folder.tensorboard), purge_step=images + 1 if images else None)

        def write(values: dict[str, float], step: int, picture: Path | None) -> None:
            for name, value in values.items():
                writer.add_scalar(name, value, step)
            if picture is not None:
                import numpy as np
                from PIL import Image

                pixels = np.asarray(Image.open(picture).convert("RGB"))
                writer.add_image("samples", pixels, step, dataformats="HWC")
            writer.flush()

        self._writes.append(write)
        self._closes.append(writer.close)

    def _wandb(self, config: Config, folder: RunFolder) -> None:
        import wandb

        try:
            run = wandb.init(
                project=config.watch.wandb,
                name=config.name,
                id=f"{config.name}-{stream_seed(str(folder.path.resolve())):x}"[:64],
                resume="allow",
                dir=str(folder.path),
                config=to_dict(config),
            )
        except wandb.errors.Error as error:
            raise ConfigError(
                f"watch.wandb={config.watch.wandb}: {error}. Set WANDB_API_KEY, or "
                "WANDB_MODE=offline"
            ) from None

        def write(values: dict[str, float], step: int, picture: Path | None) -> None:
            extra = {"samples": wandb.Image(str(picture))} if picture else {}
            run.log({"images": step, **values, **extra})

        self._writes.append(write)
        self._closes.append(run.finish)

    def _mlflow(self, config: Config, folder: RunFolder) -> None:
        import mlflow

        try:
            client = mlflow.MlflowClient(tracking_uri=config.watch.mlflow)
            run_id = self._mlflow_run(client, config, str(folder.path.resolve()))
        except mlflow.exceptions.MlflowException as error:
            raise ConfigError(f"watch.mlflow={config.watch.mlflow}: {error}") from None

        def write(values: dict[str, float], step: int, picture: Path | None) -> None:
            for name, value in values.items():
                client.log_metric(run_id, name, value, step=step)
            if picture is not None:
                client.log_artifact(run_id, str(picture), "samples")

        self._writes.append(write)
        self._closes.append(lambda: client.set_terminated(run_id))

    @staticmethod
    def _mlflow_run(client: Any, config: Config, tag: str) -> str:
        """The run of this folder, made if it is not there; returns its id."""
        known = client.get_experiment_by_name("vmcmc_dist")
        # Without a server, pictures would go into the worker's current folder.
        local = not str(config.watch.mlflow).startswith("http")
        place = str(Path(tag).parent / "mlflow") if local else None
        experiment = known.experiment_id if known else client.create_experiment("vmcmc_dist", place)
        found = client.search_runs([experiment], f"tags.folder = '{tag}'", max_results=1)
        if found:
            client.update_run(found[0].info.run_id, status="RUNNING")
            return found[0].info.run_id
        run = client.create_run(experiment, run_name=config.name, tags={"folder": tag})
        for key, value in flatten(to_dict(config)).items():
            client.log_param(run.info.run_id, key, value)
        return run.info.run_id
