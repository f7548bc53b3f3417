"""``vmcmc tune`` as the user runs it: Ray Tune, trials that die, a driver that dies."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.tuning.sweep_command import ended, same, trial_processes
from vmcmc_dist.cli import main
from vmcmc_dist.config import flatten, load_config, to_dict
from vmcmc_dist.engine.checkpoint import CheckpointFolder
from vmcmc_dist.engine.resources import cpu_count
from vmcmc_dist.tuning.folder import Event, SweepFolder

pytestmark = pytest.mark.usefixtures("nothing_stays_behind")
two_cpus = pytest.mark.skipif(cpu_count() < 2, reason="two workers need two CPUs")


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
        assert calm.records(number) == killed.records(number)


def latest(events: list[Event]) -> list[Event]:
    return list({e.trial: e for e in events}.values())


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
        assert calm.records(number) == killed.records(number)


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
    records = [r["images"] for r in search.records("0000") if r["kind"] == "train"]
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
