"""Trials in the order they are started: first those that an earlier process left, then new ones."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ray.tune import CheckpointConfig, PlacementGroupFactory
from ray.tune.experiment import Trial
from ray.tune.search.search_algorithm import SearchAlgorithm

from vmcmc_dist.tuning.folder import RUNNING, Event
from vmcmc_dist.tuning.search import Search
from vmcmc_dist.tuning.space import Settings


class TrialQueue(SearchAlgorithm):
    """What Ray Tune asks for trials.

    Never more of them than there is room for: a trial that waits for its place would hold none,
    but Ray would keep asking for one. A population is there as a whole, and takes turns.
    """

    def __init__(
        self,
        search: Search,
        earlier: Sequence[Event],
        folder: Path,
        *,
        room: int,
        population: bool = False,
        places: PlacementGroupFactory,
        max_failures: int,
        minutes: float = 0.0,
        stopping: Callable[[], bool] = lambda: False,
    ):
        self.search, self.folder, self.most_pending = search, folder, room
        self.room = len(earlier) + search.count if population else room
        self.places, self.max_failures, self.stopping = places, max_failures, stopping
        self.until = time.monotonic() + 60 * minutes if minutes else float("inf")
        self.left = [(e.trial, e.settings) for e in earlier if e.status == RUNNING]
        self.number = 1 + max((int(e.trial) for e in earlier), default=-1)
        self.failures = {e.trial: e.failures for e in earlier}
        self.live: set[str] = set()
        self.settings: dict[str, Settings] = {}
        self.experiment: Any = None
        search.replay(earlier)

    @property
    def total_samples(self) -> int:
        return self.search.count

    def add_configurations(self, experiments: Any) -> None:
        (self.experiment,) = experiments

    def next_trial(self) -> Trial | None:
        if len(self.live) >= self.room or self.is_finished() or self.stopping():
            return None
        if self.left:
            trial, settings = self.left.pop(0)
        else:
            trial, settings = f"{self.number:04d}", self.search.settings(self.number)
            self.number += 1
        self.live.add(trial)
        self.settings[trial] = settings
        spec = self.experiment.spec
        return Trial(
            spec["run"],
            config={**settings, "trial": trial, "sweep": str(self.folder)},
            trial_id=trial,
            storage=spec["storage"],
            experiment_tag=trial,
            placement_group_factory=self.places,
            checkpoint_config=CheckpointConfig(num_to_keep=3),
            trial_dirname_creator=_name,
            trial_name_creator=_name,
            max_failures=self.max_failures,
        )

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        self.live.discard(trial_id)

    def is_finished(self) -> bool:
        late = time.monotonic() > self.until
        none_left = not self.left and (self.number >= self.search.count or late)
        return self._finished or none_left


def _name(trial: Trial) -> str:
    return trial.trial_id
