"""The stream's promises from a store: through faults, behind a cache, resumed."""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from pathlib import Path

import pytest

from vmcmc_dist.bench.fault_schedule import Fault, Schedule
from vmcmc_dist.data import DataConfig, ShardStream, open_manifest
from vmcmc_dist.data.manifest import Manifest, write_manifest
from vmcmc_dist.errors import DataError

COUNTS = [30, 17, 1, 25, 40, 7]
N = sum(COUNTS)


def config(**changes) -> DataConfig:
    return dataclasses.replace(
        DataConfig(streams=4, shuffle_blocks=2, cache_mb=0, retry_s=20.0, stall_s=1.0), **changes
    )


@pytest.fixture
def uploaded(make_shards, s3) -> Manifest:
    """Shards in the bucket, in blocks of three samples."""
    local = make_shards(COUNTS, per_block=3)
    write_manifest(local, local.base)
    for path in Path(local.base).iterdir():
        s3.upload_file(str(path), "faces", f"set/{path.name}")
    return open_manifest("s3://faces/set")


def rows(manifest, cfg, batches, *, rank=0, world=1, local=6, images=0) -> list[int]:
    """Rows that one reader is given; each must be the number that its picture carries."""
    out = []
    with ShardStream(
        manifest, cfg, seed=3, rank=rank, world_size=world, local_batch=local, images=images
    ) as stream:
        for _ in range(batches):
            batch = next(stream)
            numbers = batch.x[:, 0, 0, 0].long() * 256 + batch.x[:, 0, 0, 1].long()
            assert numbers.tolist() == batch.row.tolist()
            out += batch.row.tolist()
    return out


def local_copy(manifest: Manifest, tmp_path: Path) -> Manifest:
    return dataclasses.replace(manifest, base=str(tmp_path / "shards"))


@pytest.mark.stores("moto", "swift")
def test_as_from_disk(uploaded, tmp_path):
    batches = 2 * N // 6
    assert rows(uploaded, config(), batches) == rows(
        local_copy(uploaded, tmp_path), config(), batches
    )


@pytest.mark.stores("moto", "swift")
@pytest.mark.parametrize("seed", [0, 1])
def test_every_sample_once_through_many_faults(uploaded, proxy, tmp_path, seed, caplog):
    proxy.faults = Schedule.even(0.25, seed, stall_s=2.0)
    with caplog.at_level(logging.WARNING):
        seen = rows(uploaded, config(), N // 6)
    assert seen == rows(local_copy(uploaded, tmp_path), config(), N // 6)
    assert len(set(seen)) == len(seen) == N // 6 * 6
    assert any("try 2 in" in r.message for r in caplog.records)
    assert "very-secret" not in caplog.text and "test:key" not in caplog.text


def test_a_bit_that_flips_on_the_way_is_noticed(uploaded, proxy, tmp_path, caplog):
    seen = []

    def first_of_every_third_block(request):
        place = (request.path, request.range)
        if request.range is None or place in seen:
            return None
        seen.append(place)
        return Fault("flip", 700) if len(seen) % 3 == 0 else None

    proxy.faults = first_of_every_third_block
    with caplog.at_level(logging.WARNING):
        assert rows(uploaded, config(), 20) == rows(local_copy(uploaded, tmp_path), config(), 20)
    assert "checksum mismatch, read 1 of 3" in caplog.text


def test_a_store_that_stays_away_is_an_error_that_names_the_shard(uploaded, proxy):
    proxy.faults = lambda request: Fault("status") if request.range else None
    with pytest.raises(DataError, match=r"s3://faces/set/00\d\.tar: .*503 SlowDown.*tries over"):
        rows(uploaded, config(retry_s=0.5), 1)


def test_a_stream_that_is_closed_does_not_go_on_trying(uploaded, proxy):
    proxy.faults = lambda request: Fault("status") if request.range else None
    others = set(threading.enumerate())
    stream = ShardStream(uploaded, config(retry_s=600.0), seed=0, local_batch=6)
    waiting = threading.Thread(target=lambda: next(stream, None), daemon=True)
    waiting.start()
    while len(proxy.log) < 3:
        time.sleep(0.01)
    stream.close()
    waiting.join(5)
    end = time.monotonic() + 5
    while any(t.name.startswith("vmcmc") for t in set(threading.enumerate()) - others):
        assert time.monotonic() < end, "its threads go on trying"
        time.sleep(0.05)


def test_a_shard_that_is_overwritten_while_read_is_named(uploaded, s3):
    with ShardStream(uploaded, config(workers=0), seed=0, local_batch=4) as stream:
        next(stream)
        for shard in uploaded.shards:
            body = s3.get_object(Bucket="faces", Key=f"set/{shard.name}")["Body"].read()
            s3.put_object(Bucket="faces", Key=f"set/{shard.name}", Body=body[::-1])
        with pytest.raises(DataError, match=r"s3://faces/set/00\d\.tar: .*overwritten"):
            for _ in range(N):
                next(stream)


def test_a_bucket_that_vanishes_is_named(uploaded, s3):
    with ShardStream(uploaded, config(workers=0), seed=0, local_batch=4) as stream:
        next(stream)
        for item in s3.list_objects_v2(Bucket="faces")["Contents"]:
            s3.delete_object(Bucket="faces", Key=item["Key"])
        s3.delete_bucket(Bucket="faces")
        with pytest.raises(DataError, match=r"s3://faces/set/00\d\.tar: .*bucket"):
            for _ in range(N):
                next(stream)


def ranges(proxy) -> list[tuple[str, tuple]]:
    """What was read of shards: (path, range)."""
    return [(e.path, e.range) for e in proxy.log if e.method == "GET" and e.range]


def readers(manifest, cfg, world, batches, **where) -> list[list[int]]:
    return [
        rows(manifest, cfg, batches, rank=r, world=world, local=1, **where) for r in range(world)
    ]


@pytest.mark.parametrize("world", [1, 2])
def test_the_second_epoch_reads_nothing_from_the_store(uploaded, proxy, tmp_path, world):
    cfg = config(block_cache=str(tmp_path / "blocks"))
    epoch = readers(uploaded, cfg, world, N // world)
    first = ranges(proxy)
    assert len(first) == len(set(first)) == len(uploaded.blocks), "each block once, for all readers"
    assert readers(uploaded, cfg, world, N // world) == epoch
    assert ranges(proxy) == first


def test_damage_in_the_cache_is_mended_from_the_store(uploaded, tmp_path):
    folder = tmp_path / "blocks"
    cfg = config(block_cache=str(folder))
    epoch = rows(uploaded, cfg, N // 6)
    files = [p for p in folder.rglob("*") if p.is_file() and p.stat().st_size >= 2048]
    assert len(files) >= len(uploaded.blocks) - 1
    for path in files[::2]:
        data = bytearray(path.read_bytes())
        data[900] ^= 1
        path.write_bytes(data)
    with ShardStream(uploaded, cfg, seed=3, local_batch=6) as stream:
        assert [r for _ in range(N // 6) for r in next(stream).row.tolist()] == epoch
        assert stream.counts()["cache_damaged"] > 0 and not stream.ledger.bad


def test_other_shards_of_the_same_names_are_not_taken_from_the_cache(uploaded, s3, tmp_path):
    """The cache's keys hold the full URL and the version: train and validation never mix."""
    cfg = config(block_cache=str(tmp_path / "blocks"), verify=False)
    rows(uploaded, cfg, N // 6)
    for shard in uploaded.shards:
        body = s3.get_object(Bucket="faces", Key=f"set/{shard.name}")["Body"].read()
        s3.put_object(Bucket="faces", Key=f"other/{shard.name}", Body=b"\0" * len(body))
    elsewhere = dataclasses.replace(uploaded, base="s3://faces/other")
    with pytest.raises(DataError):
        rows(elsewhere, cfg, 1)


@pytest.mark.parametrize("world", [1, 2, 4])
def test_a_resume_reads_again_at_most_a_shard_per_reader(uploaded, proxy, world):
    """All bytes from the middle of an epoch to its end, against those that are left to read."""
    images = N // 2 // world * world
    left = N - images
    before_the_next_epoch = (left - 16) // world
    cfg = config(workers=0)  # no thread that reads ahead
    readers(uploaded, cfg, world, before_the_next_epoch, images=images)
    read = sum(last - first + 1 for _, (first, last) in ranges(proxy))
    assert 0 < read <= left * 2048 + world * max(info.bytes for info in uploaded.shards)
