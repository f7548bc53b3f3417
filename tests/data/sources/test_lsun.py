"""LSUN as folders exported from its lmdb files."""

from __future__ import annotations

import pytest

from vmcmc_dist.data.sources.base import NoSplitError
from vmcmc_dist.errors import DataError


def test_categories_are_classes_and_hash_folders_are_not(images, opened, labels_by_name):
    root = images(
        "bedroom_train/a/b/ab1.webp", "bedroom_train/c/d/cd2.webp", "dining_room_train/e1.jpg",
        "bedroom_val/f/f3.webp",
    )  # fmt: skip
    train = opened("lsun", root)
    assert train.labels.names == ("bedroom", "dining_room") and train.image_size == 256
    assert labels_by_name(train) == [0, 0, 1]
    valid = opened("lsun", root, split="valid")
    assert valid.paths == ["bedroom_val/f/f3.webp"] and valid.labels.kind == "none"
    assert len(opened("lsun", root, split="all")) == 4
    with pytest.raises(NoSplitError, match="CATEGORY_test"):
        opened("lsun", root, split="test")


def test_one_category_alone(images, opened):
    root = images("0/1/x.webp", "2/3/y.webp", root="church_outdoor_train")
    source = opened("lsun", root)
    assert len(source) == 2 and source.labels.kind == "none" and source.load(1).label is None
    with pytest.raises(NoSplitError, match="valid"):
        opened("lsun", root, split="valid")


def test_an_lmdb_is_said_to_need_an_export(tmp_path, opened):
    (tmp_path / "raw" / "bedroom_train_lmdb").mkdir(parents=True)
    (tmp_path / "raw" / "bedroom_train_lmdb" / "data.mdb").write_bytes(b"")
    with pytest.raises(DataError, match="export"):
        opened("lsun", tmp_path / "raw")
