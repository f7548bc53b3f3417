"""A trial's process, driven as Ray Tune drives it but without Ray: one run after the other."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from vmcmc_dist.config import load_config
from vmcmc_dist.engine.checkpoint import CheckpointFolder, load_checkpoint
from vmcmc_dist.engine.launch import train
from vmcmc_dist.engine.run_folder import RunFolder, complete_lines
from vmcmc_dist.engine.samples import DensityRecorder
from vmcmc_dist.tuning.config import Sweep, base_config
from vmcmc_dist.tuning.donor import adopt, has_adopted
from vmcmc_dist.tuning.folder import SweepFolder
from vmcmc_dist.tuning.trial import TrainingTrial

Make = Callable[..., Sweep]


class Process:
    """One trial process of a sweep."""

    def __init__(self, sweep: Sweep):
        self.folder = SweepFolder(sweep.folder)
        self.folder.create()
        self.folder.write(sweep, base_config(sweep))
        self.trial: TrainingTrial | None = None

    def begin(self, number: str, **settings: Any) -> None:
        values = {key.replace("__", "."): value for key, value in settings.items()}
        config = {"sweep": str(self.folder.path), "trial": number, **values}
        if self.trial is None:
            self.trial = TrainingTrial(config)
        else:
            assert self.trial.reset(config)

    def result(self) -> dict[str, Any]:
        assert self.trial is not None
        return self.trial.train()

    def to_the_end(self) -> list[dict[str, Any]]:
        results = [self.result()]
        while not results[-1]["done"]:
            results.append(self.result())
        return results

    def run(self, number: str) -> RunFolder:
        return self.folder.trial(number)

    def tensors(self, number: str) -> dict[str, dict[str, torch.Tensor]]:
        latest = CheckpointFolder(self.run(number).checkpoints).latest()
        assert latest is not None
        return load_checkpoint(latest).tensors


@pytest.fixture
def process(make_sweep: Make) -> Iterator[Callable[..., Process]]:
    made: list[Process] = []

    def make(*settings: str, **more: Any) -> Process:
        made.append(Process(make_sweep(*settings, **more)))
        return made[-1]

    yield make
    for one in made:
        if one.trial is not None:
            one.trial.stop()


def same(one: dict, other: dict) -> bool:
    return all(
        tensor.equal(other[part][name]) for part, ts in one.items() for name, tensor in ts.items()
    )


def test_a_trial_is_the_run_of_vmcmc_train(process, make_sweep: Make) -> None:
    """To the last bit; and what ran before in the process leaves no trace."""
    warm = process()
    warm.begin("0000", langevin__step_size=0.7)
    results = warm.to_the_end()
    assert [r["images"] for r in results] == [640, 1280]
    assert [r["status"] for r in results] == ["running", "done"]
    warm.begin("0001", langevin__step_size=0.3)
    warm.to_the_end()
    config = load_config(warm.run("0001").config, [f"out={warm.folder.path}", "name=alone"])
    train(config)
    alone = CheckpointFolder(warm.folder.path / "alone" / "checkpoints").latest()
    assert alone is not None and same(warm.tensors("0001"), load_checkpoint(alone).tensors)
    assert not same(warm.tensors("0000"), warm.tensors("0001"))
    for name in ("config.yaml", "environment.json", "metrics.jsonl", "log.txt"):
        assert (warm.run("0001").path / name).exists(), name


@pytest.mark.slow
def test_a_trial_that_was_left_goes_on_from_its_checkpoint(process) -> None:
    left, whole = process("name=left"), process("name=whole")
    whole.begin("0000", langevin__step_size=0.3)
    whole.to_the_end()
    left.begin("0000", langevin__step_size=0.3)
    assert left.result()["images"] == 640
    left.begin("0001", langevin__step_size=0.4)  # the process is given to another
    left.result()
    left.begin("0000", langevin__step_size=0.3)
    results = left.to_the_end()
    assert [r["images"] for r in results] == [1280]  # nothing is told twice
    assert same(left.tensors("0000"), whole.tensors("0000"))
    assert (
        results[-1]["kl_data_model"]
        == complete_lines(whole.run("0000").metrics)[-1]["kl_data_model"]
    )


@pytest.mark.slow
def test_a_finished_trial_is_told_again_without_training(process) -> None:
    one = process()
    one.begin("0000", langevin__step_size=0.3)
    first = one.to_the_end()[-1]
    size = one.run("0000").metrics.stat().st_size
    one.begin("0000", langevin__step_size=0.3)
    again = one.to_the_end()
    assert len(again) == 1 and again[0]["kl_data_model"] == first["kl_data_model"]
    assert one.run("0000").metrics.stat().st_size == size


def test_divergence_ends_a_trial_and_the_process_serves_the_next(process) -> None:
    one = process()
    one.begin("0000", langevin__step_size=0.3, energy__lr=1e30)
    last = one.to_the_end()[-1]
    assert last["status"] == "diverged" and "kl_data_model" not in last
    assert "not finite" in last["told"]["reason"] or "diverged" in last["told"]["reason"]
    one.begin("0001", langevin__step_size=0.3)
    assert one.to_the_end()[-1]["status"] == "done"


def test_what_cannot_work_fails_with_its_reason(process) -> None:
    one = process()
    one.begin("0000", langevin__step_size=0.3)
    one.result()
    one.begin("0000", langevin__step_size=0.4)  # another config in the same folder
    last = one.to_the_end()[-1]
    assert last["status"] == "failed" and "langevin.step_size: 0.3 → 0.4" in last["told"]["reason"]


def test_a_request_to_stop_saves_and_trains_no_more(process) -> None:
    one = process("train.images=640000")
    one.begin("0000", langevin__step_size=0.3)
    one.result()
    one.folder.stop.touch()
    stopped = one.result()
    assert stopped["interrupted"] and not stopped["done"]
    saved = CheckpointFolder(one.run("0000").checkpoints).latest()
    assert saved is not None and int(saved.name) == 672
    assert one.result()["interrupted"]
    assert CheckpointFolder(one.run("0000").checkpoints).latest() == saved
    one.begin("0001", langevin__step_size=0.3)
    assert one.result()["interrupted"] and not one.run("0001").path.exists()


def test_who_is_replaced_gets_the_donors_weights_and_trains_on_with_new_settings(process) -> None:
    """By the weights: they are the donor's, then what the new settings make of them."""
    one = process("train.images=2560", space={"langevin.step_size": {"log": [0.1, 2.0]}})
    for number, step_size in (("0000", 0.3), ("0001", 1.1)):
        one.begin(number, langevin__step_size=step_size, until=1280)
        results = one.to_the_end()
        assert [(r["images"], r["waits"]) for r in results] == [(640, False), (1280, True)]
        assert results[-1]["status"] == "running"
    latest = CheckpointFolder(one.run("0000").checkpoints).latest()
    assert latest is not None
    donor = load_checkpoint(latest)
    assert donor.images == 1280 and not same(one.tensors("0001"), donor.tensors)
    new = {"langevin.step_size": 0.36}
    adopt("0001", one.run("0001"), one.run("0000"), new)
    assert has_adopted(one.run("0001"), "0000", new)
    assert [p.name for p in CheckpointFolder(one.run("0001").checkpoints).all()] == ["000001280"]
    assert same(one.tensors("0001"), donor.tensors)

    hand = RunFolder(one.folder.path / "hand")  # the same by hand
    hand.create()
    copy = hand.checkpoints / "000001280"
    shutil.copytree(latest, copy)
    state = json.loads((copy / "state.json").read_text())
    state["config"]["langevin"]["step_size"] = 0.36
    state["config"]["name"] = "hand"
    (copy / "state.json").write_text(json.dumps(state))

    one.begin("0001", langevin__step_size=0.36)
    assert [r["images"] for r in one.to_the_end()] == [1920, 2560]
    train(load_config(one.run("0001").config, [f"out={one.folder.path}", "name=hand"]))
    latest = CheckpointFolder(hand.checkpoints).latest()
    assert latest is not None and same(one.tensors("0001"), load_checkpoint(latest).tensors)

    lines = complete_lines(one.run("0001").metrics)
    (exploit,) = [line for line in lines if line["kind"] == "exploit"]
    assert (exploit["donor"], exploit["images"], exploit["settings"]) == ("0000", 1280, new)
    records = [line["images"] for line in lines if line["kind"] == "train"]
    assert records == [*range(320, 2561, 320)]


@pytest.mark.slow
def test_who_waits_is_saved_and_told_again_without_training(process) -> None:
    """A driver that died before it heard of a trial's figure hears of it from the run's folder."""
    parts, whole = process("name=parts"), process("name=whole")
    whole.begin("0000", langevin__step_size=0.3)
    whole.to_the_end()
    parts.begin("0000", langevin__step_size=0.3, until=640)
    (first,) = parts.to_the_end()
    with parts.run("0000").locked():  # nobody holds it
        pass
    size = parts.run("0000").metrics.stat().st_size
    parts.begin("0000", langevin__step_size=0.3, until=640)
    (again,) = parts.to_the_end()
    assert (again["images"], again["waits"]) == (640, True)
    assert again["kl_data_model"] == first["kl_data_model"]
    assert parts.run("0000").metrics.stat().st_size == size
    parts.begin("0000", langevin__step_size=0.3)
    assert parts.to_the_end()[-1]["status"] == "done"
    assert same(parts.tensors("0000"), whole.tensors("0000"))


def test_who_has_no_figure_of_its_rung_has_failed(process, monkeypatch) -> None:
    """Its older figures are not taken for those: it would be sent to the same rung for ever."""
    one = process()
    one.begin("0000", langevin__step_size=0.3, until=640)
    assert one.to_the_end()[-1]["waits"]
    write = DensityRecorder.write
    monkeypatch.setattr(
        DensityRecorder,
        "write",
        lambda self, energy, vae, images: {
            k: v for k, v in write(self, energy, vae, images).items() if k != "kl_data_model"
        },
    )
    one.begin("0000", langevin__step_size=0.3, until=960)
    last = one.to_the_end()[-1]
    assert last["status"] == "failed" and not last["waits"], last
    assert "no figure" in last["told"]["reason"]
