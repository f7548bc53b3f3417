"""When a run ends: at its images, at its time, when someone asks, or when its place is taken."""

from __future__ import annotations

from vmcmc_dist.engine.config import TrainConfig
from vmcmc_dist.engine.context import WorkerContext
from vmcmc_dist.engine.meter import anywhere
from vmcmc_dist.engine.run_folder import RunFolder


class Ending:
    """One worker's view of it, the same on all workers after each :meth:`agree`.

    Attributes:
        interrupted: someone asked to stop (the file ``.stop`` in the run folder).
        time_is_up: ``train.max_minutes`` of training are over.
        leaving: a notice came; the run is started again elsewhere.
    """

    def __init__(self, train: TrainConfig, folder: RunFolder, context: WorkerContext):
        self.train, self.folder, self.context = train, folder, context
        self.interrupted = self.time_is_up = self.leaving = False

    def agree(self, images: int, seconds: float, *flags: bool) -> list[bool]:
        """All workers together (collective): is it time to stop, or to leave, after the iteration
        that began at ``images``, with ``seconds`` of training behind it?

        Args:
            flags: more questions of the same kind, at the price of none.

        Returns:
            For each of the flags: is it set on any worker?
        """
        wanted = [*self._wanted(seconds), self.context.notice()]
        *found, self.interrupted, self.time_is_up, noticed = anywhere([*flags, *wanted])
        last = images + self.train.batch_size >= self.train.goal
        self.leaving = noticed and not (self.interrupted or self.time_is_up or last)
        return found

    def asked(self, seconds: float) -> bool:
        """Whether to stop before the first iteration (collective)."""
        return any(anywhere(self._wanted(seconds)))

    def reached(self, images: int) -> bool:
        """Whether no iteration follows the ``images`` trained on so far."""
        over = images >= self.train.goal
        return over or self.interrupted or self.time_is_up or self.leaving

    def paused(self, images: int) -> bool:
        """Whether it ends there for now, as it was told to (``train.pause_images``)."""
        return self.train.goal <= images < self.train.images and not self.time_is_up

    def _wanted(self, seconds: float) -> list[bool]:
        """[someone asked to stop, the time is up], as the first worker sees it."""
        if self.context.rank:
            return [False, False]
        limit = self.train.max_minutes * 60
        return [self.folder.stop.exists(), bool(limit and seconds >= limit)]
