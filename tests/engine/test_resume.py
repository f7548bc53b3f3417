"""A run that is killed, interrupted or refused: started again, it is the run it would have been."""

from __future__ import annotations

import os
import random
import resource
import signal
import sys
import time
from pathlib import Path

import pytest

from vmcmc_dist.engine.checkpoint import load_checkpoint


def same_weights(one, other) -> None:
    a, b = (load_checkpoint(run.checkpoints.latest()) for run in (one, other))
    assert a.images == b.images
    for part, tensors in a.tensors.items():
        for name, tensor in tensors.items():
            assert tensor.equal(b.tensors[part][name]), f"{part} {name}"


def killed_until_done(run, seed: int, kills: int, span: float) -> None:
    """Start the same command again and again; kill -9 it at random moments."""
    moments, reached = random.Random(seed), 0
    for _ in range(kills):
        process = run.start()
        run.wait_for_checkpoint(process, after=reached)
        time.sleep(moments.uniform(0, span))
        assert process.poll() is None, "it was too quick to be killed"
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        reached = int(run.checkpoints.latest().name)
    status, out, err = run()
    assert status == 0, out + err
    assert f"going on from {reached:,} images" in out


def test_killed_at_random_moments_it_is_the_same_run_to_the_last_bit(whole, config, new_run):
    run = new_run(config, "killed")
    killed_until_done(run, seed=0, kills=2, span=0.6)
    assert run.metrics() == whole.metrics()
    same_weights(run, whole)


@pytest.fixture(scope="module")
def whole_images(image_config, new_run):
    run = new_run(image_config, "whole")
    status, out, err = run()
    assert status == 0, out + err
    return run


def test_killed_in_an_epoch_of_shards_with_dropout(whole_images, image_config, new_run):
    run = new_run(image_config, "killed")
    killed_until_done(run, seed=1, kills=1, span=0.5)
    assert run.metrics() == whole_images.metrics()
    same_weights(run, whole_images)


def test_the_records_say_what_they_should(whole_images) -> None:
    records = whole_images.metrics()
    training = [r for r in records if r["kind"] == "train"]
    assert [r["images"] for r in training] == list(range(24, 961, 24))
    assert [r["images"] for r in records if r["kind"] == "sample"] == [480, 960]
    assert (whole_images.folder.samples / "000000960.png").exists()
    assert list(whole_images.folder.tensorboard.glob("events*"))
    for file in ("config.yaml", "environment.json", "log.txt"):
        assert (whole_images.folder.path / file).stat().st_size
    assert [int(p.name) for p in whole_images.checkpoints.all()][-2:] == [920, 960]


def test_ctrl_c_saves_once_ends_well_and_goes_on(whole, config, new_run, run_to_the_end):
    run = new_run(config, "interrupted")
    process = run.start()
    run.wait_for_checkpoint(process)
    os.killpg(process.pid, signal.SIGINT)
    status, out, err = run_to_the_end(process)
    assert status == 0, out + err
    assert "stopping: the run is being saved" in out and "stopped and saved at" in out
    assert "Traceback" not in out + err and not run.folder.stop.exists()
    saved = int(run.checkpoints.latest().name)
    assert f"saved at {saved:,} images" in out and saved < 19_200
    status, out, err = run()
    assert status == 0 and f"going on from {saved:,} images" in out
    assert run.metrics() == whole.metrics()


def test_a_run_that_pauses_is_the_same_run(whole, config, new_run):
    """It ends where it was told to, between two records, and goes on when it is told no more."""
    run = new_run(config, "paused")
    for _ in range(2):
        status, out, err = run("train.pause_images=4832")
        assert status == 0 and "paused (train.pause_images) and saved at 4,832" in out, out + err
        assert "a pause at 4,832" in out
        assert int(run.checkpoints.latest().name) == 4832
        assert [r["images"] for r in run.metrics()] == list(range(640, 4832, 640))
    status, out, err = run("train.pause_images=100000")
    assert status == 0 and "done at 19,200 images" in out, out + err
    assert run.metrics() == whole.metrics()
    same_weights(run, whole)


@pytest.mark.slow
def test_sigterm_is_asked_for_the_same(config, new_run, run_to_the_end):
    run = new_run(config, "terminated")
    process = run.start()
    run.wait_for_checkpoint(process)
    process.terminate()
    status, out, err = run_to_the_end(process)
    assert status == 0 and "stopped and saved" in out, out + err


def test_a_second_ctrl_c_ends_it_at_once(config, new_run, run_to_the_end):
    run = new_run(config, "hurried", "langevin.steps=4000", "train.checkpoint_images=32")
    process = run.start()
    run.wait_for_checkpoint(process)
    os.killpg(process.pid, signal.SIGINT)
    until = time.monotonic() + 20
    while not run.folder.stop.exists() and time.monotonic() < until:
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGINT)
    asked = time.monotonic()
    status, out, err = run_to_the_end(process, 30)
    assert status == 130 and "interrupted" in err and "Traceback" not in err, out + err
    assert time.monotonic() - asked < 5
    for path in run.checkpoints.all():
        load_checkpoint(path)


def test_a_complete_run_says_so_and_does_not_train(whole) -> None:
    before = whole.folder.metrics.read_bytes()
    status, out, err = whole()
    assert status == 0 and "already complete at 19,200 images" in out, out + err
    assert whole.folder.metrics.read_bytes() == before


def test_another_config_under_the_same_name_is_refused(whole) -> None:
    before = whole.folder.config.read_text()
    status, out, err = whole("energy.lr=5e-4", "langevin.steps=6", "train.keep=3")
    assert status == 2 and "Traceback" not in err
    assert "holds a run with another config" in err and "another name=" in err
    assert "energy.lr: 0.001 → 0.0005" in err and "langevin.steps: 5 → 6" in err
    assert "train.keep" not in err
    assert whole.folder.config.read_text() == before


@pytest.mark.slow
def test_a_longer_run_goes_on_where_the_shorter_ended(config, new_run) -> None:
    run = new_run(config, "longer", "train.sample_images=1000000")
    assert run("train.images=960")[0] == 0
    status, out, err = run("train.images=1920")
    assert status == 0 and "going on from 960 images" in out, out + err
    assert run.metrics()[-2]["images"] == 1920


@pytest.mark.slow
def test_the_time_limit_ends_it_cleanly(config, new_run) -> None:
    run = new_run(config, "limited", "train.images=100000000", "train.max_minutes=0.03")
    status, out, err = run()
    assert status == 0 and "done at" in out, out + err
    assert int(run.checkpoints.latest().name) == run.metrics()[-1]["images"]


# -- no room, no rights ----------------------------------------------------------------------------


def test_no_room_for_a_checkpoint(config, new_run) -> None:
    """A limit on the size of files stands for the full disk: the checkpoint is torn in writing."""
    run = new_run(config, "full", "energy.width=400")

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))

    status, out, err = run(preexec_fn=limit)
    assert status == 2 and "could not be written" in err and "make room" in err, out + err
    assert "Traceback" not in out + err
    assert run.checkpoints.all() == []


def test_no_room_for_a_picture(config, new_run) -> None:
    run = new_run(config, "full-of-pictures", "train.images=640")
    run.folder.samples.mkdir(parents=True)
    (run.folder.samples / "000000640.png").symlink_to("/dev/full")
    status, out, err = run()
    assert status == 2 and "make room" in err and "Traceback" not in out + err, out + err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_of_somebody_else(config, new_run, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    status, _, err = new_run(config, "a")(f"out={tmp_path}")
    assert status == 2 and "cannot be written" in err and "Traceback" not in err


def test_a_run_folder_that_cannot_be(config, new_run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    status, _, err = new_run(config, "a")(f"out={tmp_path}/file")
    assert status == 2 and "cannot be written" in err and "set out=" in err
    assert "Traceback" not in err


@pytest.mark.slow
def test_a_damaged_checkpoint_says_which_folder_to_delete(config, new_run) -> None:
    run = new_run(config, "damaged")
    assert run("train.images=1920")[0] == 0
    latest = run.checkpoints.latest()
    (latest / "energy.safetensors").write_bytes(b"torn")
    status, _, err = run("train.images=2880")
    assert status == 2 and str(latest) in err and "Delete that folder" in err
    assert "Traceback" not in err


# -- the guard -------------------------------------------------------------------------------------

LOST = ("guard.warmup_images=0", "guard.patience=2", "guard.spread=0", "guard.gap_ratio=1e-9")


def test_a_lost_run_is_rolled_back_then_given_up(config, new_run) -> None:
    run = new_run(config, "lost", *LOST, "guard.max_rollbacks=2")
    status, out, err = run()
    assert status == 3, out + err
    assert "energy runs away" in err and "Given up after 2 rollbacks" in err
    assert "raise langevin.step_size" in err and "Traceback" not in out + err
    assert out.count("rolled back from") == 2 and "learning rates × 0.25" in out
    rollbacks = [r for r in run.metrics() if r["kind"] == "rollback"]
    assert [r["lr_scale"] for r in rollbacks] == [0.5, 0.25]


def test_an_absurd_learning_rate_ends_with_advice(config, new_run) -> None:
    run = new_run(config, "absurd", "energy.lr=1e12", "guard.max_rollbacks=1")
    status, out, err = run()
    assert status == 3 and "rolled back from" in out, out + err
    assert "finite" in err and "learning rate" in err + "lr" and "Traceback" not in out + err


@pytest.mark.slow
def test_action_stop_does_not_roll_back(config, new_run) -> None:
    run = new_run(config, "stopped", *LOST, "guard.action=stop")
    status, out, err = run()
    assert status == 3 and "rolled back" not in out and "energy runs away" in err, out + err


def test_action_none_goes_on(config, new_run) -> None:
    run = new_run(config, "unguarded", *LOST, "guard.action=none", "train.images=3200")
    status, out, err = run()
    assert status == 0, out + err
    assert {r["regime"] for r in run.metrics() if r["kind"] == "train"} == {"energy runs away"}


# -- torchrun --------------------------------------------------------------------------------------


def test_two_workers_under_torchrun_are_the_same_run(config, new_run) -> None:
    settings = ("train.noise_per_sample=true", "train.images=1280", "train.sample_images=100000")
    alone, pair = new_run(config, "alone", *settings), new_run(config, "torchrun", *settings)
    assert alone()[0] == 0
    launcher = [
        str(Path(sys.executable).with_name("torchrun")), "--standalone", "--nproc-per-node=2"
    ]  # fmt: skip
    status, out, err = pair("launcher=torchrun", launcher=launcher)
    assert status == 0 and "2 workers on cpu by torchrun" in out, out + err
    for one, two in zip(alone.metrics(), pair.metrics(), strict=True):
        if one["kind"] != "train":
            continue
        for name in ("gap", "energy_loss", "vae_loss", "kl", "displacement"):
            assert two[name] == pytest.approx(one[name], rel=1e-4, abs=1e-5), name
