"""What counts as training data and as held out, for every shape of data set."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from vmcmc_dist.data import DataConfig, prepare
from vmcmc_dist.data.sources.base import NoSplitError
from vmcmc_dist.evaluation.real import (
    data_checksum,
    held_out,
    held_out_name,
    real_batches,
    real_images,
)


@pytest.fixture
def data(blob_data, small_model) -> DataConfig:
    return small_model().config.data


def rows(images: torch.Tensor) -> set[bytes]:
    return {image.numpy().tobytes() for image in images}


def test_splits_are_the_files_own(data, blob_data):
    for split, name in (("train", "train"), ("test", "test"), ("held out", "test")):
        real = real_images(data, split)
        saved = torch.from_numpy(np.load(blob_data / f"{name}.npy")).permute(0, 3, 1, 2)
        assert torch.equal(real.images, saved) and real.split == name
        assert np.array_equal(real.labels, np.load(blob_data / f"{name}_labels.npy"))
    with pytest.raises(NoSplitError, match=r"no valid\.npy"):
        real_images(data, "valid")


def test_a_limit_takes_a_part_by_the_seed(data):
    whole = real_images(data, "train")
    some, same, other = (real_images(data, "train", limit=30, seed=s) for s in (1, 1, 2))
    assert torch.equal(some.images, same.images) and some.checksum == same.checksum
    assert torch.equal(some.images, whole.images[some.rows])
    assert not torch.equal(some.rows, other.rows)
    assert len({real.checksum for real in (whole, some, other)}) == 3
    assert len(real_images(data, "train", limit=999)) == 200
    batches = [b.x for b in real_batches(data, "train", 7, limit=30, seed=1)]
    assert torch.equal(torch.cat(batches), some.images) and len(batches) == 5


def test_without_a_test_split_the_last_tenth_is_held_out(data, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (57, 28, 28), dtype=np.uint8)
    np.save(tmp_path / "images.npy", images)
    alone = replace(data, root=str(tmp_path))
    real = real_images(alone, "held out")
    assert real.rows.tolist() == list(range(51, 57))
    assert "last tenth of the training data" in held_out_name(alone)
    assert real.checksum != data_checksum(alone)


def test_shards_that_are_used_as_they_are_hold_one_split_alone(data, tmp_path):
    made = prepare(replace(data, shards=str(tmp_path / "shards"), split="test"))
    for given in (
        replace(data, source="shards", root=made.base),
        replace(data, root=None, shards=made.base),
    ):
        assert len(real_images(given, "train")) == 120
        real = real_images(given, "held out")
        assert len(real) == 12 and "last tenth" in real.split
        assert rows(real.images) <= rows(real_images(given, "train").images)


def test_held_out_says_when_the_model_was_trained_on_it(data):
    assert held_out_name(data) == "test"
    assert "trained on it" in held_out_name(replace(data, split="test"))


def test_prepared_shards_of_training_do_not_hide_the_test_split(data, tmp_path):
    given = replace(data, shards=str(tmp_path / "train-shards"))
    prepare(given)
    assert real_images(given, "held out").split == "test"


def test_held_out_in_the_models_range_with_conditions(small_model):
    from vmcmc_dist.models import Condition

    model = small_model("condition.kind=class", condition=Condition("class", 4))
    x, c = held_out(model, 50, seed=3)
    assert x.shape == (50, 1, 28, 28) and x.min() >= -1 and x.max() <= 1
    real = real_images(model.config.data, "held out")
    place = {image.numpy().tobytes(): i for i, image in enumerate(real.images)}
    found = [place[i.numpy().tobytes()] for i in ((x + 1) * 127.5).round().byte()]
    assert c is not None and torch.equal(c, real.labels[found])
    assert found != sorted(found)
    assert not torch.equal(held_out(model, 50, seed=4)[0], x)
    assert held_out(small_model(), 5)[1] is None
    assert len(held_out(model, 500)[0]) == 120


def test_points_of_the_plane_are_drawn_afresh():
    plane = DataConfig(source="toy2d", density="rings")
    train, test = (real_images(plane, split, limit=64) for split in ("train", "held out"))
    assert train.images.shape == (64, 2) and not torch.equal(train.images, test.images)
    assert torch.equal(real_images(plane, "train", limit=64).images, train.images)
    assert train.checksum != test.checksum
