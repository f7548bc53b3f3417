"""``vmcmc tune`` as the user runs it: Ray Tune, trials that die, a driver that dies."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from vmcmc_dist.cli import main
from vmcmc_dist.config import flatten, load_config, to_dict
from vmcmc_dist.engine.checkpoint import CheckpointFolder, load_checkpoint
from vmcmc_dist.engine.launch import train
from vmcmc_dist.engine.resources import cpu_count
from vmcmc_dist.engine.run_folder import complete_lines
from vmcmc_dist.tuning.folder import Event, SweepFolder

two_cpus = pytest.mark.skipif(cpu_count() < 2, reason="two workers need two CPUs")
MARK = f"VMCMC_TEST_OF={os.getpid()}-tuning"


class Command:
    """``vmcmc tune`` of a sweep file, in a folder of its own."""

    def __init__(self, file: Path, name: str):
        self.file, self.name = file, name
        self.folder = SweepFolder(file.parent / "runs" / name)

    def start(self, *settings: str) -> subprocess.Popen:
        words = [
            sys.executable, "-m", "vmcmc_dist", "tune", str(self.file), f"name={self.name}",
            f"out={self.folder.path.parent}", *settings,
        ]  # fmt: skip
        environment = os.environ | {"VMCMC_TEST_OF": MARK.split("=")[1]}
        return subprocess.Popen(
            words,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env=environment,
        )

    def __call__(self, *settings: str, timeout: float = 280) -> tuple[int, str, str]:
        return ended(self.start(*settings), timeout)

    def wait_for(self, what: Callable[[list[Event]], bool], process: subprocess.Popen) -> None:
        until = time.monotonic() + 150
        while time.monotonic() < until and process.poll() is None:
            if what(self.folder.events()):
                return
            time.sleep(0.02)
        raise AssertionError(f"never seen: {ended(process, 1)}, {self.folder.events()}")

    def tensors(self, number: str) -> dict[str, Any]:
        latest = CheckpointFolder(self.folder.trial(number).checkpoints).latest()
        assert latest is not None, number
        return load_checkpoint(latest).tensors


def ended(process: subprocess.Popen, timeout: float) -> tuple[int, str, str]:
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise AssertionError(f"still running after {timeout} s: {process.communicate()}") from None
    return process.returncode, out, err


def trial_processes(process: subprocess.Popen) -> list[psutil.Process]:
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            if "TrainingTrial" in child.name() or "TrainingTrial" in " ".join(child.cmdline()):
                found.append(child)
        except psutil.NoSuchProcess:
            continue
    return found


def same(one: dict, other: dict) -> bool:
    return all(
        tensor.equal(other[part][name]) for part, ts in one.items() for name, tensor in ts.items()
    )


@pytest.fixture
def command(sweep_file: Path) -> Callable[[str], Command]:
    return lambda name: Command(sweep_file, name)


@pytest.fixture(autouse=True)
def nothing_stays_behind() -> Iterator[None]:
    yield
    until = time.monotonic() + 20
    while left := [p for p in Path("/proc").iterdir() if p.name.isdigit() and ours(p)]:
        if time.monotonic() > until:
            raise AssertionError(f"processes of Ray are still there: {[p.name for p in left]}")
        time.sleep(0.2)


def ours(process: Path) -> bool:
    try:
        environment = (process / "environ").read_bytes()
        return MARK.encode() in environment and b"ray" in (process / "cmdline").read_bytes()
    except OSError:
        return False


def test_a_search_finds_a_best_config_and_is_not_done_twice(command) -> None:
    search = command("tpe")
    settings = ("search=tpe", "first_trials=1", "trials=3", "train.images=640",
                "train.sample_images=320", "cpus_per_trial=1")  # fmt: skip
    status, out, err = search(*settings)
    assert status == 0 and err == "", out + err
    assert "3 done" in out and "Traceback" not in out
    trials = search.folder.trials()
    assert sorted(trials) == ["0000", "0001", "0002"]
    best = min(trials.values(), key=lambda e: e.figures["kl_data_model"])
    config = flatten(to_dict(load_config(search.folder.best)))
    assert {key: config[key] for key in best.settings} == best.settings
    assert search.folder.best.read_text().startswith(f"# vmcmc train {search.folder.best}\n")
    for event in trials.values():
        run = search.folder.path / event.folder
        assert event.status == "done" and event.images == 640 and event.failures == 0
        assert (run / "metrics.jsonl").exists() and 0 < event.start_seconds < 120
    table = search.folder.table.read_text()
    status, out, err = search(*settings)
    assert status == 0 and "3 done" in out and search.folder.table.read_text() == table


@pytest.mark.slow
def test_a_trial_that_no_node_can_hold_is_said_within_a_minute(command) -> None:
    started = time.monotonic()
    status, out, err = command("big")("cpus_per_trial=999")
    assert status == 2 and "a trial needs 999 CPU" in err and "Traceback" not in out + err
    assert time.monotonic() - started < 60


def test_a_sweep_over_a_key_that_is_not_there_exits_with_two(sweep_file, capsys) -> None:
    text = sweep_file.read_text().replace("langevin.step_size", "langevin.stepsize")
    sweep_file.write_text(text)
    assert main(["tune", str(sweep_file), f"out={sweep_file.parent}"]) == 2
    out, err = capsys.readouterr()
    assert "did you mean langevin.step_size" in err and "Traceback" not in out + err
    assert not (sweep_file.parent / "toy").exists()


@pytest.mark.slow
def test_the_search_goes_on_after_its_driver_was_killed(command) -> None:
    calm, killed = command("calm"), command("killed")
    settings = ("trials=4", "train.images=3840", "seed=3")
    status, out, err = calm(*settings)
    assert status == 0, out + err
    process = killed.start(*settings)
    killed.wait_for(
        lambda events: (
            sum(e.status == "done" for e in events) >= 1
            and any(e.status == "running" and 0 < e.images < 3840 for e in latest(events))
        ),
        process,
    )
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    done = {e.trial for e in killed.folder.trials().values() if e.status == "done"}
    written = {n: killed.folder.trial(n).metrics.stat().st_mtime_ns for n in done}
    status, out, err = killed(*settings)
    assert status == 0, out + err
    assert "going on: " in out and "4 done" in out
    assert all(killed.folder.trial(n).metrics.stat().st_mtime_ns == t for n, t in written.items())
    events = killed.folder.events()
    assert sum(e.status == "done" for e in events) == 4
    for number, event in calm.folder.trials().items():
        again = killed.folder.trials()[number]
        assert (again.settings, again.figures) == (event.settings, event.figures), number
        assert same(calm.tensors(number), killed.tensors(number)), number
        assert lines(calm, number) == lines(killed, number)


def latest(events: list[Event]) -> list[Event]:
    return list({e.trial: e for e in events}.values())


def lines(command: Command, number: str) -> list[dict[str, Any]]:
    records = complete_lines(command.folder.trial(number).metrics)
    return [{k: v for k, v in r.items() if k != "time"} for r in records]


@pytest.mark.slow
def test_killed_trials_go_on_from_their_checkpoints(command) -> None:
    calm, killed = command("calm"), command("killed")
    settings = ("trials=3", "train.images=3840", "max_failures=3")
    status, out, err = calm(*settings)
    assert status == 0, out + err
    process, rng = killed.start(*settings), random.Random(0)
    for at in (0, 1):
        killed.wait_for(lambda e, at=at: sum(x.images > 640 for x in e) > 3 * at, process)
        os.kill(rng.choice(trial_processes(process)).pid, signal.SIGKILL)
    status, out, err = ended(process, 280)
    assert status == 0 and "3 done" in out and "died and is started again" in out, out + err
    trials = killed.folder.trials()
    assert 1 <= sum(e.failures for e in trials.values()) <= 2
    for number, event in calm.folder.trials().items():
        assert trials[number].figures == event.figures
        assert same(calm.tensors(number), killed.tensors(number))
        assert lines(calm, number) == lines(killed, number)


@pytest.mark.slow
def test_a_trial_that_dies_too_often_is_given_up_and_the_others_are_not(command) -> None:
    search = command("given-up")
    process = search.start("trials=3", "train.images=3840", "max_failures=0")
    search.wait_for(lambda events: any(e.images > 640 for e in events), process)
    os.kill(trial_processes(process)[0].pid, signal.SIGKILL)
    status, out, err = ended(process, 280)
    assert status == 0, out + err
    statuses = sorted(e.status for e in search.folder.trials().values())
    assert statuses == ["done", "done", "failed"]
    (failed,) = [e for e in search.folder.trials().values() if e.status == "failed"]
    assert failed.failures == 1 and failed.reason and "2 done, 1 failed" in out


@pytest.mark.slow
def test_ctrl_c_saves_the_trials_and_the_same_command_goes_on(command) -> None:
    search = command("interrupted")
    settings = ("trials=2", "train.images=19200")
    process = search.start(*settings)
    search.wait_for(lambda events: any(e.images > 640 for e in events), process)
    os.killpg(process.pid, signal.SIGINT)
    asked = time.monotonic()
    status, out, err = ended(process, 90)
    assert status == 0 and "stopped and saved" in out and err == "", out + err
    assert time.monotonic() - asked < 60
    assert "the same command again" in out and "Traceback" not in out
    saved = [int(p.name) for p in CheckpointFolder(search.folder.trial("0000").checkpoints).all()]
    first = search.folder.trials()["0000"]
    assert first.status == "running" and max(saved) >= first.images
    status, out, err = search(*settings)
    assert status == 0 and "2 done" in out, out + err
    records = [r["images"] for r in lines(search, "0000") if r["kind"] == "train"]
    assert records == sorted(set(records)) and {320, 640, 19200} <= set(records)


@pytest.mark.slow
def test_asha_stops_the_worse_trials_at_their_rungs(command) -> None:
    search = command("asha")
    status, out, err = search(
        "trials=9", "train.images=5760", "scheduler=asha", "asha.factor=3", "seed=1"
    )
    assert status == 0, out + err
    trials = search.folder.trials().values()
    stopped = [e for e in trials if e.status == "stopped"]
    assert stopped and {e.images for e in stopped} <= {640, 1920}
    assert all(e.images == 5760 for e in trials if e.status == "done")
    rung: dict[int, list[float]] = {}
    for event in search.folder.events():
        if event.status == "stopped":  # no better than the best third of those seen before
            before = rung[event.images][:-1]  # its own is the last
            better = sum(v < event.figures["kl_data_model"] for v in before)
            assert better >= len(before) / 3 - 1e-9
        if event.images in (640, 1920) and event.status == "running":
            rung.setdefault(event.images, []).append(event.figures["kl_data_model"])


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
        assert lines(calm, number) == lines(killed, number)


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
def test_a_warm_process_that_dies_idle_costs_a_restart_and_no_trial(command) -> None:
    """0000 waits for 0001, which takes much longer; the idle process is given a trial later on."""
    search = command("idle")
    text = search.file.read_text()
    slow = "langevin.steps: {choice: [2, 1500]}"
    search.file.write_text(text.replace("energy.lr: {log: [1.0e-4, 1.0e-2]}", slow))
    process = search.start("trials=2", "scheduler=pbt", "concurrent=2", "seed=13")
    search.wait_for(lambda events: any(e.images == 640 for e in events), process)
    (idle,) = [p for p in trial_processes(process) if ".train" not in " ".join(p.cmdline())]
    os.kill(idle.pid, signal.SIGKILL)
    assert all(e.trial == "0000" for e in search.folder.events() if e.images)
    status, out, err = ended(process, 200)
    assert status == 0 and "2 done" in out and "died and is started again" in out, out + err
    assert sum(e.failures for e in search.folder.trials().values()) == 1


@pytest.mark.slow
@two_cpus
def test_trials_of_two_workers_take_turns_and_give_back_their_places(command) -> None:
    """ASHA stops the second at its first rung: the third finds its workers' places free."""
    search = command("workers")
    status, out, err = search(
        "trials=3", "workers=2", "train.images=3840", "scheduler=asha", "asha.factor=1.1",
        "train.noise_per_sample=true", "seed=5", timeout=290,
    )  # fmt: skip
    assert status == 0 and "1 trials at a time" in out, out + err
    trials = search.folder.trials()
    assert {e.status for e in trials.values()} <= {"done", "stopped"} and len(trials) == 3
    assert any(e.status == "stopped" for e in trials.values())
    assert load_config(search.folder.trial("0000").config).resources.workers == 2


@pytest.mark.slow
def test_a_diverging_trial_is_no_crash(command, sweep_file: Path) -> None:
    text = sweep_file.read_text().replace("{log: [1.0e-4, 1.0e-2]}", "{choice: [1.0e-3, 1.0e+30]}")
    sweep_file.write_text(text)
    search = command("diverging")
    status, out, err = search("search=grid", "points=2", "trials=4")
    assert status == 0 and "2 diverged, 2 done" in out, out + err
    for event in search.folder.trials().values():
        assert (event.status == "diverged") == (event.settings["energy.lr"] > 1)
        assert event.failures == 0 and (event.reason != "") == (event.status == "diverged")


@pytest.mark.slow
def test_the_best_is_proven_with_other_seeds(command) -> None:
    search = command("proven")
    status, out, err = search("trials=2", "--prove", "2")
    assert status == 0, out + err
    proof = json.loads(search.folder.proof.read_text())
    figures = proof["metrics"]["kl_data_model"]
    best = search.folder.trials()[proof["trial"]]
    assert proof["settings"] == best.settings and proof["images"] == 1280
    runs = SweepFolder(search.folder.path / f"proof-{proof['trial']}").trials()
    assert [e.settings.get("seed") for e in runs.values()] == [1000, 1000, 1001, 1001]
    for side, odd in (("default", 0), ("best", 1)):
        values = [e.figures["kl_data_model"] for n, e in runs.items() if int(n) % 2 == odd]
        assert figures[side]["values"] == values and len(set(values)) == 2
        assert min(values) < figures[side]["mean"] < max(values)
    assert f"written       {search.folder.proof}" in out
    config = load_config(search.folder.trial(proof["trial"]).config)
    default = SweepFolder(search.folder.path / f"proof-{proof['trial']}").trial("0000")
    assert load_config(default.config).langevin.step_size == 0.2 != config.langevin.step_size
