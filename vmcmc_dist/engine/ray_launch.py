"""Workers under Ray Train: the only file that knows Ray."""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psutil

from vmcmc_dist.config import Config, to_dict
from vmcmc_dist.data.manifest import Manifest
from vmcmc_dist.engine.resources import cpu_count
from vmcmc_dist.engine.run_folder import RunFolder
from vmcmc_dist.errors import ResourceError, UserError

if TYPE_CHECKING:
    from vmcmc_dist.engine.worker import WorkerContext

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "DS_BUILD_OPS": "0",
}
ALONE = {"RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0", "RAY_worker_niceness": "0"}
"""On a Ray of our own nobody drains a node (one process less to start), and the workers are what
the machine is there for (Ray's default niceness of 15 starves them beside anything else)."""


Body = Callable[[dict[str, Any], Manifest, "WorkerContext", int], dict[str, float]]
"""What runs in each worker: by default ``train_worker``, or a benchmark in its place."""


def start_ray(config: Config, dashboard: bool = False) -> None:
    """Join the cluster of ``resources.address``, or start one on this machine.

    ``dashboard``: start it too, on loopback. Ray asks it what is left of a group of workers whose
    starter was killed; without it their places are never given back.

    Raises:
        ResourceError: no cluster at that address, or none could be started.
    """
    import ray

    if ray.is_initialized():
        return
    address = config.resources.address
    for key, value in (QUIET if address else QUIET | ALONE).items():
        os.environ.setdefault(key, value)
    try:
        if address:
            ray.init(address=address, logging_level=logging.ERROR)
        else:
            ray.init(
                address="local",
                num_cpus=cpu_count(),
                include_dashboard=dashboard,
                logging_level=logging.ERROR,
            )
    except (ConnectionError, RuntimeError, ValueError) as error:
        where = f"join the Ray cluster at {address}" if address else "start Ray on this machine"
        raise ResourceError(f"could not {where}: {error}") from None


def check_cluster(config: Config, resources: dict[str, float]) -> None:
    """Whether the cluster can ever hold the workers; :class:`ResourceError` at once if not."""
    import ray

    total = ray.cluster_resources()
    if config.resources.address and _autoscales():
        return
    for kind, each in resources.items():
        needed, have = each * config.resources.workers, total.get(kind, 0.0)
        if needed > have:
            raise ResourceError(
                f"resources.workers={config.resources.workers} needs {needed:g} {kind}, the Ray "
                f"cluster has {have:g}; ask for fewer workers or lower resources.cpus_per_worker"
            )


def launch(config: Config, manifest: Manifest, body: Body | None = None) -> dict[str, Any]:
    """Run the workers to their end; returns the first worker's result.

    Call it off the main thread: Ray would take over Ctrl-C otherwise.

    Raises:
        UserError: what a worker raised, a dead worker, or workers that could not start.
    """
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.train.v2.api.exceptions import TrainingFailedError, WorkerGroupError

    gpu = config.resources.device == "cuda"
    share = max(1, cpu_count() // config.resources.workers)
    each: dict[str, float] = {"CPU": config.resources.cpus_per_worker or share}
    if gpu:
        each["GPU"] = 1
    check_cluster(config, each)
    folder = RunFolder(f"{config.out}/{config.name}")
    trainer = TorchTrainer(
        ray_worker,  # type: ignore[arg-type]
        train_loop_config={
            "config": to_dict(config),
            "manifest": manifest,
            "share": share,
            "body": body,
        },
        scaling_config=ScalingConfig(
            num_workers=config.resources.workers, use_gpu=gpu, resources_per_worker=each
        ),
        torch_config=TorchConfig(backend="cpu:gloo,cuda:nccl" if gpu else "gloo"),
        run_config=RunConfig(
            name="ray",
            storage_path=str(folder.path),
            failure_config=FailureConfig(
                max_failures=config.resources.max_failures,
                controller_failure_limit=2,  # type: ignore[call-arg]
            ),
            # On this machine the workers inherit it; asked for, it costs another process start.
            worker_runtime_env={"env_vars": QUIET} if config.resources.address else None,  # type: ignore[call-arg]
        ),
    )
    os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = str(config.resources.start_timeout)
    try:
        result = trainer.fit()
    except WorkerGroupError as error:
        raise _cause(error.worker_failures, folder) from None
    except (TrainingFailedError, ray.exceptions.RayError) as error:
        raise ResourceError(
            f"Ray could not run the workers: {first_line(error)}. Details: {folder.log}"
        ) from None
    return result.return_value  # type: ignore[attr-defined]


def ray_worker(settings: dict[str, Any]) -> dict[str, float]:
    """What Ray Train runs in each worker's process."""
    import ray.train
    from ray.train.torch import get_device

    from vmcmc_dist.engine.worker import WorkerContext, train_worker

    context = ray.train.get_context()
    config = settings["config"]
    worker = WorkerContext(context.get_world_rank(), context.get_world_size(), get_device())
    threads = config["resources"]["threads"] or settings["share"]
    body = settings["body"] or train_worker
    return body(config, settings["manifest"], worker, threads)


def _cause(failures: dict[int, Exception], folder: RunFolder) -> UserError:
    """What the workers raised, as one error for the user."""
    causes = {rank: getattr(f, "_base_exc", f) for rank, f in failures.items()}
    for cause in causes.values():
        if isinstance(cause, UserError):
            return cause
    rank, cause = next(iter(causes.items()))
    return ResourceError(
        f"worker {rank} died ({type(cause).__name__}: {first_line(cause)}). The run is safe up "
        f"to its last checkpoint; run the same command again to go on. Details: {folder.log}"
    )


def first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _autoscales() -> bool:
    return bool(os.environ.get("RAY_AUTOSCALER_ENABLED"))


def end_leftovers() -> None:
    """End what Ray Train left running on our own Ray; its shutdown would wait 15 s for them.

    Not Ray's agents: a node ends with its agents, and then, with status 1, the process that
    started it.
    """
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            name = process.name()
            if name.startswith("ray::") and not name.endswith("Agent"):
                process.kill()


class RayRun:
    """Ray in a thread of its own: it starts at once, and launches when the data is there.

    One thread for all of Ray, since the kernel ends Ray's processes with the thread that started
    them (and Ray then ends this one); and not the main thread, since Ray would take over Ctrl-C.
    """

    def __init__(self, config: Config, body: Body | None = None):
        self._config, self._body_of_worker = config, body
        self._own = not config.resources.address
        self._data: queue.Queue[Manifest | None] = queue.Queue()
        self._result: dict[str, Any] | None = None
        self._error: BaseException | None = None
        self._launched, self._done, self._closing = (threading.Event() for _ in range(3))
        self._thread = threading.Thread(target=self._body, name="ray-train", daemon=True)
        self._thread.start()

    def run(self, manifest: Manifest) -> dict[str, float]:
        """Launch the workers on prepared data and wait for their end."""
        self._data.put(manifest)
        while not self._done.wait(0.2):  # short waits, so that signals are handled
            pass
        if self._error is not None:
            raise self._error
        assert self._result is not None
        return self._result

    def close(self) -> None:
        """Shut Ray down, whether or not it came to a launch, or is left in the middle of one."""
        self._data.put(None)
        until = time.monotonic() + 10
        while not self._done.wait(0.2) and time.monotonic() < until:
            if self._launched.is_set() and self._own:
                end_leftovers()  # the launch then fails
        self._closing.set()
        self._thread.join(timeout=20)

    def _body(self) -> None:
        try:
            start_ray(self._config)
            manifest = self._data.get()
            if manifest is not None:
                self._launched.set()
                self._result = launch(self._config, manifest, self._body_of_worker)
        except BaseException as error:  # handed to the main thread, which raises it
            self._error = error
        self._done.set()
        self._closing.wait()
        import ray

        if ray.is_initialized():
            if self._own:
                end_leftovers()
            ray.shutdown()
