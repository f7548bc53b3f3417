"""Data sets of the Hugging Face library, made here: saved, parquet, arrow."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vmcmc_dist.data import DataConfig, ShardStream, prepare
from vmcmc_dist.data.sources.base import NoSplitError
from vmcmc_dist.errors import ConfigError, DataError

datasets = pytest.importorskip("datasets")


def table(count: int = 6, size: int = 10, **columns):
    """A data set of images, of a ClassLabel and of what else is given."""
    pictures = [Image.new("RGB", (size, size), (10 * i, 0, 0)) for i in range(count)]
    features = {
        "picture": datasets.Image(),
        "label": datasets.ClassLabel(names=["cat", "dog"]),
    }
    found = datasets.Dataset.from_dict(
        {"picture": pictures, "label": [i % 2 for i in range(count)]},
        features=datasets.Features(features),
    )
    for name, values in columns.items():
        found = found.add_column(name, values)
    return found


def reds(source) -> list[int]:
    return [int(np.asarray(source.load(i).value)[0, 0, 0]) for i in range(len(source))]


@pytest.mark.parametrize("form", ["saved", "parquet", "dict"])
def test_what_went_in_comes_out(tmp_path, opened, form):
    root = tmp_path / "set"
    if form == "saved":
        table().save_to_disk(str(root))
    elif form == "dict":
        datasets.DatasetDict(train=table(), test=table(2)).save_to_disk(str(root))
    else:
        root.mkdir()
        table().to_parquet(str(root / "train-00000-of-00001.parquet"))
        table(2).to_parquet(str(root / "test-00000-of-00001.parquet"))
    source = pickle.loads(pickle.dumps(opened("huggingface", root)))  # as it goes to others
    assert source.labels.names == ("cat", "dog") and (source.image_size, source.channels) == (10, 3)
    assert reds(source) == [0, 10, 20, 30, 40, 50]
    assert [source.load(i).label for i in range(6)] == [0, 1, 0, 1, 0, 1]
    if form != "saved":
        assert len(opened("huggingface", root, split="test")) == 2
        assert len(opened("huggingface", root, split="all")) == 8
    with pytest.raises(NoSplitError, match="split|one part"):
        opened("huggingface", root, split="valid")


def test_it_is_prepared(tmp_path):
    table(9).save_to_disk(str(tmp_path / "set"))
    cfg = DataConfig(
        source="huggingface", root=str(tmp_path / "set"), image_size=8, format="png",
        shard_samples=4, prepare_workers=1,
    )  # fmt: skip
    manifest = prepare(cfg)
    with ShardStream(manifest, DataConfig(shuffle=False), seed=0, local_batch=9) as stream:
        batch = next(stream)
    assert batch.x[:, 0, 0, 0].tolist() == [10 * i for i in range(9)]
    assert batch.y.tolist() == [i % 2 for i in range(9)]


def test_columns(tmp_path, opened):
    table(4, kind=["b", "a", "b", "c"], number=[2, 0, 1, 1]).save_to_disk(str(tmp_path / "a"))
    source = opened("huggingface", tmp_path / "a", label_column="kind")
    assert source.labels.names == ("a", "b", "c")
    assert [source.load(i).label for i in range(4)] == [1, 0, 1, 2]
    source = opened("huggingface", tmp_path / "a", label_column="number")
    assert source.labels.names == ("0", "1", "2") and source.load(0).label == 2
    for key in ("image_column", "label_column"):
        with pytest.raises(ConfigError, match=f"data.{key}=nothing.*picture, label, kind, number"):
            opened("huggingface", tmp_path / "a", **{key: "nothing"})
    table(2).rename_column("picture", "x").add_column("n", [1, 2]).select_columns(
        ["n"]
    ).save_to_disk(str(tmp_path / "b"))
    with pytest.raises(ConfigError, match="columns of images: none.*data.image_column"):
        opened("huggingface", tmp_path / "b")


def test_paths_in_a_data_set_are_not_followed(tmp_path, opened):
    """Rows that name a file of this machine, with no bytes of their own, are bad."""
    secret = tmp_path / "secret.png"
    Image.new("RGB", (10, 10)).save(secret)
    rows = [{"bytes": secret.read_bytes(), "path": None}, {"bytes": None, "path": str(secret)}]
    found = datasets.Dataset.from_dict({"image": rows})
    root = tmp_path / "set"
    root.mkdir()
    found.to_parquet(str(root / "a.parquet"))
    source = opened("huggingface", root, image_column="image")
    assert source.load(0).value.size == (10, 10)
    with pytest.raises(DataError, match="not followed"):
        source.load(1)


@pytest.mark.parametrize("content", [None, b"not parquet"])
def test_what_is_no_data_set(tmp_path, content, opened):
    root: Path = tmp_path / "set"
    root.mkdir()
    if content:
        (root / "a.parquet").write_bytes(content)
    with pytest.raises(DataError, match="set"):
        opened("huggingface", root)
