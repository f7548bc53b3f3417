"""Trials in the order they are started: first those that an earlier process left, then new ones."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ray.tune import PlacementGroupFactory
from ray.tune.experiment import Trial
from ray.tune.search.search_algorithm import SearchAlgorithm

from vmcmc_dist.tuning.folder import RUNNING, Event
from vmcmc_dist.tuning.population import Population
from vmcmc_dist.tuning.search import Search
from vmcmc_dist.tuning.space import Settings


class TrialQueue(SearchAlgorithm):
    """What Ray Tune asks for trials.

    Never more of them than there is room for: a trial that waits for its place would hold none,
    but Ray would keep asking for one.

    Attributes:
        keep_warm: processes that wait for a next trial where there is none for now.
    """

    def __init__(
        self,
        search: Search,
        earlier: Sequence[Event],
        folder: Path,
        *,
        room: int,
        places: PlacementGroupFactory,
        max_failures: int,
        minutes: float = 0.0,
        stopping: Callable[[], bool] = lambda: False,
    ):
        self.search, self.folder = search, folder
        self.room = self.most_pending = room
        self.places, self.max_failures, self.stopping = places, max_failures, stopping
        self.keep_warm = 0
        self.until = time.monotonic() + 60 * minutes if minutes else float("inf")
        self.left = [(e.trial, e.settings) for e in earlier if e.status == RUNNING]
        self.number = 1 + max((int(e.trial) for e in earlier), default=-1)
        self.failures = {e.trial: e.failures for e in earlier}
        self.live: set[str] = set()
        self.experiment: Any = None
        search.replay(earlier)

    @property
    def total_samples(self) -> int:
        return self.search.count

    def add_configurations(self, experiments: Any) -> None:
        (self.experiment,) = experiments

    def next_trial(self) -> Trial | None:
        if len(self.live) >= self.room or self.is_finished():
            return None
        found = self._next()
        if found is None:
            return None
        trial, settings, until = found
        self.live.add(trial)
        spec = self.experiment.spec
        made = Trial(
            spec["run"],
            config={**settings, "trial": trial, "sweep": str(self.folder), "until": until},
            trial_id=trial,
            storage=spec["storage"],
            experiment_tag=trial,
            placement_group_factory=self.places,
            trial_dirname_creator=_name,
            trial_name_creator=_name,
            max_failures=self.max_failures,
        )
        made.run_metadata.num_failures = self._failures(trial)
        return made

    def _failures(self, trial: str) -> int:
        return self.failures.get(trial, 0)

    def _next(self) -> tuple[str, Settings, int] | None:
        """(number, settings, images to train to or 0), while there are trials."""
        if self.left:
            return *self.left.pop(0), 0
        number = self.number
        self.number += 1
        return f"{number:04d}", self.search.settings(number), 0

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        self.live.discard(trial_id)

    def is_finished(self) -> bool:
        none_left = not self.left and (self.number >= self.search.count or self._late())
        return self._finished or none_left or self.stopping()

    def _late(self) -> bool:
        return time.monotonic() > self.until


class GenerationQueue(TrialQueue):
    """A population: all trials train to one number of images, then all to the next.

    Args:
        events: the last of each trial, kept up to date by someone else.
    """

    def __init__(
        self, population: Population, events: Mapping[str, Event], *args: Any, **settings: Any
    ):
        super().__init__(*args, **settings)
        self.keep_warm = self.room
        self.population, self.events = population, events
        self.to, self.waiting, self.over = 0, list[tuple[str, Settings]](), False
        self.new = {
            f"{n:04d}": self.search.settings(n) for n in range(self.number, self.search.count)
        }

    def _next(self) -> tuple[str, Settings, int] | None:
        if not self.waiting and not self.live:
            new = [Event(n, RUNNING, settings) for n, settings in self.new.items()]
            known = sorted(self.events.values(), key=lambda e: int(e.trial))
            self.to, self.waiting = self.population.generation([*known, *new])
            self.over = not self.waiting
        while self.waiting:
            trial, settings = self.waiting.pop(0)
            started = self.new.pop(trial, None) is None
            if started or not self._late():
                return trial, settings, self.to
        return None

    def _failures(self, trial: str) -> int:
        return self.events[trial].failures if trial in self.events else 0

    def is_finished(self) -> bool:
        return self._finished or self.over or self.stopping()


def _name(trial: Trial) -> str:
    return trial.trial_id
