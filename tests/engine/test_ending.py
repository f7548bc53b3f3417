"""When a worker's run ends; by itself, so what it asks is what all workers together ask."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from vmcmc_dist.config import load_config
from vmcmc_dist.engine.config import TrainConfig
from vmcmc_dist.engine.context import WorkerContext
from vmcmc_dist.engine.ending import Ending
from vmcmc_dist.engine.run_folder import RunFolder
from vmcmc_dist.errors import ConfigError


def ending(path: Path, rank: int = 0, noticed: bool = False, **train) -> Ending:
    context = WorkerContext(rank, 1, torch.device("cpu"), notice=lambda: noticed)
    return Ending(TrainConfig(images=640, batch_size=64, **train), RunFolder(path), context)


def test_it_ends_at_its_images(tmp_path: Path) -> None:
    end = ending(tmp_path)
    assert [end.reached(images) for images in (0, 576, 640, 704)] == [False, False, True, True]
    assert not end.asked(1e9) and not any(end.paused(images) for images in (576, 640, 704))


@pytest.mark.parametrize(("pause", "there"), [(0, None), (320, 320), (330, 384), (640, None)])
def test_it_pauses_after_the_batch_that_comes_to_those_images(tmp_path, pause, there) -> None:
    end = ending(tmp_path, pause_images=pause)
    first = next(images for images in range(0, 641, 64) if end.reached(images))
    assert first == (there or 640) and end.paused(first) == (there is not None)
    assert not end.paused(640)  # past its end it is whole, whatever was said of a pause


def test_a_pause_of_less_than_no_images_is_refused() -> None:
    with pytest.raises(ConfigError, match="train.pause_images"):
        load_config(None, ["train.pause_images=-1"])


def test_someone_asks_and_the_time_is_up(tmp_path: Path) -> None:
    end = ending(tmp_path, max_minutes=1.0, pause_images=128)
    assert not end.asked(59) and end.asked(60)
    assert end.agree(0, 59.0, True, False) == [True, False] and not end.reached(64)
    end.agree(0, 60.0)
    assert end.time_is_up and end.reached(64) and not end.paused(128)
    end = ending(tmp_path)
    end.folder.stop.touch()
    assert end.asked(0) and end.agree(0, 0.0) == []
    assert end.interrupted and end.reached(64)
    other = ending(tmp_path, rank=1)  # the first worker tells it
    assert not other.asked(0) and other.agree(0, 0.0) == [] and not other.interrupted


@pytest.mark.parametrize("pause", [0, 320])
def test_on_a_notice_it_leaves_unless_it_ends_anyway(tmp_path: Path, pause: int) -> None:
    goal = pause or 640
    end = ending(tmp_path, noticed=True, pause_images=pause)
    end.agree(goal - 128, 0.0)
    assert end.leaving and end.reached(goal - 64)
    end.agree(goal - 64, 0.0)
    assert not end.leaving and end.reached(goal)
    end.folder.stop.touch()
    end.agree(0, 0.0)
    assert end.interrupted and not end.leaving
