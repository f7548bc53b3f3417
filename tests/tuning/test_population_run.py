"""``vmcmc tune … scheduler=pbt`` as the user runs it: copies, turns, kills."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from tests.tuning.sweep_command import ended, same, trial_processes
from vmcmc_dist.config import flatten, load_config
from vmcmc_dist.engine.checkpoint import load_checkpoint
from vmcmc_dist.engine.launch import train
from vmcmc_dist.engine.resources import cpu_count

pytestmark = pytest.mark.usefixtures("nothing_stays_behind")
two_cpus = pytest.mark.skipif(cpu_count() < 2, reason="two workers need two CPUs")
POPULATION = (
    "trials=5", "train.images=2560", "train.keep=9", "scheduler=pbt", "pbt.quantile=0.4",
    "concurrent=2", "seed=2",
)  # fmt: skip
"""More trials than places; rungs at 640, 1,280 and 1,920 images, two trials replaced at each."""


@pytest.mark.slow
def test_a_population_goes_on_from_its_best_and_ends(command, tmp_path: Path) -> None:
    search = command("pbt")
    status, out, err = search(*POPULATION)
    assert status == 0 and err == "" and "5 done" in out, out + err
    assert "2 trials at a time" in out
    trials, told = search.folder.trials(), search.folder.events()
    assert all(event.images == 2560 for event in trials.values())
    decided = json.loads(search.folder.population.read_text())
    assert sorted(decided, key=int) == ["640", "1280", "1920"]
    for rung, replaced in decided.items():
        at = {e.trial: e.figures["kl_data_model"] for e in told if e.images == int(rung)}
        assert len(at) == 5
        order = sorted(at, key=at.__getitem__)
        assert {item["trial"] for item in replaced} == set(order[3:])
        assert {item["donor"] for item in replaced} <= set(order[:2])
    for item in decided["1920"]:  # their checkpoints are the last that were copied
        trial, donor = (search.folder.trial(item[key]) for key in ("trial", "donor"))
        copied = load_checkpoint(trial.checkpoints / "000001920")
        assert same(copied.tensors, load_checkpoint(donor.checkpoints / "000001920").tensors)
        saved = flatten(copied.config)
        assert {key: saved[key] for key in item["settings"]} == item["settings"]
        assert item["settings"] == trials[item["trial"]].settings
        assert item["settings"] != trials[item["donor"]].settings

        name = f"hand-{item['trial']}"  # the same run, gone on with by hand
        copy = tmp_path / name / "checkpoints" / "000001920"
        shutil.copytree(trial.checkpoints / "000001920", copy)
        state = json.loads((copy / "state.json").read_text())
        state["config"]["name"] = name
        (copy / "state.json").write_text(json.dumps(state))
        train(load_config(trial.config, [f"out={tmp_path}", f"name={name}"]))
        hand = load_checkpoint(tmp_path / name / "checkpoints" / "000002560")
        assert same(hand.tensors, search.tensors(item["trial"]))
        assert not same(hand.tensors, search.tensors(item["donor"]))


@pytest.mark.slow
def test_a_population_that_is_killed_ends_as_one_that_is_not(command) -> None:
    """A trial's process, then the driver in the midst of a generation: to the last bit."""
    calm, killed = command("calm"), command("killed")
    status, out, err = calm(*POPULATION)
    assert status == 0, out + err
    process = killed.start(*POPULATION)
    killed.wait_for(lambda events: any(e.images >= 640 for e in events), process)
    os.kill(trial_processes(process)[0].pid, signal.SIGKILL)
    killed.wait_for(lambda events: any(e.images >= 1280 for e in events), process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert killed.folder.population.exists()
    assert not all(e.images >= 1280 for e in killed.folder.trials().values())
    status, out, err = killed(*POPULATION)
    assert status == 0 and "going on: 0 ended" in out and "5 done" in out, out + err
    assert killed.folder.population.read_text() == calm.folder.population.read_text()
    for number, event in calm.folder.trials().items():
        again = killed.folder.trials()[number]
        assert (again.settings, again.figures) == (event.settings, event.figures), number
        assert same(calm.tensors(number), killed.tensors(number)), number
        assert calm.records(number) == killed.records(number)


@pytest.mark.slow
def test_a_population_whose_trials_end_early_goes_on_without_them(command) -> None:
    """All but two are gone before the first comparison; Ctrl-C between, and on to the end."""
    search = command("early")
    text = search.file.read_text()
    search.file.write_text(text.replace("{log: [1.0e-4, 1.0e-2]}", "{choice: [1.0e-3, 1.0e+30]}"))
    settings = (*POPULATION[:-1], "trials=6", "seed=0", "pbt.resample=0.0")
    process = search.start(*settings)
    search.wait_for(lambda events: any(e.images >= 640 for e in events), process)
    os.killpg(process.pid, signal.SIGINT)
    status, out, err = ended(process, 120)
    assert status == 0 and "stopped and saved" in out, out + err
    status, out, err = search(*settings)
    assert status == 0, out + err
    statuses = [event.status for event in search.folder.trials().values()]
    assert len(statuses) == 6 and set(statuses) == {"done", "diverged"}, statuses


@pytest.mark.slow
@two_cpus
def test_a_population_of_two_workers_each_goes_on_from_its_best(command) -> None:
    """They end at a rung all together and saved, so that what is copied is what was judged."""
    search = command("workers")
    status, out, err = search(
        "trials=2", "workers=2", "train.images=1920", "train.noise_per_sample=true",
        "train.keep=9", "scheduler=pbt", "pbt.quantile=0.5", "seed=2", timeout=1200,
    )  # fmt: skip
    assert status == 0 and err == "" and "2 done" in out, out + err
    decided = json.loads(search.folder.population.read_text())
    assert sorted(decided, key=int) == ["640", "1280"]
    for rung, (item,) in decided.items():
        at = {e.trial: e.figures for e in search.folder.events() if e.images == int(rung)}
        worse, better = (at[item[key]]["kl_data_model"] for key in ("trial", "donor"))
        assert worse > better
    for item in decided["1280"]:
        trial, donor = (search.folder.trial(item[key]) for key in ("trial", "donor"))
        copied = load_checkpoint(trial.checkpoints / "000001280")
        assert same(copied.tensors, load_checkpoint(donor.checkpoints / "000001280").tensors)
        last = search.folder.trials()[item["trial"]]
        assert last.settings == item["settings"] and last.images == 1920
        lines = search.records(item["trial"])
        exploits = [line for line in lines if line["kind"] == "exploit"]
        assert (exploits[-1]["donor"], exploits[-1]["images"]) == (item["donor"], 1280)
        assert not same(search.tensors(item["trial"]), search.tensors(item["donor"]))
    starts = [
        [json.loads(line) for line in (run.path / "groups.jsonl").read_text().splitlines()]
        for run in map(search.folder.trial, ("0000", "0001"))
    ]
    for lines in starts:  # each generation began where the last one had ended
        assert [e["images"] for e in lines if e["event"] == "start"] == [0, 640, 1280]
        assert [e["images"] for e in lines if e["event"] == "end"] == [640, 1280, 1920]
