"""Which settings are tried next. Knows nothing of Ray.

A search is asked for the settings of trial 0, 1, 2 …, told how trials ended, and can be told again
from the table of trials: so it goes on after its process died as if it had not.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from typing import Any, Protocol

from vmcmc_dist.tuning.config import Sweep
from vmcmc_dist.tuning.folder import DIVERGED, FAILED, STOPPED, Event
from vmcmc_dist.tuning.space import Dial, Settings


class Search(Protocol):
    """Proposes settings."""

    count: int
    """Trials in all."""

    def settings(self, number: int) -> Settings:
        """Of trial ``number``, asked for once each and in order."""

    def tell(self, event: Event) -> None:
        """How a trial ended."""

    def replay(self, events: Sequence[Event]) -> None:
        """The last lines of all earlier trials, before the first question."""


class RandomSearch:
    """Independent draws; those of trial n depend on the seed and n alone."""

    def __init__(self, dials: Sequence[Dial], sweep: Sweep):
        self.dials, self.seed, self.count = dials, sweep.seed, sweep.trials

    def settings(self, number: int) -> Settings:
        rng = random.Random(f"{self.seed}:{number}")
        return {dial.key: dial.draw(rng) for dial in self.dials}

    def tell(self, event: Event) -> None:
        """Nothing is learnt."""

    def replay(self, events: Sequence[Event]) -> None:
        """Nothing is learnt."""


class ListSearch(RandomSearch):
    """Given settings, in order."""

    def __init__(self, settings: Sequence[Settings]):
        self.all, self.count = list(settings), len(settings)

    def settings(self, number: int) -> Settings:
        return self.all[number]


class GridSearch(ListSearch):
    """Every combination; the last dial turns fastest."""

    def __init__(self, dials: Sequence[Dial], sweep: Sweep):
        axes = [dial.grid(sweep.points) for dial in dials]
        keys = [dial.key for dial in dials]
        super().__init__(
            [dict(zip(keys, point, strict=True)) for point in itertools.product(*axes)]
        )


class TPESearch:
    """Optuna's tree of Parzen estimators; with several metrics, multi-objective.

    Running trials count as bad ones (the constant liar), so that trials at the same time differ.
    With one metric a stopped trial is a pruned one, ranked below those that got further, and a
    diverged one is pruned before its first value: below all others. With several, a diverged
    trial is told the worst of every metric so far.
    """

    def __init__(self, dials: Sequence[Dial], sweep: Sweep):
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.optuna, self.sweep, self.count = optuna, sweep, sweep.trials
        self.space = {dial.key: distribution(dial) for dial in dials}
        self.dials = {dial.key: dial for dial in dials}
        self.asked: dict[str, Any] = {}
        self.worst: dict[str, float] = {}
        self._begin(0)

    def _begin(self, known: int) -> None:
        minimize = self.sweep.mode == "min"
        self.study = self.optuna.create_study(
            directions=["minimize" if minimize else "maximize"] * len(self.sweep.metrics),
            sampler=self.optuna.samplers.TPESampler(
                seed=self.sweep.seed + known,
                n_startup_trials=self.sweep.first_trials,
                multivariate=True,
                constant_liar=True,
            ),
        )

    def settings(self, number: int) -> Settings:
        trial = self.study.ask(self.space)
        self.asked[f"{number:04d}"] = trial
        return {key: self.dials[key].fit(value) for key, value in trial.params.items()}

    def tell(self, event: Event) -> None:
        trial = self.asked.pop(event.trial)
        state, values = self._outcome(event)
        if state == self.optuna.trial.TrialState.PRUNED and values:
            trial.report(values[0], event.images)
        complete = state == self.optuna.trial.TrialState.COMPLETE
        self.study.tell(trial, values if complete else None, state=state)

    def replay(self, events: Sequence[Event]) -> None:
        self._begin(len(events))
        for event in events:
            params = {key: value for key, value in event.settings.items() if key in self.space}
            self.study.enqueue_trial(params)
            self.settings(int(event.trial))
            if event.status != "running":
                self.tell(event)

    def _outcome(self, event: Event) -> tuple[Any, list[float]]:
        states = self.optuna.trial.TrialState
        values = [event.figures[m] for m in self.sweep.metrics if m in event.figures]
        if event.status == DIVERGED:
            if len(self.sweep.metrics) == 1:
                return states.PRUNED, []
            if len(self.worst) < len(self.sweep.metrics):
                return states.FAIL, []
            return states.COMPLETE, [self.worst[m] for m in self.sweep.metrics]
        if event.status == FAILED or len(values) < len(self.sweep.metrics):
            return states.FAIL, []
        worse = max if self.sweep.mode == "min" else min
        for name, value in zip(self.sweep.metrics, values, strict=True):
            self.worst[name] = worse(value, self.worst.get(name, value))
        if event.status == STOPPED and len(values) == 1:
            return states.PRUNED, values
        return states.COMPLETE, values


def distribution(dial: Dial) -> Any:
    """The dial as Optuna knows it."""
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    if dial.choices:
        return CategoricalDistribution(dial.choices)
    if dial.whole:
        return IntDistribution(int(dial.low), int(dial.high), log=dial.log)
    return FloatDistribution(dial.low, dial.high, log=dial.log)


def make_search(dials: Sequence[Dial], sweep: Sweep) -> Search:
    """The search that the sweep names."""
    kinds: dict[str, Any] = {"random": RandomSearch, "grid": GridSearch, "tpe": TPESearch}
    return kinds[sweep.search](dials, sweep)
