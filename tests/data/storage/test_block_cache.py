"""The cache of blocks: bounded, least lately used first, whole, fetched once, never in the way."""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path

import pytest

from tests.data.storage.cached_blocks import (
    FORK,
    PAGE,
    at_rest,
    block,
    get,
    has,
    join,
    key,
    place,
    refuse,
    start,
    valid,
    wait_for,
)
from vmcmc_dist.data.storage.block_cache import BlockCache, block_key


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "blocks of a node"


def test_a_block_is_fetched_once_and_then_read(folder: Path) -> None:
    cache = BlockCache(folder, 1 << 20)
    assert get(cache, 1) == block(1)
    assert cache.get(key(1), refuse, valid) == block(1)
    assert BlockCache(folder, 1 << 20).get(key(1), refuse, valid) == block(1)
    assert cache.counts == (1, 1, 0, 0, 3 * PAGE)


@pytest.mark.parametrize(
    "other",
    [
        ("s3://bucket/val/000.tar", '"a"', 0, 10),
        ("s3://bucket/train/000.tar", '"b"', 0, 10),
        ("s3://bucket/train/000.tar", '"a"', 1, 10),
        ("s3://bucket/train/000.tar", '"a"', 0, 11),
    ],
)
def test_url_version_and_range_tell_blocks_apart(folder: Path, other: tuple) -> None:
    cache = BlockCache(folder, 1 << 20)
    one = block_key("s3://bucket/train/000.tar", '"a"', 0, 10)
    assert cache.get(one, lambda: b"one", bool) == b"one"
    assert cache.get(block_key(*other), lambda: b"other", bool) == b"other"


def test_eight_processes_never_exceed_the_bound(folder: Path) -> None:
    bound = 1 << 20

    def hammer(seed: int) -> None:
        rng, cache = random.Random(seed), BlockCache(folder, bound)
        for _ in range(160):
            i = int(rng.triangular(0, 120, 0))
            size = 200 + 997 * (i % 50)
            assert get(cache, i, size) == block(i, size)
        assert cache.counts.damaged == 0  # nobody saw half a block
        assert cache.counts.evicted > 0

    BlockCache(folder, bound)
    processes = start(*(lambda seed=seed: hammer(seed) for seed in range(8)))
    most, looks = 0, 0
    while any(process.is_alive() for process in processes):
        with at_rest(folder) as (said, there, _):
            assert there <= said <= bound
            most, looks = max(most, there), looks + 1
    join(processes)
    assert looks > 10 and most > bound * 0.8
    with at_rest(folder) as (said, there, unfinished):
        assert said == there and unfinished == []
        files = [file for file in folder.rglob("*") if file.is_file()]
        assert sum(file.stat().st_blocks * 512 for file in files) <= bound + PAGE  # the ledger


def test_the_least_lately_used_goes_whoever_used_it(folder: Path) -> None:
    cache = BlockCache(folder, 10 * 3 * PAGE)
    for i in range(10):
        get(cache, i)

    def use() -> None:
        other = BlockCache(folder, 10 * 3 * PAGE)
        for i in (1, 0):
            other.get(key(i), refuse, valid)

    join(start(use))
    get(cache, 10)
    get(cache, 11)
    gone = {i for i in range(12) if not has(folder, i)}
    assert gone == {2, 3} and cache.counts.evicted == 2  # some room is made beforehand


def test_a_lower_bound_holds_at_once(folder: Path) -> None:
    cache = BlockCache(folder, 1 << 20)
    for i in range(10):
        get(cache, i)
    smaller = BlockCache(folder, 5 * 3 * PAGE)
    assert smaller.counts.bytes <= 5 * 3 * PAGE and smaller.counts.evicted >= 5
    with at_rest(folder) as (said, there, _):
        assert said == there == smaller.counts.bytes


def test_a_block_over_the_bound_is_not_kept(folder: Path) -> None:
    cache = BlockCache(folder, 8 * PAGE)
    get(cache, 1)
    assert get(cache, 2, 9 * PAGE) == block(2, 9 * PAGE)
    assert has(folder, 1) and not has(folder, 2)


def test_processes_that_miss_together_fetch_once(folder: Path, tmp_path: Path) -> None:
    log, together = tmp_path / "fetched", FORK.Barrier(8)
    BlockCache(folder, 1 << 20)

    def fetch() -> bytes:
        with open(log, "ab") as file:
            file.write(b"x")
        time.sleep(0.3)
        return block(1)

    def miss() -> None:
        cache = BlockCache(folder, 1 << 20)
        together.wait(20)
        threads = [threading.Thread(target=cache.get, args=(key(1), fetch, valid)) for _ in "ab"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert cache.counts.hits + cache.counts.misses == 2

    join(start(*[miss] * 8))
    assert log.read_bytes() == b"x"


def test_different_blocks_are_fetched_side_by_side(folder: Path) -> None:
    together = FORK.Barrier(4)

    def miss(i: int) -> None:
        def fetch() -> bytes:
            together.wait(20)  # breaks if one waits for another
            return block(i)

        BlockCache(folder, 1 << 20).get(key(i), fetch, valid)

    join(start(*(lambda i=i: miss(i) for i in range(4))))


def test_a_process_killed_in_a_fetch_holds_up_nobody(folder: Path) -> None:
    fetching = FORK.Event()

    def hang() -> bytes:
        fetching.set()
        time.sleep(120)
        return block(1)

    (process,) = start(lambda: BlockCache(folder, 1 << 20).get(key(1), hang, valid))
    assert fetching.wait(20)
    cache, got = BlockCache(folder, 1 << 20), []
    thread = threading.Thread(target=lambda: got.append(get(cache, 1)))
    thread.start()
    thread.join(0.2)
    assert thread.is_alive() and not got  # one is fetching, so it waits
    process.kill()
    thread.join(10)
    assert got == [block(1)]
    with at_rest(folder) as (said, there, unfinished):
        assert said == there == 3 * PAGE and unfinished == []


def test_a_writer_killed_leaves_nothing_that_counts_or_is_served(folder: Path) -> None:
    size = 64 << 20
    data = bytes(size)
    name = place(folder, 1).name

    def cut() -> bool:
        """True if the writer was killed in the middle of its write."""
        BlockCache(folder, 1 << 30)
        (process,) = start(lambda: BlockCache(folder, 1 << 30).get(key(1), lambda: data, bool))
        file = folder / "unfinished" / name
        wait_for(lambda: has(folder, 1) or file.exists() and file.stat().st_blocks > 0)
        process.kill()
        process.join()
        done = has(folder, 1)
        place(folder, 1).unlink(missing_ok=True)
        return not done and file.exists()

    wait_for(cut)
    with at_rest(folder) as (said, there, unfinished):
        assert said >= there == size and len(unfinished) == 1
    assert not has(folder, 1)
    assert BlockCache(folder, 1 << 30).counts.bytes == said - size  # swept
    with at_rest(folder) as (said, there, unfinished):
        assert there == 0 and unfinished == []

    cache = BlockCache(folder, 1 << 30)
    wait_for(cut)  # and now the block is wanted while the rest of it still lies there
    with at_rest(folder) as (before, _, _):
        pass
    assert get(cache, 1) == block(1)
    with at_rest(folder) as (said, there, unfinished):
        assert said == before - size + 3 * PAGE and there == 3 * PAGE and unfinished == []


def test_kills_at_random_moments_break_nothing(folder: Path) -> None:
    bound, rng = 4 << 20, random.Random(3)

    def write(first: int) -> None:
        cache = BlockCache(folder, bound)
        data = [block(i, 256 << 10) for i in range(first, first + 40)]
        while True:
            for i, one in enumerate(data, first):
                cache.get(key(i), lambda one=one: one, valid)

    for _ in range(10):
        processes = start(lambda: write(0), lambda: write(20))
        wait_for(lambda: any((folder / "blocks").glob("*/*")))
        time.sleep(rng.uniform(0.03, 0.15))
        for process in processes:
            process.kill()
            process.join()
        cache = BlockCache(folder, bound)
        with at_rest(folder) as (said, there, unfinished):
            assert there <= said <= bound and unfinished == []
    for i in range(60):
        assert cache.get(key(i), lambda i=i: block(i, 256 << 10), valid) == block(i, 256 << 10)
    assert cache.counts.damaged == 0
    with at_rest(folder) as (said, there, _):
        assert said == there  # what kills had left too high was counted anew when it was full
