"""The block table of a set of shards: where each sample lies, so that finding it reads nothing.

A block is a run of consecutive whole samples of one tar, of about ``BLOCK_BYTES``: what one ranged
read fetches. Blocks are numbered in the order of the shards, so rows (samples in the manifest's
order) and blocks count in the same direction.
"""

from __future__ import annotations

import hashlib
import io
import mmap
import zlib
from pathlib import Path

import numpy as np

from vmcmc_dist.data import tar
from vmcmc_dist.data.shard_info import ShardInfo
from vmcmc_dist.errors import DataError

NAME = "index.npy"
BLOCK_BYTES = 512 << 10

DTYPE = np.dtype(
    [
        ("shard", "<u4"),
        ("count", "<u4"),
        ("start", "<u8"),
        ("bytes", "<u8"),
        ("crc32", "<u4"),
    ]
)
"""One row a block: number of its shard, samples in it, first byte, length, zlib.crc32 of them."""


def index_tar(
    path: Path, name: str, shard: int = 0, *, block_bytes: int = BLOCK_BYTES, where: str = ""
) -> tuple[ShardInfo, np.ndarray]:
    """Read a local tar once: its record for the manifest, and its blocks (DTYPE [K]).

    ``where`` names it in messages (default: its path). Raises DataError for a torn tar, and for
    one with members that are refused.
    """
    where = where or str(path)
    size = path.stat().st_size
    with open(path, "rb") as file:
        if file.read(2) == b"\x1f\x8b":
            raise DataError(
                f"{where}: compressed; shards are plain tars, so that parts can be read"
            )
        if size < 2 * tar.RECORD:
            raise DataError(f"{where}: torn or not a tar ({size} bytes); copy it again")
        data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    try:
        table = np.array(
            [
                (shard, count, start, stop - start, zlib.crc32(data[start:stop]))
                for count, start, stop in _cut(data, where, block_bytes)
            ],
            dtype=DTYPE,
        )
    except tar.Torn as error:
        raise DataError(
            f"{where}: torn or not a tar ({str(error).removeprefix(f'{where}: ')}); copy it again "
            "or prepare the data again"
        ) from None
    digest = hashlib.sha256(data).hexdigest()
    return ShardInfo(name, int(table["count"].sum()), size, digest), table


def _cut(data: memoryview, where: str, block_bytes: int) -> list[tuple[int, int, int]]:
    """(samples, first byte, end) of each block: samples are added until the block is full."""
    blocks: list[tuple[int, int, int]] = []
    count = start = stop = 0
    for sample in tar.samples(data, where, strict=True):
        if count and sample.stop - start > block_bytes:
            blocks.append((count, start, stop))
            count = 0
        if not count:
            start = sample.start
        count, stop = count + 1, sample.stop
    return [*blocks, (count, start, stop)] if count else blocks


def joined(tables: list[np.ndarray]) -> np.ndarray:
    """The tables of shards 0, 1, … as one, their shard numbers set by their place."""
    for shard, table in enumerate(tables):
        table["shard"] = shard
    return np.concatenate(tables) if tables else np.zeros(0, dtype=DTYPE)


def to_bytes(table: np.ndarray) -> bytes:
    """The content of index.npy."""
    buffer = io.BytesIO()
    np.save(buffer, table, allow_pickle=False)
    return buffer.getvalue()


def from_bytes(content: bytes, where: str) -> np.ndarray:
    """Read index.npy; raises DataError if it is not one."""
    try:
        table = np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise DataError(f"{where}: not a block table ({error}); run `vmcmc data index`") from None
    if table.dtype != DTYPE or table.ndim != 1:
        raise DataError(f"{where}: not a block table; run `vmcmc data index`")
    return table


def sha256(table: np.ndarray) -> str:
    """What a manifest says of its table."""
    return hashlib.sha256(to_bytes(table)).hexdigest()
