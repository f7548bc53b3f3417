"""Checkpoints written behind the training: copies of the moment, one at a time, failures told."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from vmcmc_dist.engine.checkpoint import PARTS, Checkpoint, CheckpointFolder, load_checkpoint
from vmcmc_dist.engine.saver import Saver
from vmcmc_dist.errors import CheckpointError, DataError

CPU = torch.device("cpu")


class Copies:
    """A place of copies that refuses the first ``bad`` checkpoints."""

    def __init__(self, bad: int):
        self.bad, self.got, self.gone = bad, [], []

    def commit(self, path: Path) -> None:
        if self.bad:
            self.bad -= 1
            raise DataError("the store is away")
        self.got.append(int(path.name))

    def put_state(self, path: Path) -> None:
        pass

    def remove(self, images: int) -> None:
        self.gone.append(images)


def save(saver: Saver, images: int, weight: torch.Tensor) -> None:
    saver.settle()
    keep = saver.keeper()
    tensors = {part: {"w": keep(weight)} for part in PARTS}
    saver.start(Checkpoint(images, {}, {"score": None, "good": True}, tensors))


def test_what_is_written_is_what_it_was_when_it_was_copied(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    saver, weight = Saver(folder, CPU), torch.zeros(200_000)
    save(saver, 1, weight)
    weight += 1  # the next step
    saver.settle()
    assert saver.problem is None and saver.finished() == [1] and saver.finished() == []
    assert float(load_checkpoint(folder.path / "000000001").tensors["vae"]["w"].abs().max()) == 0


def test_a_disk_that_cannot_be_written_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    saver = Saver(CheckpointFolder(tmp_path / "file" / "checkpoints"), CPU)
    save(saver, 1, torch.zeros(4))
    saver.settle()
    assert isinstance(saver.problem, CheckpointError) and "make room" in str(saver.problem)
    assert saver.finished() == []


def test_copies_that_fail_are_told_and_the_run_goes_on(tmp_path: Path) -> None:
    copies = Copies(bad=2)
    folder = CheckpointFolder(tmp_path, keep=1, copies=copies)
    saver = Saver(folder, CPU, failures=3)
    for images in (1, 2, 3, 4):
        save(saver, images, torch.zeros(4))
    saver.settle()
    news = saver.news()
    assert saver.problem is None and saver.failed == 2
    assert [(n["images"], n["in_a_row"]) for n in news] == [(1, 1), (2, 2)]
    assert copies.got == [3, 4] and saver.finished() == [3, 4]
    assert [int(p.name) for p in folder.all()] == [4] and copies.gone == [1, 2, 3]


def test_too_many_copies_that_fail_end_the_run(tmp_path: Path) -> None:
    saver = Saver(CheckpointFolder(tmp_path, copies=Copies(bad=9)), CPU, failures=2)
    for images in (1, 2):
        save(saver, images, torch.zeros(4))
    saver.settle()
    with pytest.raises(CheckpointError, match="2 checkpoints in a row .* the store is away"):
        raise saver.problem or AssertionError
