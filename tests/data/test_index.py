"""The block table: it covers all samples, in order, and says what the bytes are."""

from __future__ import annotations

import dataclasses
import json
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from webdataset import TarWriter

from vmcmc_dist.data import index, open_manifest, store, tar
from vmcmc_dist.data.manifest import write_manifest
from vmcmc_dist.data.samples import split_block
from vmcmc_dist.data.scan import write_index
from vmcmc_dist.errors import DataError


@pytest.fixture
def uneven(tmp_path) -> Path:
    """A tar of 40 samples of 1 to 9 KiB."""
    path = tmp_path / "set" / "0.tar"
    path.parent.mkdir()
    with open(path, "wb") as file, TarWriter(file, mtime=0, encoder=False) as writer:
        for i in range(40):
            size = 500 + 8000 * (i % 7 == 3) + 37 * i
            writer.write({"__key__": f"{i:03d}", "png": bytes([i]) * size, "cls": b"1"})
    return path


@pytest.mark.parametrize("block_bytes", [1, 4096, 20_000, 1 << 30])
def test_blocks_cover_every_sample_once(uneven, block_bytes):
    info, table = index.index_tar(uneven, "0.tar", block_bytes=block_bytes)
    data = uneven.read_bytes()
    keys = []
    for shard, count, start, length, crc32 in table.tolist():
        part = data[start : start + length]
        assert shard == 0 and zlib.crc32(part) == crc32
        found = split_block(part, "x", count, open_labels(), pairs=False)
        keys += [sample.key for sample in found]
        assert count == 1 or length <= block_bytes + 512
    assert keys == [f"{i:03d}" for i in range(40)]
    assert (info.count, info.bytes) == (40, len(data))
    assert len(table) == {1: 40, 1 << 30: 1}.get(block_bytes, len(table))


def open_labels():
    from vmcmc_dist.data import LabelInfo

    return LabelInfo("class", ("a", "b"))


def test_written_and_read_back(make_shards):
    manifest = make_shards([5, 9, 3], per_block=2)
    assert open_manifest(manifest.base).blocks.tolist() != manifest.blocks.tolist()
    write_manifest(manifest, manifest.base)
    again = open_manifest(manifest.base)
    assert again == manifest and again.blocks.tolist() == manifest.blocks.tolist()
    assert again.blocks["count"].tolist() == [2, 2, 1, 2, 2, 2, 2, 1, 2, 1]


@pytest.mark.parametrize("harm", ["flip", "cut", "other", "gone", "pickle"])
def test_a_table_that_is_not_the_manifests_is_refused(make_shards, tmp_path, harm):
    manifest = make_shards([5, 9], per_block=2)
    write_manifest(manifest, manifest.base)
    path = Path(manifest.base) / index.NAME
    if harm == "flip":
        data = bytearray(path.read_bytes())
        data[-3] ^= 1
        path.write_bytes(data)
    elif harm == "cut":
        path.write_bytes(path.read_bytes()[:-4])
    elif harm == "other":
        path.write_bytes(index.to_bytes(manifest.blocks[:3]))
    elif harm == "pickle":
        np.save(path, np.array([{}]), allow_pickle=True)
    else:
        path.unlink()
    with pytest.raises(DataError, match=r"index\.npy.*vmcmc data index"):
        open_manifest(manifest.base)


@pytest.mark.parametrize("made", ["pickle", "dtype", "text"])
def test_only_a_block_table_is_read(tmp_path, made):
    path = tmp_path / "index.npy"
    if made == "pickle":
        np.save(path, np.array([{}]), allow_pickle=True)
    elif made == "dtype":
        np.save(path, np.zeros(3))
    else:
        path.write_text("hello")
    with pytest.raises(DataError, match="not a block table"):
        index.from_bytes(path.read_bytes(), "index.npy")


def test_counts_that_differ_from_the_manifests_are_refused(make_shards):
    manifest = make_shards([5, 9], per_block=2)
    blocks = manifest.blocks.copy()
    blocks["count"][0] += 1
    write_manifest(dataclasses.replace(manifest, blocks=blocks), manifest.base)
    with pytest.raises(DataError, match="counts other samples"):
        open_manifest(manifest.base)


def test_a_manifest_of_an_older_version_is_given_its_table(make_shards):
    manifest = make_shards([5, 9])
    write_manifest(dataclasses.replace(manifest, licence="mine", key="k"), manifest.base)
    path = Path(manifest.base) / "manifest.json"
    record = json.loads(path.read_text())
    record["schema_version"] = 1
    del record["index"]
    path.write_text(json.dumps(record))
    (path.parent / index.NAME).unlink()
    with pytest.raises(DataError, match="run `vmcmc data index"):
        open_manifest(manifest.base)
    write_index(manifest.base)
    again = open_manifest(manifest.base)
    assert again.licence == "mine" and again.blocks.tolist() == manifest.blocks.tolist()


def test_shards_that_are_not_the_manifests_get_no_table(make_shards):
    manifest = make_shards([5, 9])
    write_manifest(manifest, manifest.base)
    shard = Path(manifest.path(1))
    data = bytearray(shard.read_bytes())
    data[600] ^= 1
    shard.write_bytes(data)
    with pytest.raises(DataError, match=r"001\.tar: is not what manifest.json says"):
        write_index(manifest.base)


def test_foreign_tars_are_indexed_where_they_lie(uneven):
    grown = uneven.with_name("1.tar")
    grown.write_bytes(uneven.read_bytes())
    with pytest.raises(DataError, match="does not decode"):
        write_index(str(uneven.parent))  # they hold no images


@pytest.mark.parametrize("harm", ["gz", "short", "cut", "text"])
def test_what_is_no_tar_is_named(uneven, harm):
    if harm == "gz":
        with tarfile.open(uneven, "w:gz"):
            pass
    elif harm == "short":
        uneven.write_bytes(b"")
    elif harm == "cut":
        data = uneven.read_bytes()
        uneven.write_bytes(data[: list(tar.members(data, "x"))[-1].stop])
    else:
        uneven.write_bytes(b"hello " * 1000)
    with pytest.raises(DataError, match=r"0\.tar: (compressed|torn or not a tar)"):
        index.index_tar(uneven, "0.tar")


def test_plain_webdataset_reads_what_we_prepare(arrays):
    """Our shards are ordinary ones: the library itself gives the same samples."""
    import webdataset

    from vmcmc_dist.data import DataConfig, prepare

    cfg = DataConfig(source="arrays", root=str(arrays), shard_samples=20, prepare_workers=1)
    manifest = prepare(cfg)
    theirs = [
        (sample["__key__"], sample["png"], sample["cls"])
        for shard in range(len(manifest.shards))
        for sample in webdataset.WebDataset(
            manifest.path(shard), shardshuffle=False, empty_check=False
        )
    ]
    ours = []
    for entry in manifest.blocks:
        data = Path(manifest.path(int(entry["shard"]))).read_bytes()
        part = data[int(entry["start"]) : int(entry["start"] + entry["bytes"])]
        for s in tar.samples(part, "x"):
            (a, b), (c, d) = s.members["png"], s.members["cls"]
            ours.append((s.key, part[a:b], part[c:d]))
    assert ours == theirs and len(ours) == 45
    assert store.exists(store.join(manifest.base, index.NAME))
