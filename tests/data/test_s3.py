"""Shards and raw data on S3, against two stores on the loopback device."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import s3fs

from vmcmc_dist.bench.fault_schedule import Fault
from vmcmc_dist.data import (
    DataConfig,
    ensure_prepared,
    open_manifest,
    open_stream,
    prepare,
    store,
)
from vmcmc_dist.data.storage import RetryPolicy
from vmcmc_dist.errors import ConfigError, DataError

pytestmark = pytest.mark.stores("moto", "swift")


def config(root, **changes) -> DataConfig:
    return DataConfig(
        source="arrays", root=str(root), shard_samples=10, prepare_workers=1, **changes
    )


def test_written_to_s3_and_streamed_from_it_as_from_disk(arrays, s3):
    local = prepare(config(arrays))
    remote = prepare(config(arrays, shards="s3://faces/set"))
    assert remote.checksum == local.checksum and remote.base == "s3://faces/set"
    assert prepare(config(arrays, shards="s3://faces/set")) == remote
    for cache_mb in (0, 64):
        batches = []
        for root in (local.base, remote.base):
            cfg = DataConfig(source="shards", root=root, cache_mb=cache_mb)
            with open_stream(cfg, seed=5, local_batch=40, images=20) as stream:
                batches.append(next(stream))
        assert (batches[0].x == batches[1].x).all() and (batches[0].y == batches[1].y).all()


def test_raw_data_on_s3(arrays, s3):
    for path in arrays.iterdir():
        s3.upload_file(str(path), "faces", f"raw/{path.name}")
    here = prepare(config(arrays))
    there = ensure_prepared(config("s3://faces/raw"))
    assert [s.sha256 for s in there.shards] == [s.sha256 for s in here.shards]


def test_foreign_tars_on_s3_are_scanned(make_shards, s3):
    manifest = make_shards([3, 4])
    for shard in manifest.shards:
        s3.upload_file(str(Path(manifest.base) / shard.name), "faces", f"tars/{shard.name}")
    found = open_manifest("s3://faces/tars")
    assert found.num_samples == 7 and found.shape == (1, 4, 4)


@pytest.mark.parametrize("use", ["read", "write"])
def test_missing_bucket(arrays, s3, use):
    with pytest.raises(DataError, match="no-such-bucket.*check the name of bucket") as caught:
        if use == "read":
            ensure_prepared(DataConfig(source="shards", root="s3://no-such-bucket/x"))
        else:
            prepare(config(arrays, shards="s3://no-such-bucket/x"))
    assert "very-secret" not in str(caught.value) and caught.value.__cause__ is None


def test_empty_prefix(s3):
    with pytest.raises(DataError, match="s3://faces/nothing"):
        ensure_prepared(DataConfig(source="shards", root="s3://faces/nothing"))


def test_access_denied(s3, proxy):
    proxy.faults = lambda request: Fault("status", status=403, code="AccessDenied")
    with pytest.raises(DataError, match="access denied.*; set AWS_PROFILE") as caught:
        open_manifest("s3://faces/set")
    assert "test:key" not in str(caught.value)


@pytest.mark.stores("swift")  # moto takes any key
@pytest.mark.parametrize("name", ["AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"])
def test_a_wrong_key_or_secret(s3, monkeypatch, name):
    monkeypatch.setenv(name, "not:right")
    with pytest.raises(DataError, match="access denied.*; set AWS_PROFILE") as caught:
        open_manifest("s3://faces/set")
    for secret in ("test:key", "very-secret", "not:right"):
        assert secret not in str(caught.value)


def test_unreachable_store(s3, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    store.configure(RetryPolicy(seconds=0.3, first_s=0.05), stall_s=2.0)
    with pytest.raises(DataError, match=r"cannot be reached \(\d+ tries over .* AWS_ENDPOINT_URL"):
        open_manifest("s3://faces/set")


def test_a_shard_torn_in_the_bucket_is_named(arrays, s3):
    manifest = prepare(config(arrays, shards="s3://faces/set"))
    name = manifest.shards[2].name
    body = s3.get_object(Bucket="faces", Key=f"set/{name}")["Body"].read()
    s3.put_object(Bucket="faces", Key=f"set/{name}", Body=body[:-700])
    s3fs.S3FileSystem.clear_instance_cache()
    cfg = DataConfig(source="shards", root="s3://faces/set")
    with open_stream(cfg, seed=0, local_batch=45) as stream:
        with pytest.raises(DataError, match=f"s3://faces/set/{name}"):
            next(stream)


@pytest.mark.parametrize("url", ["pipe:cat /etc/passwd", "http://host/x.tar", "gs://bucket/x"])
def test_other_schemes_are_refused(url):
    with pytest.raises(ConfigError, match="only local paths and s3://"):
        open_manifest(url)
