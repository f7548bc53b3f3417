"""``vmcmc evaluate`` on run folders: what it says, what it keeps, how it goes on after a kill."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from vmcmc_dist.cli import main
from vmcmc_dist.config import load_config, to_dict
from vmcmc_dist.engine.checkpoint import Checkpoint, CheckpointFolder
from vmcmc_dist.engine.run_folder import RunFolder
from vmcmc_dist.errors import DataError
from vmcmc_dist.evaluation.records import Records
from vmcmc_dist.evaluation.tasks import TASKS, task_module
from vmcmc_dist.models import build_energy, build_vae

MANY = ["n=60", "batch_size=4", "features=none", "steps=60", "out=folder"]


def write_run(folder: Path, *settings: str, images: tuple[int, ...] = (640,)) -> Path:
    """A run folder with checkpoints of random nets."""
    config = load_config(
        None,
        ["name=tiny", "vae.latent_dim=3", "langevin.steps=2", "langevin.step_size=0.1",
         "train.precision=fp32", *settings],
    )  # fmt: skip
    shape = (2,) if config.data.source == "toy2d" else (1, 28, 28)
    run = RunFolder(folder / "tiny")
    run.create()
    for number in images:
        torch.manual_seed(number)
        tensors = {}
        for suffix in ("", "_ema"):
            tensors["energy" + suffix] = build_energy(config.energy, shape).state_dict()
            tensors["vae" + suffix] = build_vae(config.vae, shape).state_dict()
        state = {"shape": list(shape), "score": 1.0, "good": True}
        checkpoint = Checkpoint(number, to_dict(config), state, tensors)
        CheckpointFolder(run.checkpoints).save(checkpoint)
    return run.path


@pytest.fixture
def plane(tmp_path: Path) -> Path:
    settings = ("data.source=toy2d", "energy.net=mlp", "vae.net=mlp")
    return write_run(tmp_path, *settings, images=(640, 1280))


@pytest.fixture
def pictures(tmp_path: Path, blob_data: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VMCMC_CACHE", str(blob_data.with_name("cache")))
    return write_run(
        tmp_path, "data.source=arrays", f"data.root={blob_data}", "data.prepare_workers=1",
        "energy.width=4", "energy.depth=1", "vae.width=4", "vae.depth=1",
    )  # fmt: skip


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    status = main(["evaluate", *map(str, words)])
    out, err = capsys.readouterr()
    return status, out, err


def command(*words: object, **environment: str) -> subprocess.Popen:
    """The command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "vmcmc_dist", "evaluate", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
    )


# -- records ---------------------------------------------------------------------------------------


def test_a_record_says_all_that_it_depends_on(capsys, plane: Path) -> None:
    words = (plane, "n=9", "steps=3", "temperature=0.5", "seed=4", "--checkpoint", 640, "--no-ema")
    status, out, err = run(capsys, *words)
    assert status == 0, err
    (record,) = Records(plane).all()
    given = {"task": "synthesis", "images": 640, "n": 9, "steps": 3, "temperature": 0.5,
             "seed": 4, "ema": False, "held_out": "fresh draws"}  # fmt: skip
    assert {key: record[key] for key in given} == given
    assert record["settings"]["batch_size"] == 250 and len(record["weights"]) == 64
    assert len(record["data_checksum"]) == 64 and "commit" in record and record["seconds"] >= 0
    assert [plane / picture for picture in record["pictures"]] == [
        plane / "evaluation" / "synthesis" / "samples-000000640.png"
    ]
    assert all((plane / picture).is_file() for picture in record["pictures"])
    assert "n=9 · 3 Langevin steps · temperature 0.5 · seed 4 · weights as trained" in out
    assert not list((plane / "evaluation" / "synthesis").glob(".parts*"))


def test_what_is_finished_is_not_done_again_unless_asked(capsys, plane: Path) -> None:
    assert run(capsys, plane, "n=5")[0] == 0
    before = Records(plane).path.read_bytes()
    status, out, _ = run(capsys, plane, "n=5")
    assert status == 0 and "finished before" in out and Records(plane).path.read_bytes() == before
    assert "finished before" not in run(capsys, plane, "n=5", "--again")[1]
    for words in (("n=6",), ("n=5", "--no-ema"), ("n=5", "--checkpoint", 640), ("n=5", "seed=1")):
        assert "finished before" not in run(capsys, plane, *words)[1]
    assert len(Records(plane).all()) == 6


def test_other_weights_under_the_same_name_are_another_evaluation(capsys, plane: Path) -> None:
    run(capsys, plane, "n=5")
    path = plane / "checkpoints" / "000001280" / "vae_ema.safetensors"
    tensors = load_file(path)
    save_file({name: value + 1e-3 for name, value in tensors.items()}, path)
    assert "finished before" not in run(capsys, plane, "n=5")[1]


# -- what goes wrong -------------------------------------------------------------------------------


def test_a_run_without_checkpoints(capsys, tmp_path: Path) -> None:
    RunFolder(tmp_path / "empty").create()
    for folder in ("empty", "nowhere"):
        status, out, err = run(capsys, tmp_path / folder)
        assert status == 2 and "has no checkpoints" in err and out == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--task", "sythesis"], "no task 'sythesis'; there are synthesis, "),
        (["stepz=3"], "no task knows 'stepz'; did you mean 'steps'? (keys of synthesis: n, steps"),
        (["masks=[left]"], "no task knows 'masks'"),
        (["n=0"], "n must be ≥ 1, got 0"),
        (["n=many"], "n: Value 'many'"),
        (["features=fid"], "features"),
        (["temperature=inf"], "finite"),
        (["--workers", "0"], "--workers must be at least 1"),
        (["--checkpoint", "641"], "no checkpoint '641'"),
        (["--task", "ood"], "ood cannot be done on this run"),
    ],
)
def test_bad_options(capsys, plane: Path, words: list[str], said: str) -> None:
    status, out, err = run(capsys, plane, *words)
    assert status == 2 and said in err and err.startswith("vmcmc: ") and out == ""
    assert not Records(plane).all()


def test_too_few_samples_are_said(capsys, pictures: Path, monkeypatch) -> None:
    def needs_more(*_: object) -> None:
        raise DataError("needs at least 8 samples, got 7: ask for more")

    monkeypatch.setattr("vmcmc_dist.evaluation.tasks.synthesis.judge_of", needs_more)
    status, _, err = run(capsys, pictures, "n=7")
    assert status == 2 and "synthesis: needs at least 8 samples" in err


def test_another_process_at_the_same_task(capsys, plane: Path) -> None:
    with Records(plane).locked("synthesis"):
        status, _, err = run(capsys, plane, "n=5")
    assert status == 2 and "another process evaluates synthesis" in err


def test_all_leaves_out_what_does_not_fit_and_a_failure_hides_nothing(
    capsys, plane: Path, monkeypatch
) -> None:
    for task in TASKS:
        if task not in ("synthesis", "mixing", "ood"):
            monkeypatch.setattr(task_module(task), "fits", lambda _: "not in this test")

    def fails(_: object) -> None:
        raise DataError("no modes here")

    monkeypatch.setattr(task_module("mixing"), "fits", lambda _: None)
    monkeypatch.setattr(task_module("mixing"), "run", fails)
    status, out, err = run(capsys, plane, "--task", "all", "n=50")
    assert "vmcmc: geometry: n must be ≥ 100" not in err  # it does not fit here
    assert status == 2 and "vmcmc: mixing: no modes here" in err
    assert "ood: left out" in err and "interpolation: left out, not in this test" in err
    assert "synthesis, trained on 1,280 images" in out
    assert [record["task"] for record in Records(plane).all()] == ["synthesis"]


def test_help_lists_every_task_and_key(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["evaluate", "--help"])
    out = capsys.readouterr()[0]
    assert out.startswith("usage: vmcmc evaluate")
    for task, what in TASKS.items():
        assert f"\n{task}: {what}" in out
    assert "  n=1000  (int, ≥ 1, samples)" in out
    assert "  out=none  (none|folder|shards)" in out


# -- interrupted, and shared -----------------------------------------------------------------------


def parts(run_folder: Path) -> list[Path]:
    return sorted((run_folder / "evaluation" / "synthesis").glob(".parts-*/*.safetensors"))


def shown(run_folder: Path) -> tuple[dict, dict[str, bytes]]:
    """The newest figures, and the bytes of the picture and of all samples."""
    record = Records(run_folder).all()[-1]
    files = (run_folder / record["figures"]["files"]).iterdir()
    picture = (run_folder / record["pictures"][0]).read_bytes()
    return record["figures"], {"": picture} | {f.name: f.read_bytes() for f in files}


def test_a_killed_evaluation_goes_on_and_gives_the_same(
    capsys, pictures: Path, tmp_path: Path
) -> None:
    whole = tmp_path / "whole"
    shutil.copytree(pictures, whole)
    process = command(pictures, *MANY)
    until = time.monotonic() + 120
    while len(parts(pictures)) < 3 and process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, process.communicate()
    made = parts(pictures)
    assert 3 <= len(made) < 15 and not Records(pictures).all()

    poisoned = tmp_path / "poisoned"
    shutil.copytree(pictures, poisoned)
    first = parts(poisoned)[0]
    save_file({name: value.flip(-1) for name, value in load_file(first).items()}, first)
    torn = parts(pictures)[1]
    torn.write_bytes(torn.read_bytes()[:100])

    for folder in (pictures, whole, poisoned):
        status, _, err = run(capsys, folder, *MANY)
        assert status == 0, err
        assert not parts(folder) and len(Records(folder).all()) == 1
    assert shown(pictures) == shown(whole)
    assert shown(poisoned)[1][""] != shown(whole)[1][""]  # so finished parts were not made again


def test_processes_of_torchrun_give_the_same_as_one(capsys, pictures: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    shutil.copytree(pictures, whole)
    assert run(capsys, whole, *MANY)[0] == 0
    both = [
        command(pictures, *MANY, TORCHELASTIC_RUN_ID="a", RANK=str(rank), WORLD_SIZE="2")
        for rank in (1, 0)
    ]
    said = [process.communicate(timeout=200) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert said[0][0] == "" and "synthesis, trained on 640 images" in said[1][0]
    assert len(Records(pictures).all()) == 1 and shown(pictures) == shown(whole)


@pytest.mark.slow
def test_workers_of_ray_give_the_same_as_one(capsys, pictures: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    shutil.copytree(pictures, whole)
    assert run(capsys, whole, *MANY)[0] == 0
    process = command(pictures, *MANY, "--workers", "2")
    out, err = process.communicate(timeout=280)
    assert process.returncode == 0, out + err
    assert shown(pictures) == shown(whole)
    process = command(pictures, *MANY, "seed=1", "--workers", "99")
    out, err = process.communicate(timeout=280)
    assert process.returncode == 2 and "99 workers need 99 CPU" in err and "Traceback" not in err


@pytest.mark.slow
def test_memory_does_not_grow_with_the_samples(pictures: Path) -> None:
    peaks = {}
    for n in (500, 5000):
        code = (
            "import resource, sys\nfrom vmcmc_dist.cli import main\nassert not main(sys.argv[1:])\n"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
        )
        words = ["evaluate", str(pictures), f"n={n}", "batch_size=100", "features=none", "steps=1",
                 "out=shards", f"seed={n}"]  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=280
        )
        assert done.returncode == 0, done.stderr
        peaks[n] = int(done.stdout.splitlines()[-1]) / 1024
    assert peaks[5000] < peaks[500] + 12, peaks  # MiB; the samples alone are 2 × 13
