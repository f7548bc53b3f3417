"""Checkpoints: whole or not there, whatever happens while they are written."""

from __future__ import annotations

import json
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from vmcmc_dist.engine.checkpoint import PARTS, Checkpoint, CheckpointFolder, load_checkpoint
from vmcmc_dist.errors import CheckpointError


def make(
    images: int, *, score: float | None = None, good: bool = True, size: int = 8
) -> Checkpoint:
    tensors = {part: {"w": torch.full((size,), float(images))} for part in PARTS}
    return Checkpoint(images, {"seed": 1}, {"score": score, "good": good}, tensors)


def names(folder: CheckpointFolder) -> list[int]:
    return [int(path.name) for path in folder.all()]


def test_there_and_back(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path / "checkpoints")
    saved = make(128, score=0.5)
    saved.tensors["vae"]["steps"] = torch.tensor(7)
    saved.tensors["vae"]["transposed"] = torch.arange(6.0).reshape(2, 3).T
    path = folder.save(saved)
    loaded = load_checkpoint(path)
    assert (loaded.images, loaded.config, loaded.state) == (128, {"seed": 1}, saved.state)
    assert torch.equal(loaded.tensors["vae"]["transposed"], saved.tensors["vae"]["transposed"])
    assert loaded.tensors["vae"]["steps"].dtype == torch.int64
    assert set(loaded.tensors) == set(PARTS)
    assert set(load_checkpoint(path, ("vae_ema",)).tensors) == {"vae_ema"}


def test_nothing_in_it_is_a_pickle(tmp_path: Path) -> None:
    path = CheckpointFolder(tmp_path).save(make(1))
    assert {file.suffix for file in path.iterdir()} == {".safetensors", ".json"}


def test_order_is_by_images_not_by_name(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, keep=5)
    for images in (999_999_999, 1_000_000_064, 64):
        folder.save(make(images, good=images < 10**9))
    latest = folder.latest()
    assert latest is not None and int(latest.name) == 1_000_000_064
    assert names(folder) == [64, 999_999_999, 1_000_000_064]
    assert folder.drop_after_last_good() == 999_999_999
    assert names(folder) == [64, 999_999_999]


def test_prune_keeps_the_last_the_best_and_the_last_good(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, keep=2)
    for images, score, good in (
        (1, 9.0, True), (2, 1.0, True), (3, 5.0, True), (4, None, False), (5, 7.0, False),
        (6, None, False),
    ):  # fmt: skip
        folder.save(make(images, score=score, good=good))
    assert names(folder) == [2, 3, 5, 6]
    best, good_one = folder.best(), folder.good()
    assert best is not None and best.name == "000000002"
    assert good_one is not None and good_one.name == "000000003"


def test_equal_scores_do_not_confuse(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, keep=1)
    for images in (1, 2, 3):
        folder.save(make(images, score=0.5))
    assert names(folder) == [1, 3]


def test_roll_back_removes_what_came_after_the_last_good(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, keep=5)
    for images, good in ((1, True), (2, True), (3, False), (4, False)):
        folder.save(make(images, good=good))
    assert folder.drop_after_last_good() == 2
    assert names(folder) == [1, 2]


def test_roll_back_with_nothing_good_starts_again(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, keep=5)
    folder.save(make(3, good=False))
    assert folder.drop_after_last_good() == 0 and names(folder) == []


def test_saving_the_same_images_again_changes_nothing(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    path = folder.save(make(7))
    before = (path / "energy.safetensors").stat().st_mtime_ns
    assert folder.save(make(7)) == path
    assert (path / "energy.safetensors").stat().st_mtime_ns == before


def test_leftovers_of_a_kill_are_not_listed_and_go_away(tmp_path: Path) -> None:
    (tmp_path / ".partial-000000005").mkdir()
    (tmp_path / ".partial-000000005" / "energy.safetensors").write_text("torn")
    (tmp_path / "notes").mkdir()
    folder = CheckpointFolder(tmp_path)
    assert folder.latest() is None
    folder.save(make(6))
    assert not (tmp_path / ".partial-000000005").exists() and (tmp_path / "notes").exists()


@pytest.mark.parametrize("file", ["energy.safetensors", "vae_adam.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["gone", "torn", "garbage"])
def test_damage_is_named_with_what_to_do(tmp_path: Path, file: str, damage: str) -> None:
    path = CheckpointFolder(tmp_path).save(make(9))
    target = path / file
    if damage == "gone":
        target.unlink()
    elif damage == "torn":
        target.write_bytes(target.read_bytes()[: target.stat().st_size // 2])
    else:
        target.write_bytes(b"\x00\xff" * 50)
    with pytest.raises(CheckpointError, match=r"000000009 is damaged .* Delete that folder"):
        load_checkpoint(path)


def test_another_format_is_refused(tmp_path: Path) -> None:
    path = CheckpointFolder(tmp_path).save(make(9))
    state = json.loads((path / "state.json").read_text()) | {"format": 99}
    (path / "state.json").write_text(json.dumps(state))
    with pytest.raises(CheckpointError, match="format 99"):
        load_checkpoint(path)


def test_no_room_is_seen_before_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.save(make(1))
    usage = type("usage", (), {"free": 10})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.raises(CheckpointError, match="could not be written.*0 MB free"):
        folder.save(make(2))
    assert names(folder) == [1] and not list(tmp_path.glob(".partial-*"))


def test_disk_full_while_writing_keeps_the_earlier_ones(tmp_path: Path) -> None:
    """A limit on the size of a file, as a full disk: write(2) fails in the middle."""
    folder = CheckpointFolder(tmp_path)
    folder.save(make(1))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
    try:
        with pytest.raises(CheckpointError, match="make room .* run the same command again"):
            folder.save(make(2, size=100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert names(folder) == [1] and not list(tmp_path.glob(".partial-*"))
    assert float(load_checkpoint(folder.all()[0]).tensors["vae"]["w"][0]) == 1
    folder.save(make(2, size=100_000))
    assert names(folder) == [1, 2]


def test_state_that_is_not_finite_is_not_written(tmp_path: Path) -> None:
    bad = make(1, score=float("nan"))
    with pytest.raises((CheckpointError, ValueError)):
        CheckpointFolder(tmp_path).save(bad)
    assert CheckpointFolder(tmp_path).all() == []


SAVER = """
import sys
from pathlib import Path
import torch
from vmcmc_dist.engine.checkpoint import PARTS, Checkpoint, CheckpointFolder
folder = CheckpointFolder(Path(sys.argv[1]), keep=2)
images = max((int(p.name) for p in folder.all()), default=0)
print("ready", flush=True)
while True:
    images += 1
    tensors = {part: {"w": torch.full((30_000,), float(images))} for part in PARTS}
    folder.save(Checkpoint(images, {}, {"score": 1.0 / images, "good": True}, tensors))
"""


def test_killed_at_any_moment_what_is_listed_loads(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path / "checkpoints", keep=2)
    moments = random.Random(0)
    reached = 0
    for _ in range(4):
        saver = subprocess.Popen(
            [sys.executable, "-c", SAVER, str(folder.path)], stdout=subprocess.PIPE, text=True
        )
        assert saver.stdout is not None and saver.stdout.readline() == "ready\n"
        until = time.monotonic() + 60
        while not [n for n in names(folder) if n > reached] and time.monotonic() < until:
            time.sleep(0.005)
        time.sleep(moments.uniform(0, 0.1))
        saver.kill()
        saver.communicate()
        found = folder.all()
        assert 1 <= len(found) <= 4
        for path in found:
            loaded = load_checkpoint(path)
            values = {float(v) for part in loaded.tensors.values() for v in part["w"].unique()}
            assert values == {float(loaded.images)} == {float(path.name)}
        assert int(found[-1].name) > reached
        reached = int(found[-1].name)
