"""The stream's promises: exactly once, one order for all readers, exact resume, no silent loss."""

from __future__ import annotations

import dataclasses
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

from vmcmc_dist.data import DataConfig, ShardStream, rows, shards
from vmcmc_dist.errors import ConfigError, DataError

UNEVEN = [5, 1, 9, 3, 3, 12, 2, 7, 1, 4, 6]
N = sum(UNEVEN)


def config(**changes) -> DataConfig:
    return dataclasses.replace(DataConfig(streams=4, shuffle_shards=2), **changes)


def number(x) -> list[int]:
    """The numbers that the images carry."""
    return (x[:, 0, 0, 0].long() * 256 + x[:, 0, 0, 1].long()).tolist()


def take(manifest, cfg, batches, *, world=1, local=4, images=0, seed=0) -> list[list[int]]:
    """Global batches as lists of image numbers, put together from all ranks."""
    out: list[list[int]] = [[-1] * (local * world) for _ in range(batches)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for rank in range(world):
            with ShardStream(
                manifest,
                cfg,
                seed=seed,
                rank=rank,
                world_size=world,
                local_batch=local,
                images=images,
            ) as stream:
                for k in range(batches):
                    batch = next(stream)
                    numbers = number(batch.x)
                    assert numbers == batch.row.tolist()
                    assert batch.y.tolist() == [n % 10 for n in numbers]
                    start = images + k * local * world
                    assert batch.index.tolist() == list(
                        range(start + rank, start + local * world, world)
                    )
                    out[k][rank::world] = numbers
    return out


def flat(batches: list[list[int]]) -> list[int]:
    return [n for batch in batches for n in batch]


@pytest.mark.parametrize("world,local", [(1, 24), (2, 12), (3, 8), (8, 3)])
@pytest.mark.parametrize("workers,cache_mb", [(0, 0), (2, 0), (2, 64)])
def test_every_reader_count_sees_the_same_batches(make_shards, world, local, workers, cache_mb):
    manifest = make_shards(UNEVEN)
    reference = take(manifest, config(workers=0, cache_mb=0), 9, local=24)
    cfg = config(workers=workers, cache_mb=cache_mb)
    assert take(manifest, cfg, 9, world=world, local=local) == reference


@pytest.mark.parametrize("world", [1, 2, 3, 8])
def test_each_epoch_has_every_sample_once(make_shards, world):
    manifest = make_shards(UNEVEN)
    seen = flat(take(manifest, config(cache_mb=0), -(-3 * N // world), world=world, local=1))
    epochs = [seen[e * N : (e + 1) * N] for e in range(3)]
    assert all(sorted(epoch) == list(range(N)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


@pytest.mark.parametrize("images,world", [(8, 1), (40, 2), (48, 8), (N + 3, 1), (5 * N + 11, 1)])
def test_resumes_with_the_very_next_batch(make_shards, images, world):
    manifest = make_shards(UNEVEN)
    whole = flat(take(manifest, config(), -(-(images + 48) // 8), local=8))
    resumed = flat(take(manifest, config(cache_mb=0), 3, world=world, local=8 // world,
                        images=images))  # fmt: skip
    assert resumed == whole[images : images + 24]


def test_position_advances_with_what_was_taken(make_shards):
    with ShardStream(make_shards([8, 8]), config(), seed=0, local_batch=4, images=8) as stream:
        assert stream.images == 8
        next(stream)
        time.sleep(0.05)
        assert stream.images == 12


def test_resume_reads_only_the_groups_it_needs(make_shards, monkeypatch):
    manifest = make_shards([10] * 24)
    read = []
    real = shards.read_shard
    monkeypatch.setattr(
        rows.shards, "read_shard", lambda m, s, verify: read.append(s) or real(m, s, verify=verify)
    )
    with ShardStream(
        manifest, config(workers=0, cache_mb=0), seed=0, local_batch=4, images=88
    ) as stream:
        for _ in range(3):
            next(stream)
    assert len(read) <= 8, "one group of two shards for each of four streams"


def test_streaming_reads_each_shard_once_an_epoch_even_with_small_batches(make_shards, monkeypatch):
    manifest = make_shards([10] * 16)
    read = []
    real = shards.read_shard
    monkeypatch.setattr(
        rows.shards, "read_shard", lambda m, s, verify: read.append(s) or real(m, s, verify=verify)
    )
    with ShardStream(manifest, config(workers=0, cache_mb=0), seed=0, local_batch=1) as stream:
        for _ in range(75):
            next(stream)
    assert len(read) == len(set(read))


def test_flips_belong_to_the_sample(make_shards):
    manifest = make_shards(UNEVEN)

    def flipped(**kw):
        with ShardStream(manifest, config(flip=True), seed=1, **kw) as stream:
            batch = next(stream)
        plain = {n: [n // 256, n % 256] for n in batch.row.tolist()}
        return [x[0, 0, :2].tolist() != plain[n] for x, n in zip(batch.x, batch.row.tolist(),
                                                                  strict=True)]  # fmt: skip

    whole = flipped(local_batch=48)
    assert 8 < sum(whole) < 40
    assert whole[24:] == flipped(local_batch=24, images=24)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert whole[1::3] == flipped(local_batch=16, rank=1, world_size=3)


def test_fewer_shards_than_readers_says_how_to_split(make_shards):
    manifest = make_shards([20, 20])
    with pytest.warns(UserWarning, match="2 shards for 4 readers.*shard_samples=2"):
        ShardStream(manifest, config(), seed=0, rank=0, world_size=4, local_batch=2).close()
    assert sorted(flat(take(manifest, config(), 10, world=4, local=1))) == list(range(40))


@pytest.mark.parametrize("cut", [512, 1000, 1024, 4096])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_torn_shard_is_named(make_shards, cut, workers):
    manifest = make_shards([6, 6])
    path = Path(manifest.path(1))
    path.write_bytes(path.read_bytes()[:-cut])
    with ShardStream(manifest, config(workers=workers), seed=0, local_batch=12) as stream:
        with pytest.raises(DataError, match=r"001\.tar"):
            next(stream)
        with pytest.raises(StopIteration):
            next(stream)


def test_a_shard_that_lost_a_sample_is_named(make_shards):
    manifest = make_shards([6, 6])
    first, second = manifest.shards
    more = dataclasses.replace(manifest, shards=(first, dataclasses.replace(second, count=7)))
    with ShardStream(more, config(), seed=0, local_batch=13) as stream:
        with pytest.raises(DataError, match=r"001\.tar: 6 samples, the manifest says 7"):
            next(stream)


def test_checksum_mismatch(make_shards):
    manifest = make_shards([6])
    wrong = dataclasses.replace(manifest.shards[0], sha256="0" * 64)
    bad = dataclasses.replace(manifest, shards=(wrong,))
    with ShardStream(bad, config(), seed=0, local_batch=2) as stream:
        with pytest.raises(DataError, match=r"000\.tar: checksum mismatch"):
            next(stream)
    with ShardStream(bad, config(verify=False), seed=0, local_batch=2) as stream:
        next(stream)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 4, 4)])
def test_wrong_size_or_channels_names_the_member(make_shards, shape):
    manifest = dataclasses.replace(make_shards([6]), shape=shape)
    with ShardStream(manifest, config(), seed=0, local_batch=2) as stream:
        with pytest.raises(DataError, match=r"000\.tar: member 0000\d\.png: 4x4 with 1 channels"):
            next(stream)


def test_an_undecodable_member_is_named(make_shards):
    manifest = make_shards([3])
    path = Path(manifest.path(0))
    path.write_bytes(path.read_bytes().replace(b"\x89PNG", b"junk"))
    with ShardStream(manifest, config(), seed=0, local_batch=3) as stream:
        with pytest.raises(DataError, match=r"000\.tar: member 0000\d\.png: does not decode"):
            next(stream)


def test_a_missing_shard_is_named(make_shards):
    manifest = make_shards([3])
    Path(manifest.path(0)).unlink()
    with ShardStream(manifest, config(), seed=0, local_batch=3) as stream:
        with pytest.raises(DataError, match=r"000\.tar: not found"):
            next(stream)


@pytest.mark.parametrize("leave", ["close", "drop"])
def test_threads_end(make_shards, leave):
    stream = ShardStream(make_shards(UNEVEN), config(), seed=0, local_batch=4)
    next(stream)
    assert any(t.name.startswith("vmcmc") for t in threading.enumerate())
    if leave == "close":
        stream.close()
        stream.close()
        with pytest.raises(StopIteration):
            next(stream)
    del stream
    end = time.monotonic() + 5
    while any(t.name.startswith("vmcmc") for t in threading.enumerate()):
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_rank_outside_the_world_is_refused(make_shards):
    with pytest.raises(ConfigError, match="rank 2"):
        ShardStream(make_shards([4]), config(), seed=0, rank=2, world_size=2, local_batch=1)


def test_cached_batches_are_fast(make_shards):
    manifest = make_shards([500] * 4)
    with ShardStream(manifest, config(workers=0), seed=0, local_batch=200) as stream:
        for _ in range(10):
            next(stream)
        start = time.process_time()
        for _ in range(100):
            next(stream)
        rate = 20_000 / (time.process_time() - start)
    assert rate > 30_000, f"{rate:.0f} images/s"


def test_batches_own_their_memory(make_shards):
    with ShardStream(make_shards([8]), config(), seed=0, local_batch=8) as stream:
        batch = next(stream)
        batch.x.zero_()
        assert np.count_nonzero(next(stream).x.numpy()) > 0


INTERRUPTED = """
import sys
from vmcmc_dist.data import DataConfig, ShardStream, open_manifest
stream = ShardStream(open_manifest(sys.argv[1]), DataConfig(), seed=0, local_batch=2)
for k, batch in enumerate(stream):
    if k == 3:
        print("ready", flush=True)
"""


def test_ctrl_c_does_not_hang(make_shards):
    base = make_shards([6, 6]).base
    command = [sys.executable, "-c", INTERRUPTED, base]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == b"ready\n"
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=20)
        finally:
            process.kill()  # started where Ctrl-C is ignored, it would go on for ever
    assert b"KeyboardInterrupt" in errors and process.returncode != 0
