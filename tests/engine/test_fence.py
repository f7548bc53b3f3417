"""Only the group of workers that was started last writes into a run folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from vmcmc_dist.config import load_config
from vmcmc_dist.data.open import ensure_prepared
from vmcmc_dist.engine.checkpoint import CheckpointFolder
from vmcmc_dist.engine.context import Restart, WorkerContext
from vmcmc_dist.engine.fence import Fence
from vmcmc_dist.engine.resources import resolve
from vmcmc_dist.engine.run_folder import RunFolder
from vmcmc_dist.engine.trainer import Trainer
from vmcmc_dist.engine.worker import join_alone
from vmcmc_dist.errors import ResourceError


def files(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_group_that_was_followed_writes_no_more(tmp_path: Path) -> None:
    settings = [
        "name=run", f"out={tmp_path}", "data.source=toy2d", "energy.net=mlp", "energy.width=8",
        "vae.net=mlp", "vae.width=8", "vae.latent_dim=2", "train.batch_size=8",
        "train.precision=fp32", "watch.tensorboard=false", "launcher=local",
    ]  # fmt: skip
    config = resolve(load_config(None, settings))
    folder = RunFolder(tmp_path / "run")
    folder.create()
    fence = Fence(folder)
    first = fence.pass_on()
    join_alone()
    manifest, device = ensure_prepared(config.data), torch.device("cpu")
    old = Trainer(config, WorkerContext(0, 1, device, group=first), manifest, Restart())
    try:
        old.meter.add(old.iterate())
        old.log()
        old.save(wait=True)
        second = fence.pass_on()
        before = files(folder.path)
        old.meter.add(old.iterate())
        for write in (old.log, old.sample, old.save):
            with pytest.raises(ResourceError, match="other workers have gone on"):
                write()
        assert files(folder.path) == before
    finally:
        old.close()
    with pytest.raises(ResourceError, match="other workers have gone on"):  # a late start, too
        Trainer(config, WorkerContext(0, 1, device, group=first), manifest, Restart())
    new = Trainer(config, WorkerContext(0, 1, device, group=second), manifest, Restart())
    new.meter.add(new.iterate())
    new.log()
    new.close()


def records(folder: RunFolder) -> list[str]:
    return [line.partition(', "time"')[0] for line in folder.metrics.read_text().splitlines()]


def test_a_notice_saves_and_leaves_and_nothing_is_lost(tmp_path: Path) -> None:
    """Left by a notice at its third iteration, and gone on with: the run without a notice."""
    join_alone()

    def train(name: str, notice: Callable[[], bool]) -> dict[str, float]:
        settings = [
            f"name={name}", f"out={tmp_path}", "data.source=toy2d", "energy.net=mlp",
            "energy.width=8", "vae.net=mlp", "vae.width=8", "vae.latent_dim=2",
            "train.batch_size=8", "train.images=80", "train.log_images=32",
            "train.precision=fp32", "watch.tensorboard=false", "launcher=local",
        ]  # fmt: skip
        config = resolve(load_config(None, settings))
        RunFolder(tmp_path / name).create()
        context = WorkerContext(0, 1, torch.device("cpu"), notice=notice)
        trainer = Trainer(config, context, ensure_prepared(config.data), Restart())
        try:
            steps = trainer.run()
            while True:
                try:
                    next(steps)
                except StopIteration as end:
                    return end.value
        finally:
            trainer.close()

    assert "left" not in train("calm", lambda: False)
    asked = iter([False, False, True])
    left = train("noticed", lambda: next(asked))
    assert left["left"] and left["images"] == 24
    assert CheckpointFolder(tmp_path / "noticed" / "checkpoints").all()[-1].name == "000000024"
    end = train("noticed", lambda: False)
    assert "left" not in end and end["images"] == 80
    calm = records(RunFolder(tmp_path / "calm"))
    assert records(RunFolder(tmp_path / "noticed")) == calm and len(calm) >= 3
