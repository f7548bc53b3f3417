"""The cache of blocks: bounded, least lately used first, whole, fetched once, never in the way."""

from __future__ import annotations

import fcntl
import hashlib
import multiprocessing
import os
import random
import struct
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from vmcmc_dist.data.storage import block_cache
from vmcmc_dist.data.storage.block_cache import BlockCache, block_key
from vmcmc_dist.errors import ConfigError, DataError

FORK = multiprocessing.get_context("fork")
PAGE = 4096


def block(i: int, size: int = 3 * PAGE) -> bytes:
    """Block i: bytes of its own, with their sha256 before them."""
    body = random.Random(i).randbytes(size - 32)
    return hashlib.sha256(body).digest() + body


def valid(data: bytes) -> bool:
    return hashlib.sha256(data[32:]).digest() == data[:32]


def key(i: int) -> str:
    return block_key("s3://bucket/000.tar", '"tag"', i, 1)


def refuse() -> bytes:
    raise AssertionError("fetched, though it is there")


def get(cache: BlockCache, i: int, size: int = 3 * PAGE) -> bytes:
    return cache.get(key(i), lambda: block(i, size), valid)


def place(folder: Path, i: int) -> Path:
    name = hashlib.sha256(key(i).encode()).hexdigest()
    return folder / "blocks" / name[:2] / name


def has(folder: Path, i: int) -> bool:
    return place(folder, i).exists()


def pages(size: int) -> int:
    return -(-size // PAGE) * PAGE


@contextmanager
def at_rest(folder: Path) -> Iterator[tuple[int, int, list[Path]]]:
    """(bytes that the ledger says, bytes that are there, unfinished files), nothing changing."""
    with open(folder / "vmcmc-block-cache", "rb") as ledger:
        fcntl.flock(ledger, fcntl.LOCK_EX)
        said = struct.unpack("<16s40sQ", ledger.read())[2]
        unfinished = list((folder / "unfinished").iterdir())
        there = 0
        for file in [*unfinished, *(folder / "blocks").glob("*/*")]:
            try:
                there += pages(file.stat().st_size)
            except FileNotFoundError:  # an empty one may go without the lock
                continue
        yield said, there, unfinished


def start(*bodies: Callable[[], None]) -> list:
    processes = [FORK.Process(target=body, daemon=True) for body in bodies]
    for process in processes:
        process.start()
    return processes


def join(processes: list) -> None:
    for process in processes:
        process.join(60)
        assert process.exitcode == 0


def wait_for(what: Callable[[], bool]) -> None:
    latest = time.monotonic() + 30
    while not what():
        assert time.monotonic() < latest, "waited in vain"
        time.sleep(0.001)


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


@pytest.mark.parametrize("harm", ["flip", "cut", "empty"])
def test_a_damaged_block_is_dropped_counted_and_fetched_again(folder: Path, harm: str) -> None:
    cache = BlockCache(folder, 1 << 20)
    get(cache, 1)
    file = place(folder, 1)
    data = bytearray(file.read_bytes())
    data[5000] ^= 1
    file.write_bytes({"flip": bytes(data), "cut": block(1)[:-700], "empty": b""}[harm])
    assert get(cache, 1) == block(1)
    assert cache.counts.damaged == 1 and cache.counts.misses == 2
    assert cache.get(key(1), refuse, valid) == block(1)
    assert file.read_bytes() == block(1)


def test_a_bad_block_from_the_store_is_refused_and_not_kept(folder: Path) -> None:
    cache = BlockCache(folder, 1 << 20)
    with pytest.raises(DataError, match="s3://bucket/000.tar.*not what the index says"):
        cache.get(key(1), lambda: b"rubbish" * 10, valid)
    assert not has(folder, 1) and cache.counts.bytes == 0


def test_an_error_of_the_store_passes_and_leaves_no_lock(folder: Path) -> None:
    cache = BlockCache(folder, 1 << 20)

    def fail() -> bytes:
        raise ConnectionResetError("peer")

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ConnectionResetError, match="peer"):
            cache.get(key(1), fail, valid)
    with at_rest(folder) as (said, there, unfinished):
        assert said == there == 0 and unfinished == []
    assert get(cache, 1) == block(1) and has(folder, 1)


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(ConfigError, match="holds other files .*thesis.tex.*data.block_cache"):
        BlockCache(tmp_path, 1 << 20)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_ledger_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "vmcmc-block-cache").write_text("mine" * 50)
    with pytest.raises(ConfigError, match="not a block cache's"):
        BlockCache(tmp_path, 1 << 20)
    assert (tmp_path / "vmcmc-block-cache").read_text() == "mine" * 50


@pytest.mark.parametrize("lost", ["file", "boot"])
def test_a_total_that_may_be_wrong_is_counted_anew(folder: Path, lost: str) -> None:
    cache = BlockCache(folder, 1 << 20)
    for i in range(5):
        get(cache, i)
    ledger = folder / "vmcmc-block-cache"
    magic, _, _ = struct.unpack("<16s40sQ", ledger.read_bytes())
    ledger.write_bytes(struct.pack("<16s40sQ", magic, b"before", 7) if lost == "boot" else b"")
    assert BlockCache(folder, 1 << 20).counts.bytes == 5 * 3 * PAGE


def test_neither_opening_nor_reading_walks_the_blocks(folder: Path) -> None:
    cache = BlockCache(folder, 1 << 20)
    for i in range(20):
        get(cache, i)

    def look() -> None:
        walked = []
        sys.addaudithook(
            lambda event, args: walked.append(args) if event in ("os.scandir", "os.listdir") else 0
        )
        cache = BlockCache(folder, 1 << 20)
        for i in range(25):
            get(cache, i)
        assert cache.counts[:2] == (20, 5)
        assert {Path(args[0]) for args in walked} == {folder, folder / "unfinished"}

    join(start(look))


def test_an_unusable_folder_is_said_once_and_reading_goes_on(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.warns(UserWarning, match="data.block_cache: .*file/cache: Not a dir") as caught:
        cache = BlockCache(tmp_path / "file" / "cache", 1 << 20)
        for _ in range(3):
            assert get(cache, 1) == block(1)
    assert len(caught) == 1 and cache.counts[:2] == (0, 3)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SimpleNamespace]:
    """A real file system of 1 MiB, which can be made read-only; skips where it can't be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(*options: str) -> bool:
        words = ["mount", "-t", "tmpfs", *options, "tmpfs", str(folder)]
        return subprocess.run(words, capture_output=True).returncode == 0

    if not mount("-o", "size=1m"):
        pytest.skip("no right to mount a small disk here")
    yield SimpleNamespace(folder=folder, remount=lambda o: mount("-o", f"remount,{o}"))
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_is_said_once_and_reading_goes_on(disk, monkeypatch) -> None:
    folder = disk.folder / "cache"
    cache = BlockCache(folder, 1 << 30)
    get(cache, 1)
    filler = disk.folder / "filler"
    with pytest.raises(OSError, match="No space"):
        filler.write_bytes(bytes(2 << 20))
    with pytest.warns(UserWarning, match="No space left on device.*every 60 s") as caught:
        for i in (2, 3, 2):
            assert get(cache, i) == block(i)
        assert cache.get(key(1), refuse, valid) == block(1)
    assert len(caught) == 1
    with at_rest(folder) as (said, there, unfinished):
        assert said == there == 3 * PAGE and unfinished == []

    filler.unlink()
    get(cache, 2)
    assert not has(folder, 2)  # not tried at every block
    cache = BlockCache(folder, 1 << 30)
    monkeypatch.setattr(block_cache, "RETRY_SECONDS", 0.0)
    with pytest.raises(OSError, match="No space"):
        filler.write_bytes(bytes(2 << 20))
    with pytest.warns(UserWarning, match="No space"):
        get(cache, 2)
    filler.unlink()
    get(cache, 2)
    assert has(folder, 2)  # but after a while again


def test_a_disk_that_has_become_read_only_still_gives_its_blocks(disk) -> None:
    folder = disk.folder / "cache"
    cache = BlockCache(folder, 1 << 30)
    get(cache, 1)
    assert disk.remount("ro")
    with pytest.warns(UserWarning, match="Read-only file system") as caught:
        assert cache.get(key(1), refuse, valid) == block(1)
        assert get(cache, 2) == block(2)
        assert cache.get(key(1), refuse, valid) == block(1)
        assert BlockCache(folder, 1 << 30).get(key(1), refuse, valid) == block(1)
    assert len(caught) == 2  # one for each cache
    assert cache.counts[:2] == (2, 2)
    assert disk.remount("rw")


def test_it_is_for_this_user_alone(folder: Path) -> None:
    get(BlockCache(folder, 1 << 20), 1)
    assert folder.stat().st_mode & 0o077 == 0
    assert place(folder, 1).stat().st_mode & 0o077 == 0
    assert os.listdir(folder / "unfinished") == []
