"""Preparation straight to S3: shard by shard, resumable, with the bytes of a local one."""

from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path

import numpy as np
import pytest

from vmcmc_dist.bench.fault_schedule import Fault
from vmcmc_dist.data import DataConfig, Manifest, open_manifest, prepare, prepare_sizes, store
from vmcmc_dist.data.raw import RawData, open_source
from vmcmc_dist.data.unfinished import Unfinished
from vmcmc_dist.errors import DataError

URL = "s3://faces/set"
FAULT = Fault("status", status=503, code="SlowDown")


def config(root: Path | str, **changes) -> DataConfig:
    cfg = DataConfig(
        source="arrays", root=str(root), shards=URL, shard_samples=10, prepare_workers=1
    )
    return dataclasses.replace(cfg, **changes)


def objects(url: str = URL) -> dict[str, bytes]:
    return {name: store.read_bytes(store.join(url, name)) for name in store.list_files(url)}


def local(root: Path, out: Path, **changes) -> dict[str, bytes]:
    manifest: Manifest = prepare(config(root, shards=str(out), **changes))
    return {path.name: path.read_bytes() for path in sorted(Path(manifest.base).iterdir())}


class Stop(Exception):
    """Thrown in the middle."""


def interrupted(cfg: DataConfig, after: int) -> None:
    def stop(stage: str, done: int, total: int) -> None:
        if done >= after:
            raise Stop

    with pytest.raises(Stop):
        prepare(cfg, stop)


def test_interrupted_and_run_again_it_is_the_local_set(arrays, s3, tmp_path, cache):
    interrupted(config(arrays), 20)
    assert "manifest.json" not in objects()
    with pytest.raises(DataError, match="its preparation is not finished"):
        open_manifest(URL)
    stamps = {o["Key"]: o["LastModified"] for o in s3.list_objects_v2(Bucket="faces")["Contents"]}
    calls: list[int] = []
    prepare(config(arrays), lambda stage, done, total: calls.append(done))
    assert calls == [20, 30, 40, 45]
    assert objects() == local(arrays, tmp_path / "local")
    assert (
        s3.head_object(Bucket="faces", Key="set/shard-000001.tar")["LastModified"]
        == stamps["set/shard-000001.tar"]
    )
    assert not list((cache / "preparing").iterdir()), "a shard was left on the local disk"


def test_large_shards_go_by_multipart(s3, tmp_path):
    """Shards of 20 MB, so in two parts each."""
    root = tmp_path / "vectors.npy"
    np.save(root, np.random.default_rng(0).standard_normal((40, 250_000), dtype=np.float32))
    prepare(config(root, shard_samples=20))
    assert s3.head_object(Bucket="faces", Key="set/shard-000000.tar")["ETag"].endswith('-2"')
    assert objects() == local(root, tmp_path / "local", shard_samples=20)


def test_leftovers_and_strangers_in_a_bucket(arrays, s3):
    interrupted(config(arrays), 20)
    other = config(arrays, limit=25)
    with pytest.raises(DataError, match=r"unfinished.*\.preparing-.*--restart"):
        prepare(other)
    store.write_bytes(f"{URL}/notes.txt", b"mine")
    assert prepare(other, restart=True).num_samples == 25
    assert sorted(objects())[:3] == ["index.npy", "manifest.json", "notes.txt"]
    store.write_bytes("s3://faces/photos/a.jpg", b"mine")
    with pytest.raises(DataError, match="holds a.jpg and no prepared data set"):
        prepare(config(arrays, shards="s3://faces/photos"), restart=True)


def test_sizes_go_to_prefixes(arrays, s3):
    made = prepare_sizes(config(arrays), [4, 8])
    assert [m.base for m in made] == [f"{URL}/4", f"{URL}/8"]
    assert open_manifest(f"{URL}/4").shape == (1, 4, 4)


def test_a_store_that_fails_now_and_then(arrays, s3, proxy, tmp_path):
    proxy.faults = lambda request: FAULT if request.number % 4 == 1 else None
    prepare(config(arrays))
    assert any("503" in entry.done for entry in proxy.log)
    assert objects() == local(arrays, tmp_path / "local")


def test_raw_data_on_s3_is_fetched_where_it_is_needed(arrays, s3, tmp_path, monkeypatch):
    for path in arrays.iterdir():
        s3.upload_file(str(path), "faces", f"raw/{path.name}")
    cfg = config("s3://faces/raw", shards=str(tmp_path / "out"))
    made = prepare(cfg)
    assert made.num_samples == 45 and made.labels.names == ("0", "1", "2", "3", "4")
    sent = pickle.dumps(RawData(cfg, open_source(cfg)))
    monkeypatch.setenv("VMCMC_CACHE", str(tmp_path / "another machine"))
    there = pickle.loads(sent).source
    assert len(there) == 45 and "another machine" in str(there.path)


def test_records_of_a_bucket_are_read_back(arrays, s3):
    interrupted(config(arrays), 30)
    folder = next(n for n in store.list_files(URL) if n.startswith(".preparing-"))
    key = folder.split("/")[0].removeprefix(".preparing-")
    found = Unfinished(URL, key).finished()
    assert [found[name].stop for name in sorted(found)] == [10, 20, 30]
    assert found["shard-000000.tar"].blocks["count"].sum() == 10
