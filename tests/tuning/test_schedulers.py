"""Ray Tune's schedulers as a sweep uses them: by images, and after a driver's death."""

from __future__ import annotations

import random
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from vmcmc_dist.tuning.config import Sweep, base_config
from vmcmc_dist.tuning.folder import Event
from vmcmc_dist.tuning.schedulers import make_scheduler

Make = Callable[..., Sweep]


def asha_of(sweep: Sweep, events=()):
    base = base_config(sweep)
    return make_scheduler(sweep, base, events)


def told(asha, event: Event, known: set[str]) -> str:
    trial = SimpleNamespace(trial_id=event.trial)
    if event.trial not in known:
        known.add(event.trial)
        asha.on_trial_add(None, trial)
    result = {"images": event.images, "kl_data_model": event.figures["kl_data_model"]}
    return asha.on_trial_result(None, trial, result)


@pytest.mark.parametrize("mode", ["min", "max"])
def test_rungs_are_as_full_after_a_restart_as_before(make_sweep: Make, mode: str) -> None:
    sweep = make_sweep("scheduler=asha", "train.images=5760", f"mode={mode}")
    rng = random.Random(0)
    events = [
        Event(f"{n:04d}", "running", {}, images, {"kl_data_model": rng.random()})
        for images in (640, 1280, 1920)
        for n in range(12)
    ]
    whole, known = asha_of(sweep), set()
    decisions = [told(whole, event, known) for event in events]
    assert decisions.count("STOP") > 5
    for cut in (0, 5, 13, 30):
        late, again = asha_of(sweep, events[:cut]), set()
        rest = [told(late, event, again) for event in events[cut:]]
        assert rest == decisions[cut:], cut


def test_a_rung_counts_images_and_nothing_else(make_sweep: Make) -> None:
    """A trial that was started again tells its figures again: they are not judged twice."""
    sweep = make_sweep("scheduler=asha", "train.images=5760")
    asha, known = asha_of(sweep), set()
    for n, value in enumerate((1.0, 2.0, 3.0)):
        told(asha, Event(f"{n:04d}", "running", {}, 640, {"kl_data_model": value}), known)
    good = Event("0000", "running", {}, 640, {"kl_data_model": 9.0})
    assert told(asha, good, known) == "CONTINUE"
