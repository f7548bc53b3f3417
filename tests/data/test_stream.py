"""The stream's promises: exactly once, one order for all readers, exact resume, no silent loss."""

from __future__ import annotations

import dataclasses
import gc
import signal
import subprocess
import sys
import threading
import time
import warnings
import weakref
from pathlib import Path

import numpy as np
import pytest

from vmcmc_dist.data import DataConfig, ShardStream
from vmcmc_dist.data.blocks import Blocks
from vmcmc_dist.data.storage.source import Source
from vmcmc_dist.data.stream import memory_bound
from vmcmc_dist.errors import ConfigError, DataError

UNEVEN = [5, 1, 9, 3, 3, 12, 2, 7, 1, 4, 6]
N = sum(UNEVEN)


def config(**changes) -> DataConfig:
    return dataclasses.replace(DataConfig(streams=4, shuffle_blocks=2), **changes)


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
    manifest = make_shards(UNEVEN, per_block=2)
    reference = take(manifest, config(workers=0, cache_mb=0), 9, local=24)
    cfg = config(workers=workers, cache_mb=cache_mb)
    assert take(manifest, cfg, 9, world=world, local=local) == reference


@pytest.mark.parametrize("world", [1, 2, 3, 8])
def test_each_epoch_has_every_sample_once(make_shards, world):
    manifest = make_shards(UNEVEN, per_block=2)
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


@pytest.fixture
def loaded(monkeypatch):
    """The blocks that are read, in their order."""
    read: list[int] = []
    real = Blocks.load
    monkeypatch.setattr(Blocks, "load", lambda self, b: read.append(b) or real(self, b))
    return read


def test_resume_reads_only_the_windows_it_needs(make_shards, loaded):
    manifest = make_shards([10] * 24)
    cfg = config(workers=0, cache_mb=0, prefetch=1)
    with ShardStream(manifest, cfg, seed=0, local_batch=4, images=88) as stream:
        assert not loaded, "finding the position reads nothing"
        next(stream)
    assert len(loaded) <= 8, "one window of two blocks for each of four streams"


def test_before_the_first_batch_nothing_else_is_fetched(make_shards, monkeypatch):
    requested: list[set[int]] = []
    real = Blocks.request

    def request(blocks: Blocks, wanted) -> None:
        wanted = list(wanted)
        requested.append(set(wanted))
        real(blocks, wanted)

    monkeypatch.setattr(Blocks, "request", request)
    manifest = make_shards([10] * 24)
    with ShardStream(manifest, config(workers=1, cache_mb=0), seed=0, local_batch=4) as stream:
        batch = next(stream)
        next(stream)
    ends = np.cumsum(manifest.blocks["count"])
    assert requested[0] == set(np.searchsorted(ends, batch.row.numpy(), side="right").tolist())
    assert requested[1] > requested[0], "and then the next ones, ahead of time"


@pytest.mark.parametrize("world,local", [(1, 1), (1, 16), (4, 2)])
def test_a_reader_reads_each_block_once_an_epoch(make_shards, loaded, world, local):
    manifest = make_shards([10] * 16, per_block=5)
    cfg = config(workers=0, cache_mb=0)
    epoch = manifest.num_samples
    with ShardStream(
        manifest, cfg, seed=0, rank=world - 1, world_size=world, local_batch=local
    ) as stream:
        while stream.images < epoch - 3 * 40:  # before the next epoch's are read ahead
            next(stream)
    assert len(loaded) == len(set(loaded))
    assert len(loaded) <= len(manifest.blocks) // world + 2, "and only its own"


def test_memory_stays_below_its_bound(make_shards):
    manifest = make_shards([40] * 8, per_block=4)
    cfg = config(workers=0, cache_mb=0, prefetch=1)
    bound = memory_bound(manifest, cfg, 1)
    assert bound == 2 * 2 * 4 * int(manifest.blocks["bytes"].max())
    with ShardStream(manifest, cfg, seed=0, local_batch=4) as stream:
        for _ in range(200):
            next(stream)
            held = stream.held_bytes()
            assert 0 < held <= bound


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


def test_fewer_blocks_than_readers_are_still_exact(make_shards):
    manifest = make_shards([20, 20])
    with pytest.warns(UserWarning, match="2 blocks for 4 readers"):
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


def test_a_block_of_other_samples_is_named(make_shards):
    manifest = make_shards([6, 6])
    blocks = manifest.blocks.copy()
    blocks["count"][1] = 7
    first, second = manifest.shards
    more = dataclasses.replace(
        manifest, shards=(first, dataclasses.replace(second, count=7)), blocks=blocks
    )
    with ShardStream(more, config(), seed=0, local_batch=13) as stream:
        with pytest.raises(DataError, match=r"001\.tar: 6 samples, the block table says 7"):
            next(stream)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 4, 5)])
def test_wrong_size_or_channels_names_the_member(make_shards, shape):
    manifest = dataclasses.replace(make_shards([6]), shape=shape)
    with ShardStream(manifest, config(max_bad=1), seed=0, local_batch=2) as stream:
        with pytest.raises(DataError, match=r"000\.tar: member 0000\d\.png: 4x4 with 1 channels"):
            next(stream)


def test_a_missing_shard_is_named(make_shards):
    manifest = make_shards([3])
    Path(manifest.path(0)).unlink()
    with ShardStream(manifest, config(), seed=0, local_batch=3) as stream:
        with pytest.raises(DataError, match=r"000\.tar: not found"):
            next(stream)


@pytest.mark.parametrize("leave", ["close", "drop"])
def test_threads_end(make_shards, leave):
    others = set(threading.enumerate())

    def ours() -> list[threading.Thread]:
        return [t for t in threading.enumerate() if t.name.startswith("vmcmc") and t not in others]

    stream = ShardStream(make_shards(UNEVEN), config(), seed=0, local_batch=4)
    next(stream)
    assert ours()
    if leave == "close":
        stream.close()
        stream.close()
        with pytest.raises(StopIteration):
            next(stream)
    del stream
    end = time.monotonic() + 5
    while ours():
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
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
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


@pytest.mark.parametrize("readers", [0, 2])
def test_blocks_that_are_not_wanted_any_more_are_let_go(make_shards, readers):
    manifest = make_shards([12, 12], per_block=4)
    blocks = Blocks(manifest, Source(), readers=readers, verify=True)
    try:
        blocks.request([0, 1, 2])
        kept, gone = blocks.samples(0), weakref.ref(blocks.samples(1))
        blocks.request([0, 3])
        gc.collect()
        assert gone() is None and blocks.samples(0) is kept
        assert blocks.held_bytes() == int(manifest.blocks["bytes"][[0, 3]].sum())
        with pytest.raises(KeyError):
            blocks.samples(1)
    finally:
        blocks.close()
