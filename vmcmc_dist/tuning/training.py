"""The training of one trial, from one figure to the next.

    training = start_training(config)
    while not (news := training.advance()).ended: ...
    training.close()

One worker trains in this process, an iteration at a time. More run under Ray Train, in a thread
that is followed by what it writes. Either is an ordinary run in its own folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import torch

from vmcmc_dist.config import Config, to_dict, to_yaml
from vmcmc_dist.data.manifest import Manifest
from vmcmc_dist.data.open import ensure_prepared
from vmcmc_dist.engine.checkpoint import CheckpointFolder
from vmcmc_dist.engine.resources import check_data, resolve
from vmcmc_dist.engine.run_folder import RunFolder, describe_environment
from vmcmc_dist.errors import ResourceError
from vmcmc_dist.tuning.metrics import failed_evaluation, read_figures

POLL_SECONDS = 0.2
LOCK_SECONDS = 60.0


@dataclass
class News:
    """What a trial has to say at a figure, or at its end.

    Attributes:
        images: trained when the metrics were made.
        ended: no more will come.
        interrupted: it ended since someone asked it to; it is saved.
    """

    images: int
    figures: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    ended: bool = False
    interrupted: bool = False


class Training(Protocol):
    """A run under way."""

    started: float
    """When its first iteration was over (time.time()); 0 before."""

    def advance(self) -> News: ...
    def close(self) -> None: ...


def start_training(config: Config, metrics: list[str]) -> Training:
    """Begin, or go on with, the run of a trial, on the machine where this is called.

    Raises:
        UserError: what cannot work here.
    """
    config = resolve(config)
    manifest = _manifest(json.dumps(asdict(config.data), sort_keys=True), config)
    check_data(config, manifest)
    folder = RunFolder.of(config)
    folder.create()
    folder.stop.unlink(missing_ok=True)
    folder.config.write_text(to_yaml(config))
    folder.write_environment(_environment())
    return (OneWorker if config.resources.workers == 1 else ManyWorkers)(config, manifest, metrics)


class OneWorker:
    """The worker in this process: ready again for the next trial when closed."""

    def __init__(self, config: Config, manifest: Manifest, metrics: list[str]):
        from vmcmc_dist.engine.context import WorkerContext
        from vmcmc_dist.engine.worker import join_alone, train_in_steps

        self.config, self.metrics = config, metrics
        self.folder = RunFolder.of(config)
        self.started = 0.0
        self.begun = time.monotonic()
        self.held = contextlib.ExitStack()
        self.held.enter_context(waiting_lock(self.folder))
        join_alone()
        cuda = config.resources.device == "cuda"
        context = WorkerContext(0, 1, torch.device("cuda:0" if cuda else "cpu"))
        self.trainer: Any = None
        self.reported = saved_images(self.folder)
        self.size = -1
        self.steps: Generator[Any, None, dict[str, float]] = train_in_steps(
            to_dict(config), manifest, context, config.resources.threads
        )

    def advance(self) -> News:
        """Train until all metrics are new, or to the end."""
        while True:
            try:
                self.trainer = next(self.steps)
            except StopIteration as end:
                return self._ended(end.value)
            if not self.started:
                self.started = time.time()
            if self.trainer.ending.reached(self.trainer.images):
                continue  # the end says it
            if (news := self._news()) is not None:
                return news

    def _news(self) -> News | None:
        """New figures, if the metrics file has grown and holds them."""
        size = self.folder.metrics.stat().st_size if self.folder.metrics.exists() else 0
        if size == self.size:
            return None
        self.size = size
        images, figures = read_figures(self.folder.metrics, self.metrics)
        if images <= self.reported:
            return None
        self.reported = images
        return News(images, figures, time.monotonic() - self.begun)

    def _ended(self, last: dict[str, float]) -> News:
        images, figures = read_figures(self.folder.metrics, self.metrics)
        stopped = self.folder.stop.exists()
        seconds = last.get("seconds", time.monotonic() - self.begun)
        return News(images or int(last["images"]), figures, seconds, True, stopped)

    def close(self) -> None:
        self.steps.close()
        self.held.close()


class ManyWorkers:
    """Several workers under Ray Train, on places of the cluster of their own."""

    def __init__(self, config: Config, manifest: Manifest, metrics: list[str]):
        self.config, self.manifest, self.metrics = config, manifest, metrics
        self.folder = RunFolder.of(config)
        self.started = 0.0
        self.begun = time.monotonic()
        self.held = contextlib.ExitStack()
        self.held.enter_context(waiting_lock(self.folder))
        self.folder.first_step.unlink(missing_ok=True)
        self.reported = saved_images(self.folder)
        self.result: dict[str, Any] | None = None
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, name="trial", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        from vmcmc_dist.engine.ray_groups import Groups

        try:
            self.result = Groups(self.config, self.manifest).run()
        except BaseException as error:  # raised where the trial is driven
            self.error = error

    def advance(self) -> News:
        """Wait until all metrics are new, or for the end."""
        while self.thread.is_alive():
            self.thread.join(POLL_SECONDS)
            if not self.started and self.folder.first_step.exists():
                self.started = self.folder.first_step.stat().st_mtime
            images, figures = read_figures(self.folder.metrics, self.metrics)
            if images > self.reported and self.thread.is_alive():
                self.reported = images
                return News(images, figures, time.monotonic() - self.begun)
        if self.error is not None:
            raise self.error
        assert self.result is not None
        images, figures = read_figures(self.folder.metrics, self.metrics)
        stopped = self.folder.stop.exists()
        return News(
            images or int(self.result["images"]), figures, self.result["seconds"], True, stopped
        )

    def close(self) -> None:
        """Ask the workers to save and leave, and wait for it: their places are free then."""
        if self.thread.is_alive():
            self.folder.stop.touch()
            self.thread.join()
            self.folder.stop.unlink(missing_ok=True)
        self.held.close()


def saved_images(folder: RunFolder) -> int:
    """Images of the checkpoint that a run will go on from: figures up to it were told before."""
    latest = CheckpointFolder(folder.checkpoints).latest()
    return int(latest.name) if latest else 0


def left_at(folder: RunFolder, images: int, metrics: list[str]) -> News | None:
    """What a run has to say that is saved behind these images; None if it has to train there."""
    if saved_images(folder) < images:
        return None
    made, figures = read_figures(folder.metrics, metrics)
    return News(made, figures) if made >= images else None


def why_nothing(config: Config) -> str:
    """Why a run that ended has no value of its metrics."""
    folder = RunFolder.of(config)
    return failed_evaluation(folder.metrics) or "it made no figure before its end"


@contextmanager
def waiting_lock(folder: RunFolder) -> Iterator[None]:
    """Hold the run for this process; one that is just being ended may take a while to let go."""
    until = time.monotonic() + LOCK_SECONDS
    with (folder.path / ".lock").open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() > until:
                    raise ResourceError(
                        f"another process is training {folder.path}, for {LOCK_SECONDS:.0f} s now"
                    ) from None
                time.sleep(POLL_SECONDS)
        yield


@functools.lru_cache(maxsize=4)
def _prepared(data: str) -> list[Manifest]:
    """A place for the manifest of such data, kept while this process serves trials."""
    return []


def _manifest(data: str, config: Config) -> Manifest:
    kept = _prepared(data)
    if not kept:
        kept.append(ensure_prepared(config.data))
    return kept[0]


@functools.cache
def _environment() -> dict[str, Any]:
    return describe_environment()
