"""What is tried next, and that a search goes on from its table as if it had not been ended."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from vmcmc_dist.tuning.best import front, ranked
from vmcmc_dist.tuning.config import Sweep
from vmcmc_dist.tuning.folder import Event
from vmcmc_dist.tuning.search import GridSearch, ListSearch, RandomSearch, Search, TPESearch
from vmcmc_dist.tuning.space import read

DIALS = [
    read("langevin.step_size", {"log": [0.01, 10.0]}),
    read("langevin.steps", {"int": [1, 40]}),
    read("energy.net", {"choice": ["modern", "mlp"]}),
]


def loss(settings: dict) -> float:
    """Least, 0, at step 1, 20 steps, modern."""
    far = (settings["langevin.steps"] - 20) / 20
    return (
        math.log10(settings["langevin.step_size"]) ** 2 + far**2 + (settings["energy.net"] == "mlp")
    )


def ended(number: int, settings: dict, status: str = "done", **figures: float) -> Event:
    return Event(f"{number:04d}", status, settings, 100, figures)


def searched(search: Search, count: int, batch: int = 1) -> list[dict]:
    """Trials in batches that run at the same time."""
    tried: list[dict] = []
    while len(tried) < count:
        first = len(tried)
        tried += [search.settings(first + k) for k in range(min(batch, count - first))]
        for number in range(first, len(tried)):
            search.tell(ended(number, tried[number], m=loss(tried[number])))
    return tried


def test_random_depends_on_seed_and_number_alone() -> None:
    sweep = Sweep(trials=5, seed=3)
    whole = searched(RandomSearch(DIALS, sweep), 5)
    late = RandomSearch(DIALS, sweep)
    late.replay([ended(0, whole[0])])
    assert late.settings(3) == whole[3]
    assert RandomSearch(DIALS, Sweep(seed=4)).settings(3) != whole[3]


def test_a_grid_is_every_combination_once() -> None:
    grid = GridSearch(DIALS, Sweep(points=3))
    tried = searched(grid, grid.count)
    assert grid.count == 18 and len({str(s) for s in tried}) == 18
    assert ListSearch([{"seed": 1}, {"seed": 2}]).settings(1) == {"seed": 2}


def test_tpe_finds_what_random_draws_do_not() -> None:
    sweep = Sweep(trials=60, metric="m", search="tpe", first_trials=10)
    tried = searched(TPESearch(DIALS, sweep), 60, batch=2)
    plain = searched(RandomSearch(DIALS, sweep), 60)
    assert min(map(loss, tried)) < 0.05
    assert sum(map(loss, tried[30:])) < 0.5 * sum(map(loss, plain[30:]))


def test_tpe_turns_to_the_maximum_where_asked() -> None:
    sweep = Sweep(trials=40, metric="m", mode="max", search="tpe")
    tried = searched(TPESearch(DIALS, sweep), 40)
    assert sum(s["energy.net"] == "mlp" for s in tried[20:]) > 13


def test_trials_at_the_same_time_differ() -> None:
    search = TPESearch(DIALS, Sweep(trials=99, metric="m", first_trials=4))
    searched(search, 12)
    together = [search.settings(12 + k) for k in range(8)]
    assert len({str(s) for s in together}) == 8


def test_tpe_goes_on_from_the_table() -> None:
    sweep = Sweep(trials=60, metric="m", search="tpe", first_trials=5)
    first = searched(TPESearch(DIALS, sweep), 30)
    later = TPESearch(DIALS, sweep)
    events = [ended(n, s, m=loss(s)) for n, s in enumerate(first)]
    running = Event("0030", "running", first[3])
    later.replay([*events, running])
    assert [t.state.name for t in later.study.trials] == ["COMPLETE"] * 30 + ["RUNNING"]
    assert later.study.trials[3].params == first[3]
    tried = [later.settings(31 + k) for k in range(10)]
    assert sum(map(loss, tried)) / 10 < 0.6 * sum(map(loss, first[:5])) / 5
    later.tell(ended(30, first[3], m=loss(first[3])))
    assert later.study.trials[30].state.name == "COMPLETE"


@pytest.mark.parametrize("mode", ["min", "max"])
def test_a_diverged_trial_is_worse_than_all_others(mode: str) -> None:
    """Half of the range diverges: it is left soon, though no value was ever seen there."""
    dial = read("langevin.step_size", {"uniform": [0.0, 1.0]})
    search = TPESearch([dial], Sweep(trials=60, metric="m", mode=mode, first_trials=8))
    far = []
    for number in range(40):
        settings = search.settings(number)
        x = settings["langevin.step_size"]
        far.append(x > 0.5)
        gone = ended(number, settings, "diverged")
        search.tell(gone if x > 0.5 else ended(number, settings, m=7.0))
    assert sum(far[:8]) >= 2 and sum(far[20:]) < 7


def test_a_stopped_trial_is_a_pruned_one_and_a_failed_one_is_no_news() -> None:
    search = TPESearch(DIALS, Sweep(metric="m"))
    statuses = ["stopped", "failed", "diverged", "done"]
    for number, status in enumerate(statuses):
        value = {} if status in ("failed", "diverged") else {"m": 1.0}
        search.tell(ended(number, search.settings(number), status, **value))
    states = [t.state.name for t in search.study.trials]
    assert states == ["PRUNED", "FAIL", "PRUNED", "COMPLETE"]
    assert search.study.trials[0].intermediate_values == {100: 1.0}


def test_several_metrics_are_searched_together() -> None:
    sweep = Sweep(metric=["m", "k"], trials=40, first_trials=8)
    search = TPESearch(DIALS, sweep)
    search.tell(ended(0, search.settings(0), "diverged"))
    events = []
    for number in range(1, 40):
        settings = search.settings(number)
        if number == 20:
            search.tell(ended(number, settings, "diverged"))
            continue
        figures = {"m": settings["langevin.step_size"], "k": 1 / settings["langevin.step_size"]}
        events.append(ended(number, settings, **figures))
        search.tell(events[-1])
    assert search.study.trials[0].state.name == "FAIL"  # nothing to call the worst yet
    worst = [max(e.figures[m] for e in events[:19]) for m in ("m", "k")]
    assert search.study.trials[20].values == worst
    assert len(front(events, sweep)) > 5 and ranked(events, sweep)[0] is front(events, sweep)[0]


def values_of(events: Sequence[Event]) -> list[str]:
    return [event.trial for event in events]


def test_whole_trials_are_ranked_before_stopped_ones() -> None:
    trials = [
        ended(0, {}, m=3.0),
        ended(1, {}, "stopped", m=0.1),
        ended(2, {}, m=2.0),
        ended(3, {}, "diverged", m=0.0),
        ended(4, {}, "failed", m=0.0),
        ended(5, {}),
    ]
    assert values_of(ranked(trials, Sweep(metric="m"))) == ["0002", "0000", "0001"]
    assert values_of(ranked(trials, Sweep(metric="m", mode="max"))) == ["0000", "0002", "0001"]


def test_the_front_holds_what_nothing_beats() -> None:
    points = [(1, 5), (2, 2), (5, 1), (3, 3), (2, 4)]
    events = [ended(n, {}, m=a, k=b) for n, (a, b) in enumerate(points)]
    assert values_of(front(events, Sweep(metric=["m", "k"]))) == ["0000", "0001", "0002"]
