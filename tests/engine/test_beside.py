"""Evaluation beside training: it changes nothing in the run, and what it finds is used."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from vmcmc_dist.config import load_config
from vmcmc_dist.engine.beside import Beside
from vmcmc_dist.engine.checkpoint import Checkpoint, CheckpointFolder
from vmcmc_dist.engine.run_folder import RunFolder
from vmcmc_dist.engine.trainer import Trainer
from vmcmc_dist.evaluation.records import Records

EVALUATION = ("evaluation.every_images=960", "evaluation.n=200", "evaluation.steps=20")


def assert_evaluated(run, whole) -> None:
    """Records and lines are there, and the training was the one without evaluation."""
    lines = [line for line in run.metrics() if line["kind"] == "evaluation"]
    assert len(lines) >= 2 and lines[0]["images"] == 960 and lines[-1]["images"] == 19200
    assert all(line["figures"] == {"n": 200} and "failed" not in line for line in lines)
    assert [r["images"] for r in Records(run.folder.path).all()] == [r["images"] for r in lines]
    assert all(r["ema"] and r["steps"] == 20 for r in Records(run.folder.path).all())
    assert [line for line in run.metrics() if line["kind"] != "evaluation"] == whole.metrics()


def test_training_goes_on_meanwhile_and_is_the_same(config: Path, new_run, whole) -> None:
    run = new_run(config, "beside", *EVALUATION)
    status, out, err = run()
    assert status == 0, out + err
    assert_evaluated(run, whole)
    found = [(line["kind"], line["images"]) for line in run.metrics()]
    first = found.index(("evaluation", 960))
    assert max(images for kind, images in found[:first] if kind == "train") > 960
    log = run.folder.log.read_text()
    assert "evaluation of the checkpoint at 960 started" in log
    assert "skipped, the one at 960 is still running" in log

    status, out, err = run("train.images=20480")  # and it goes on
    assert status == 0, out + err
    more = [line["images"] for line in run.metrics() if line["kind"] == "evaluation"]
    assert 19200 in more and more[-1] == 20480


@pytest.mark.slow
def test_beside_workers_of_ray(config: Path, new_run, whole) -> None:
    run = new_run(config, "beside-ray", *EVALUATION, "launcher=ray")
    status, out, err = run(timeout=280)
    assert status == 0, out + err
    assert_evaluated(run, whole)


def test_a_run_that_pauses_is_evaluated_there_even_if_it_was_killed_before(
    config: Path, new_run, whole
) -> None:
    run = new_run(config, "pauses", *EVALUATION, "evaluation.where=here", "train.images=3840")
    assert run("train.pause_images=1920")[0] == 0

    def evaluated() -> list[int]:
        return [line["images"] for line in run.metrics() if line["kind"] == "evaluation"]

    assert evaluated() == [960, 1920]
    lines = run.folder.metrics.read_text().splitlines(keepends=True)
    last = next(line for line in reversed(lines) if '"evaluation"' in line)
    run.folder.metrics.write_text("".join(line for line in lines if line != last))
    assert evaluated() == [960]
    assert run("train.pause_images=1920")[0] == 0
    assert evaluated() == [960, 1920]
    assert run()[0] == 0
    assert evaluated() == [960, 1920, 2880, 3840]
    training = [line for line in run.metrics() if line["kind"] == "train"]
    assert training == [line for line in whole.metrics() if line["kind"] == "train"][:6]


def test_a_failure_is_said_and_recorded_and_ends_nothing(config: Path, new_run) -> None:
    run = new_run(
        config, "beside-fails", "evaluation.every_images=1920", "train.images=1920",
        "evaluation.features=classifier",
    )  # fmt: skip
    status, out, err = run()
    assert status == 0, out + err
    (line,) = [line for line in run.metrics() if line["kind"] == "evaluation"]
    assert "distances are for images" in line["failed"] and line["figures"] == {}
    assert "evaluation at 1,920 images failed: points on the plane" in out
    assert "FAILED" in run.folder.log.read_text()


@pytest.fixture
def beside(tmp_path: Path) -> Beside:
    """Of a run with six checkpoints that hold nothing."""
    config = load_config(
        None,
        ["data.source=toy2d", "energy.net=mlp", "vae.net=mlp", f"out={tmp_path}", "name=r",
         "launcher=local", "resources.device=cpu", "evaluation.every_images=100"],
    )  # fmt: skip
    folder = RunFolder(tmp_path / "r")
    folder.create()
    checkpoints = CheckpointFolder(folder.checkpoints, keep=2)
    beside = Beside(config, folder, checkpoints, 0)
    yield beside
    beside.close()


def save(checkpoints: CheckpointFolder, *numbers: int) -> None:
    for images in numbers:
        checkpoints.save(Checkpoint(images, {}, {"score": None, "good": True}))


def names(checkpoints: CheckpointFolder) -> list[int]:
    return [int(path.name) for path in checkpoints.all()]


def test_a_killed_process_is_a_failed_line(beside: Beside) -> None:
    save(beside.checkpoints, 100)
    beside.start(100)
    beside.call.process.kill()
    (line,) = beside._wait()
    assert line["images"] == 100 and "-9" in line["failed"] and beside.call is None
    json.dumps(line)


def test_the_checkpoint_that_is_read_is_not_pruned(beside: Beside) -> None:
    save(beside.checkpoints, 100)
    beside.start(100)
    save(beside.checkpoints, 200, 300, 400)
    assert names(beside.checkpoints) == [100, 300, 400]
    process = beside.call.process
    beside.close()
    assert process.poll() is not None
    save(beside.checkpoints, 500)
    assert names(beside.checkpoints) == [400, 500]


def test_one_is_due_at_the_first_checkpoint_after_every(beside: Beside, monkeypatch) -> None:
    started: list[int] = []
    monkeypatch.setattr(
        Beside, "_start", lambda self, i: started.append(i) or setattr(self, "seen", i)
    )
    for images in (64, 128, 192, 256, 320, 1000):
        beside.start(images)
    assert started == [128, 256, 320, 1000]
    beside.settings.every_images = 0
    beside.start(2000)
    assert started[-1] == 1000 and beside.finish(2000) == []


def test_best_is_the_checkpoint_with_the_least_figure(beside: Beside) -> None:
    config, checkpoints = beside.config, beside.checkpoints
    config.train.best = "fd_classifier_refined"
    trainer = SimpleNamespace(
        config=config, checkpoints=checkpoints, folder=beside.folder,
        trackers=SimpleNamespace(write=lambda _: None),
    )  # fmt: skip

    def found(images: int, **figures: float) -> None:
        line = {"kind": "evaluation", "task": "synthesis", "images": images, "figures": figures}
        Trainer._note(trainer, [line])

    save(checkpoints, 100)
    found(100, fd_classifier_refined=5.0)
    save(checkpoints, 200)
    found(200, fd_classifier_refined=2.0)
    save(checkpoints, 300)
    found(300, fd_classifier_refined=3.0)
    assert checkpoints.best().name == "000000200"
    save(checkpoints, 400, 500, 600)
    found(600, fd_classifier_proposals=1.0)
    found(100, fd_classifier_refined=0.5)  # gone meanwhile
    assert names(checkpoints) == [200, 500, 600] and checkpoints.best().name == "000000200"
    lines = [json.loads(line) for line in beside.folder.metrics.read_text().splitlines()]
    assert [line["images"] for line in lines] == [100, 200, 300, 600, 100]
