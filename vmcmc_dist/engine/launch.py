"""From a config to a trained run: check, prepare the data, start the workers, watch, report."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import torch
import torch.distributed as dist

from vmcmc_dist.config import Config, identity_changes, to_dict, to_yaml
from vmcmc_dist.data.manifest import Manifest
from vmcmc_dist.data.open import ensure_prepared
from vmcmc_dist.engine.checkpoint import CheckpointFolder, load_checkpoint
from vmcmc_dist.engine.context import WorkerContext
from vmcmc_dist.engine.progress import TrainingProgress, duration
from vmcmc_dist.engine.ray_launch import RayRun
from vmcmc_dist.engine.remote_run import held
from vmcmc_dist.engine.resources import check_data, cpu_count, resolve
from vmcmc_dist.engine.run_folder import RunFolder, describe_environment
from vmcmc_dist.engine.terminal import Terminal
from vmcmc_dist.errors import CheckpointError

# The worker's module is imported where it runs, with its output on the log: DeepSpeed talks as
# it is imported, and under Ray this process needs it not at all.


@dataclass
class Outcome:
    """How a run ended.

    Attributes:
        figures: means of the last log interval, ``images``, ``seconds``.
        interrupted: a stop was asked for (Ctrl-C, SIGTERM); the run was saved.
        first_step_seconds: from this process's start to the end of the first training step.
    """

    folder: RunFolder
    figures: dict[str, float]
    interrupted: bool
    first_step_seconds: float | None = None


def train(config: Config) -> Outcome:
    """Train a run, or go on with it: the same call again resumes from its last checkpoint.

    Raises:
        UserError: bad config, data or resources (before any worker starts), or what ended the
            run; see :mod:`vmcmc_dist.errors`.
    """
    started = time.monotonic()
    config = resolve(config)
    first = int(os.environ.get("RANK", "0")) == 0 or config.launcher != "torchrun"
    folder = RunFolder.of(config)
    if not first:
        return _follow_torchrun(config, folder)
    folder.create()
    with (
        folder.locked(),
        held(config, folder, print) as config,
        Terminal(folder.log) as terminal,
    ):
        folder.stop.unlink(missing_ok=True)
        folder.first_step.unlink(missing_ok=True)
        say = terminal.console.print
        plain = partial(say, markup=False, soft_wrap=True)
        ray_run = (
            RayRun(config, say=plain) if config.launcher == "ray" else None
        )  # starts meanwhile
        try:
            say(f"[bold]{config.name}[/]: {describe(config)}", soft_wrap=True)
            if config.preset == "cpu" and config.resources.device == "cpu":
                say("no GPU here: the CPU preset, with small nets and a short run")
            if ray_run:
                ray_run.checked()
            manifest = prepare_data(config, say)
            check_data(config, manifest)
            resumed = check_resume(config, folder)
            if resumed:
                say(f"going on from {resumed:,} images ({folder.place})", soft_wrap=True)
            write_down(config, folder, started)
            with (
                TrainingProgress(terminal.console, config, folder.metrics) as progress,
                _stop_requests(folder, progress.say),
            ):
                figures = ray_run.run(manifest) if ray_run else _run_here(config, manifest)
        finally:
            if ray_run:
                ray_run.close()
    first_step = None
    if folder.first_step.exists():
        begun = psutil.Process().create_time()
        first_step = folder.first_step.stat().st_mtime - begun
        folder.first_step.unlink()
    outcome = Outcome(folder, figures, folder.stop.exists(), first_step)
    folder.stop.unlink(missing_ok=True)
    return outcome


def describe(config: Config) -> str:
    """One line: data, workers, device, precision, length."""
    train, resources = config.train, config.resources
    workers = f"{resources.workers} worker{'s' if resources.workers > 1 else ''}"
    limit = f" or {duration(train.max_minutes * 60)}" if train.max_minutes else ""
    pause = f", a pause at {train.goal:,}" if train.goal < train.images else ""
    return (
        f"{config.data.source}, {workers} on {resources.device} by {config.launcher}, "
        f"{train.precision}, batch {train.batch_size}, preset {config.preset}, "
        f"{train.images:,} images{limit}{pause}"
    )


def prepare_data(config: Config, say: Callable[..., Any]) -> Manifest:
    """Shards of the data, made if they are not there."""
    told: set[str] = set()

    def progress(what: str, done: int, total: int) -> None:
        if what not in told:
            told.add(what)
            say(f"{what}: {total:,}")

    manifest = ensure_prepared(config.data, progress)
    count = f", {manifest.num_samples:,} samples" if manifest.shards else ""
    say(f"data: {manifest.source}{count}, shape {list(manifest.shape)}")
    return manifest


def check_resume(config: Config, folder: RunFolder) -> int:
    """Images of the checkpoint that the run goes on from, 0 for a new run.

    Raises:
        CheckpointError: the folder holds a run with another config.
    """
    path = CheckpointFolder(folder.checkpoints).latest()
    if path is None:
        return 0
    saved = load_checkpoint(path, ())
    changes = identity_changes(saved.config, to_dict(config))
    if changes:
        raise CheckpointError(
            f"{folder.place} holds a run with another config:\n  "
            + "\n  ".join(changes)
            + "\nGive this run another name=…, or the old settings to go on with that one."
        )
    return saved.images


def write_down(config: Config, folder: RunFolder, started: float) -> None:
    """config.yaml and environment.json, before the first step."""
    folder.config.write_text(to_yaml(config))
    environment = describe_environment()
    environment["prepared_in_seconds"] = round(time.monotonic() - started, 2)
    folder.write_environment(environment)


def _run_here(config: Config, manifest: Manifest) -> dict[str, float]:
    """The worker in this process: alone, or as torchrun's first."""
    from vmcmc_dist.engine.worker import join_alone, train_worker

    if config.launcher == "torchrun":
        return train_worker(to_dict(config), manifest, _join_torchrun(config), _threads(config))
    join_alone()
    device = torch.device("cuda:0" if config.resources.device == "cuda" else "cpu")
    return train_worker(to_dict(config), manifest, WorkerContext(0, 1, device), _threads(config))


def _threads(config: Config) -> int:
    return config.resources.threads or max(1, cpu_count() // config.resources.workers)


def _join_torchrun(config: Config) -> WorkerContext:
    gpu = config.resources.device == "cuda"
    if not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if gpu else "gloo")
    local = int(os.environ["LOCAL_RANK"])
    device = torch.device(f"cuda:{local}" if gpu else "cpu")
    return WorkerContext(dist.get_rank(), dist.get_world_size(), device)


def _follow_torchrun(config: Config, folder: RunFolder) -> Outcome:
    """A worker other than the first, under torchrun: waits for the data, then trains."""
    folder.create()
    with _ignored_signals(), Terminal(folder.log):
        from vmcmc_dist.engine.worker import train_worker

        context = _join_torchrun(config)
        manifest = prepare_data(config, lambda *_, **__: None)
        figures = train_worker(to_dict(config), manifest, context, _threads(config))
    return Outcome(folder, figures, interrupted=False)


@contextmanager
def _ignored_signals() -> Iterator[None]:
    before = {s: signal.signal(s, signal.SIG_IGN) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _stop_requests(folder: RunFolder, say: Callable[[str], Any]) -> Iterator[None]:
    """Ctrl-C or SIGTERM asks the run to save and end; a second Ctrl-C ends it at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, _frame: Any) -> None:
        if folder.stop.exists():
            raise KeyboardInterrupt
        folder.stop.touch()
        say("stopping: the run is being saved (again to stop at once)")

    before = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def pictures(folder: RunFolder) -> Path | None:
    """The newest sample grid."""
    found = sorted(folder.samples.glob("*.png"))
    return found[-1] if found else None
