"""A population's generations and decisions, without Ray and without training."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from vmcmc_dist.engine.checkpoint import Checkpoint, CheckpointFolder, load_checkpoint
from vmcmc_dist.errors import CheckpointError
from vmcmc_dist.tuning.config import Sweep, base_config
from vmcmc_dist.tuning.folder import Event, SweepFolder
from vmcmc_dist.tuning.population import Population, beside
from vmcmc_dist.tuning.space import dials

Make = Callable[..., Sweep]
SPACE = {"langevin.step_size": {"log": [0.1, 2.0]}, "langevin.steps": {"int": [2, 9]}}


@pytest.fixture
def make(make_sweep: Make) -> Callable[..., Population]:
    def population(*settings: str) -> Population:
        sweep = make_sweep("scheduler=pbt", "train.images=2560", *settings, space=SPACE)
        base = base_config(sweep)
        folder = SweepFolder(sweep.folder)
        if not folder.path.exists():
            folder.create()
        return Population(sweep, base, dials(SPACE, base), folder)

    return population


def trial(number: int, images: int, value: float = 0.0, status: str = "running") -> Event:
    settings = {"langevin.step_size": 0.1 + 0.1 * number, "langevin.steps": 2 + number}
    figures = {"kl_data_model": value} if images else {}
    return Event(f"{number:04d}", status, settings, images, figures)


def saved(population: Population, event: Event) -> None:
    """The trial's run as it is when it waits: a checkpoint, and metrics."""
    run = population.folder.trial(event.trial)
    run.create()
    config = {"name": event.trial, "langevin": {"step_size": 0.0, "steps": 0}, "seed": 0}
    CheckpointFolder(run.checkpoints).save(Checkpoint(event.images, config, {"score": 1.0}))
    run.append({"kind": "density", "images": event.images, "kl_data_model": 1.0})


def test_a_generation_ends_where_all_are_and_leaves_out_who_ended(make) -> None:
    population = make("pbt.quantile=0.25")
    to, who = population.generation([trial(0, 640), trial(1, 0), trial(2, 0, status="failed")])
    assert (to, who) == (640, [("0001", trial(1, 0).settings)])  # 0000 waits for it
    everyone = [trial(n, 640, n) for n in range(4)]
    for event in everyone:
        saved(population, event)
    to, who = population.generation(everyone)
    assert to == 1280 and [number for number, _ in who] == ["0000", "0001", "0002", "0003"]
    to, who = population.generation([trial(0, 1920), trial(1, 1920, 1, "done")])
    assert (to, who) == (0, [("0000", trial(0, 0).settings)])  # alone: nobody to go on from
    assert population.generation([trial(0, 2560, 1, "done")]) == (0, [])


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("quantile,replaced", [(0.25, 2), (0.5, 2), (0.1, 1)])
def test_the_worst_go_on_from_the_best(make, mode: str, quantile: float, replaced: int) -> None:
    population = make(f"mode={mode}", f"pbt.quantile={quantile}")
    sign = 1 if mode == "min" else -1
    found = population.replace(640, [trial(n, 640, sign * n) for n in range(5)])
    assert [item.trial for item in found] == ["0003", "0004"][2 - replaced :]
    for item in found:
        assert item.donor in ("0000", "0001")[:replaced]
        assert 0.1 <= item.settings["langevin.step_size"] <= 2.0
        assert 2 <= item.settings["langevin.steps"] <= 9


def test_settings_move_by_a_fifth_or_are_drawn_anew(make) -> None:
    population, rng = make("pbt.resample=0.0"), random.Random(0)
    (step_size, steps) = population.dials
    assert {beside(step_size, 1.0, rng) for _ in range(20)} == {0.8, 1.2}
    assert {beside(step_size, 1.9, rng) for _ in range(20)} == {1.52, 2.0}
    assert {beside(steps, 2, rng) for _ in range(20)} == {2, 3}
    assert {beside(steps, 5, rng) for _ in range(20)} == {4, 6}
    choice = dataclasses.replace(steps, choices=("a", "b", "c"))
    assert {beside(choice, "a", rng) for _ in range(20)} == {"a", "b"}
    near = [population.near(trial(4, 640).settings, rng) for _ in range(20)]
    assert {s["langevin.step_size"] for s in near} == {0.4, 0.6}
    anew = make("pbt.resample=1.0")
    assert len({anew.near(trial(4, 640).settings, rng)["langevin.step_size"] for _ in range(9)}) > 7


def test_what_was_decided_is_done_once_and_stays_after_a_death(make) -> None:
    """Also where the driver died between the decision and the copying, and a trial failed since."""
    first = make("pbt.quantile=0.5")
    everyone = [trial(n, 640, n) for n in range(4)]
    for event in everyone:
        saved(first, event)
    to, who = first.generation(everyone)
    for number in ("0002", "0003"):
        run = first.folder.trial(number)
        (item,) = [i for i in first.decided["640"] if i["trial"] == number]
        latest = CheckpointFolder(run.checkpoints).latest()
        assert latest is not None and latest.name == "000000640"
        config = load_checkpoint(latest, ()).config
        assert config["name"] == number and config["seed"] == 0
        assert config["langevin"]["step_size"] == item["settings"]["langevin.step_size"]
        assert dict(who)[number] == item["settings"] != trial(int(number), 0).settings
        assert run.metrics.read_text().count("exploit") == 1
    run = first.folder.trial("0003")
    text = run.metrics.read_text()
    run.metrics.write_text("".join(line for line in text.splitlines(True) if "expl" not in line))
    again = make("pbt.quantile=0.5")
    later = [everyone[0], dataclasses.replace(everyone[1], status="failed"), *everyone[2:]]
    assert again.generation(later) == (to, [pair for pair in who if pair[0] != "0001"])
    assert run.metrics.read_text() == text and again.decided == first.decided
    assert again.folder.trial("0002").metrics.read_text().count("exploit") == 1


def test_a_donor_without_a_checkpoint_is_said(make, tmp_path: Path) -> None:
    population = make()
    everyone = [trial(0, 640, 0), trial(1, 640, 1)]
    saved(population, everyone[1])
    with pytest.raises(CheckpointError, match="0000 has no checkpoint for trial 0001"):
        population.generation(everyone)
