"""Verification names every problem; mirrors are checked as they are copied; indexes written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from vmcmc_dist.data import (
    DataConfig,
    Manifest,
    mirror,
    open_manifest,
    prepare,
    store,
    verify,
    write_index,
)
from vmcmc_dist.data.manifest import write_manifest
from vmcmc_dist.errors import DataError


@pytest.fixture
def manifest(arrays, tmp_path) -> Manifest:
    """45 images in 5 shards."""
    cfg = DataConfig(source="arrays", root=str(arrays), shard_samples=10, prepare_workers=1)
    cfg.shards = str(tmp_path / "set")
    return prepare(cfg)


def files(base: str | Path) -> dict[str, bytes]:
    return {
        name: store.read_bytes(store.join(str(base), name)) for name in store.list_files(str(base))
    }


def shard(manifest: Manifest, number: int) -> Path:
    return Path(manifest.path(number))


def change(path: Path, at: int, value: int = 255) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= value
    path.write_bytes(data)


@pytest.mark.parametrize("decode", [False, True])
def test_a_whole_set_has_no_problems(manifest, decode):
    calls = []
    found = verify(manifest.base, lambda *call: calls.append(call), decode=decode)
    assert found.problems == () and found.manifest == manifest
    assert found.bytes == sum(s.bytes for s in manifest.shards)
    assert calls[-1] == ("verify", 45, 45)


def test_every_problem_is_named(manifest):
    blocks = manifest.blocks
    change(shard(manifest, 0), 600)  # inside the first block
    change(shard(manifest, 1), -1)  # behind the last block
    shard(manifest, 2).write_bytes(shard(manifest, 2).read_bytes()[:-512])
    shard(manifest, 3).unlink()
    (Path(manifest.base) / "stray.tar").write_bytes(b"")
    problems = verify(manifest.base, threads=2).problems
    text = "\n".join(problems)
    stop = int(blocks[0]["bytes"])
    assert f"shard-000000.tar, bytes 0 to {stop}: checksum mismatch" in text
    assert "shard-000000.tar: its sha256 is not the manifest's" in text
    assert "shard-000001.tar: its sha256 is not the manifest's" in text
    assert "shard-000002.tar: " in text and "bytes, the manifest says" in text
    assert "shard-000003.tar: not found" in text and "stray.tar: not in the manifest" in text
    assert "shard-000004" not in text and len(problems) == 6


def test_a_shard_cut_in_the_middle_of_a_block(manifest):
    path = shard(manifest, 0)
    path.write_bytes(path.read_bytes()[:5000])
    text = "\n".join(verify(manifest.base).problems)
    assert "shard-000000.tar: 5000 bytes" in text and "ends before 1 of its 1 blocks" in text


def test_images_that_do_not_decode_are_found_by_decoding(manifest, tmp_path):
    """A bad image that was there before the checksums were made."""
    base = Path(manifest.base)
    for name in ("manifest.json", "index.npy"):
        (base / name).unlink()
    data = bytearray(shard(manifest, 1).read_bytes())
    at = data.index(b"IDAT") + 6
    data[at : at + 8] = b"\0" * 8
    shard(manifest, 1).write_bytes(data)
    write_index(str(base))
    assert verify(str(base)).problems == ()
    (problem,) = verify(str(base), decode=True).problems
    assert "shard-000001.tar: sample 000000010.png" in problem


@pytest.mark.parametrize("name", ["manifest.json", "index.npy"])
def test_a_manifest_that_is_wrong_is_a_problem(manifest, name):
    change(Path(manifest.base) / name, -30, 1)
    (problem,) = verify(manifest.base).problems
    assert name in problem or "manifest" in problem


def test_a_set_on_s3(arrays, s3):
    cfg = DataConfig(source="arrays", root=str(arrays), shards="s3://faces/set", shard_samples=10)
    prepare(cfg)
    assert verify(cfg.shards, decode=True).problems == ()
    s3.delete_object(Bucket="faces", Key="set/shard-000002.tar")
    (problem,) = verify(cfg.shards).problems
    assert "s3://faces/set/shard-000002.tar" in problem


# -- mirror ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["disk", "to s3 and back"])
def test_a_mirror_is_the_same(manifest, tmp_path, s3, way):
    if way == "disk":
        made = mirror(manifest.base, str(tmp_path / "copy"))
    else:
        assert mirror(manifest.base, "s3://faces/copy").checksum == manifest.checksum
        mirror("s3://faces/copy", "s3://faces/again")
        made = mirror("s3://faces/again", str(tmp_path / "copy"))
    assert files(made.base) == files(manifest.base)


def test_a_mirror_goes_on_and_trusts_no_shard_by_its_size(manifest, tmp_path):
    copy = tmp_path / "copy"
    mirror(manifest.base, str(copy))
    (copy / "manifest.json").unlink()
    (copy / "shard-000001.tar").unlink()
    change(copy / "shard-000002.tar", 700)
    stamps = {n: (copy / f"shard-00000{n}.tar").stat().st_mtime_ns for n in (0, 3, 4)}
    mirror(manifest.base, str(copy))
    assert files(copy) == files(manifest.base)
    assert {n: (copy / f"shard-00000{n}.tar").stat().st_mtime_ns for n in stamps} == stamps


def test_a_damaged_shard_is_not_copied_and_the_copy_stays_incomplete(manifest, tmp_path):
    change(shard(manifest, 4), 600)
    with pytest.raises(DataError, match="shard-000004.tar: is not what its manifest says"):
        mirror(manifest.base, str(tmp_path / "copy"))
    left = files(tmp_path / "copy")
    assert sorted(left) == [f"shard-00000{n}.tar" for n in range(4)]


def test_a_mirror_over_another_set_is_refused(manifest, arrays, tmp_path):
    other = prepare(DataConfig(source="arrays", root=str(arrays), limit=7, prepare_workers=1))
    before = files(other.base)
    with pytest.raises(DataError, match="holds another set"):
        mirror(manifest.base, other.base)
    assert files(other.base) == before
    with pytest.raises(DataError, match="has no manifest.json.*vmcmc data index"):
        mirror(str(arrays), str(tmp_path / "copy"))


# -- index -----------------------------------------------------------------------------------------


def test_an_index_of_tars_from_elsewhere(make_shards):
    base = make_shards([3, 4]).base
    made = write_index(base)
    assert open_manifest(base) == made and made.num_samples == 7 and made.labels.kind == "class"
    assert verify(base, decode=True).problems == ()


def test_an_index_for_an_older_manifest_keeps_what_it_says(manifest):
    before = files(manifest.base)
    path = Path(manifest.base) / "manifest.json"
    record = json.loads(path.read_text())
    for key in ("index", "small"):
        del record[key]
    path.write_text(json.dumps({**record, "schema_version": 1}))
    (Path(manifest.base) / "index.npy").unlink()
    with pytest.raises(DataError, match="run `vmcmc data index"):
        open_manifest(manifest.base)
    write_index(manifest.base)
    assert files(manifest.base) == before


def test_an_index_over_changed_shards_or_another_manifest_is_refused(manifest):
    change(shard(manifest, 0), 600)
    with pytest.raises(DataError, match="is not what manifest.json says"):
        write_index(manifest.base)
    (Path(manifest.base) / "manifest.json").write_text('{"name": "an app"}')
    with pytest.raises(DataError, match="not a manifest of ours"):
        write_index(manifest.base)


def test_vectors_are_verified(tmp_path):
    np.save(tmp_path / "v.npy", np.ones((5, 3), np.float32))
    made = prepare(DataConfig(source="arrays", root=str(tmp_path / "v.npy"), prepare_workers=1))
    assert verify(made.base, decode=True).problems == ()
    shutil.copytree(made.base, tmp_path / "copy")
    write_manifest(Manifest(**{**made.__dict__, "shape": (4,)}), str(tmp_path / "copy"))
    assert len(verify(str(tmp_path / "copy"), decode=True).problems) == 5
