"""Any WebDataset as raw data: whatever its members are called, labels are kept."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vmcmc_dist.data import DataConfig, LabelInfo, ShardStream, prepare
from vmcmc_dist.data.sources.base import NoSplitError
from vmcmc_dist.errors import ConfigError, DataError


def write_tar(path: Path, samples: list[dict[str, Any]]) -> None:
    """Samples {extension: bytes, str or object for JSON} with keys 0000, 0001, …"""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for i, sample in enumerate(samples):
            for extension, content in sample.items():
                if isinstance(content, str):
                    content = content.encode()
                elif not isinstance(content, bytes):
                    content = json.dumps(content).encode()
                info = tarfile.TarInfo(f"./some.dir/{i:04d}.{extension}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))


def labels_of(source) -> list[Any]:
    return [source.load(i).label for i in range(len(source))]


@pytest.mark.parametrize(
    "label,kind,names,values",
    [
        ({"cls": "{i}"}, "class", ("0", "1", "2", "3"), [0, 1, 2, 3]),
        ({"cls": "dog{i}"}, "class", ("dog0", "dog1", "dog2", "dog3"), [0, 1, 2, 3]),
        ({"json": {"label": "{i}"}}, "class", ("0", "1", "2", "3"), [0, 1, 2, 3]),
        ({"json": {"caption": "x"}}, "none", (), [None] * 4),
        ({"json": {"attributes": [1, -1]}}, "attributes", ("0", "1"), [[1, 0]] * 4),
        ({"txt": "a dog"}, "none", (), [None] * 4),
    ],
)
@pytest.mark.parametrize("member", ["png", "image.png", "0.PNG"])
def test_labels_and_names(tmp_path, grey_png, opened, label, kind, names, values, member):
    def filled(value: Any, i: int) -> Any:
        text = json.dumps(value).replace("{i}", str(i))
        return json.loads(text)

    samples = [
        {member: grey_png(i, 8), **{k: filled(v, i) for k, v in label.items()}} for i in range(4)
    ]
    write_tar(tmp_path / "raw" / "a.tar", samples[:3])
    write_tar(tmp_path / "raw" / "b.tar", samples[3:])
    source = opened("webdataset", tmp_path / "raw")
    source = pickle.loads(pickle.dumps(source))  # as it goes to other processes
    assert len(source) == 4 and source.image_size == 8 and source.channels == 1
    assert source.labels == LabelInfo(kind, names) and labels_of(source) == values
    assert [np.asarray(source.load(i).value)[0, 1] for i in range(4)] == [0, 1, 2, 3]


def test_columns_are_chosen_by_name(tmp_path, grey_png, opened):
    sample = {"wide.png": grey_png(1, 8), "small.png": grey_png(2), "json": {"kind": 3, "label": 1}}
    write_tar(tmp_path / "a.tar", [sample])
    with pytest.raises(ConfigError, match="several images.*data.image_column"):
        opened("webdataset", tmp_path)
    with pytest.raises(ConfigError, match="wide.png, small.png"):
        opened("webdataset", tmp_path, image_column="tall")
    source = opened("webdataset", tmp_path, image_column="small", label_column="kind")
    assert source.load(0).value.size == (4, 4) and labels_of(source) == [3]
    with pytest.raises(DataError, match="no entry 'sort'"):
        opened("webdataset", tmp_path, image_column="small", label_column="sort")


def test_splits_are_folders_or_begin_names(tmp_path, grey_png, opened):
    for name, count in (("train/0.tar", 2), ("val-000.tar", 1)):
        write_tar(tmp_path / "raw" / name, [{"png": grey_png(0)}] * count)
    root = tmp_path / "raw"
    sizes = [len(opened("webdataset", root, split=s)) for s in ("train", "valid", "all")]
    assert sizes == [2, 1, 3]
    with pytest.raises(NoSplitError, match="no tars of split 'test'"):
        opened("webdataset", root, split="test")


def test_a_set_of_ours_keeps_its_pixels_names_and_labels(arrays, tmp_path):
    """Prepared, cut anew, and cut anew from S3's point of view: nothing but the cuts changes."""
    cfg = DataConfig(source="arrays", root=str(arrays), shard_samples=10, prepare_workers=1)
    first = prepare(cfg)
    again = prepare(
        DataConfig(source="webdataset", root=first.base, shard_samples=7, prepare_workers=1)
    )
    assert [s.count for s in again.shards] == [7] * 6 + [3]
    assert (again.labels, again.licence) == (first.labels, first.licence)
    pixels = []
    for manifest in (first, again):
        with ShardStream(manifest, DataConfig(shuffle=False), seed=0, local_batch=45) as stream:
            batch = next(stream)
        pixels.append((batch.x.numpy(), batch.y.numpy()))
    assert (pixels[0][0] == pixels[1][0]).all() and (pixels[0][1] == pixels[1][1]).all()


def test_pairs_stay_pairs(pair_shards, tmp_path):
    base = pair_shards([3, 2]).base
    manifest = prepare(DataConfig(source="webdataset", root=base, shards=str(tmp_path / "out")))
    assert (manifest.source_shape, manifest.shape) == ((1, 4, 4), (3, 4, 4))
    with ShardStream(manifest, DataConfig(shuffle=False), seed=0, local_batch=5) as stream:
        batch = next(stream)
    assert batch.source[:, 0, 0, 1].tolist() == batch.x[:, 0, 0, 1].tolist() == [0, 1, 2, 3, 4]
    assert batch.y.tolist() == [0, 1, 2, 0, 1]


def test_tars_on_s3(arrays, s3, tmp_path):
    cfg = DataConfig(source="arrays", root=str(arrays), shards="s3://faces/set", shard_samples=10)
    first = prepare(cfg)
    again = prepare(DataConfig(source="webdataset", root=first.base, shards=str(tmp_path / "out")))
    assert again.num_samples == 45 and again.labels == first.labels


class Bomb:
    def __reduce__(self):
        return (Path("/tmp/unpickled").touch, ())


def test_nothing_is_unpickled_extracted_or_followed(tmp_path, grey_png, opened):
    write_tar(tmp_path / "raw" / "a.tar", [{"png": grey_png(0), "pkl": pickle.dumps(Bomb())}])
    assert len(opened("webdataset", tmp_path / "raw")) == 1
    array = io.BytesIO()
    np.save(array, np.array([Bomb()]), allow_pickle=True)
    write_tar(tmp_path / "npy" / "a.tar", [{"npy": array.getvalue()}])
    with pytest.raises(DataError, match="not a .npy array"):
        prepare(DataConfig(source="webdataset", root=str(tmp_path / "npy")))
    for name, kind in (("../../x.png", tarfile.REGTYPE), ("x.png", tarfile.SYMTYPE)):
        with tarfile.open(tmp_path / "bad.tar", "w") as archive:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
        with pytest.raises(DataError, match="refused"):
            opened("webdataset", tmp_path / "bad.tar")
    assert not Path("/tmp/unpickled").exists()


def test_torn_compressed_empty_and_missing(tmp_path, grey_png, opened):
    write_tar(tmp_path / "a.tar", [{"png": grey_png(0)}])
    whole = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(whole[:700])
    with pytest.raises(DataError, match="a.tar.*no end mark"):
        opened("webdataset", tmp_path)
    (tmp_path / "a.tar").write_bytes(b"\x1f\x8b" + whole)
    with pytest.raises(DataError, match="compressed"):
        opened("webdataset", tmp_path)
    write_tar(tmp_path / "a.tar", [{"txt": "x"}])
    with pytest.raises(DataError, match="hold no samples"):
        opened("webdataset", tmp_path)
    (tmp_path / "a.tar").unlink()
    with pytest.raises(DataError, match="any .tar"):
        opened("webdataset", tmp_path)
    write_tar(tmp_path / "a.tar", [{"png": grey_png(0), "cls": "1"}, {"png": grey_png(1)}])
    with pytest.raises(DataError, match="0001: no label, where others have one"):
        opened("webdataset", tmp_path)
