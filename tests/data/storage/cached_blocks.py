"""Blocks for the tests of the cache: made, named, and found on the disk."""

from __future__ import annotations

import fcntl
import hashlib
import multiprocessing
import random
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from vmcmc_dist.data.storage.block_cache import BlockCache, block_key

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
