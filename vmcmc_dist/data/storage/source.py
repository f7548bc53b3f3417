"""A stream's bytes: ranged reads, checked, behind a cache of this machine if there is one."""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path

from imagecodecs import deflate_crc32  # zlib.crc32, ten times as fast

from vmcmc_dist.data.storage.block_cache import BlockCache, CacheCounts, block_key
from vmcmc_dist.data.storage.client import Stats
from vmcmc_dist.data.storage.ranges import RangeReader
from vmcmc_dist.data.storage.retry import RetryPolicy
from vmcmc_dist.errors import DataError

log = logging.getLogger(__name__)
READS = 3
NAP_S = 0.2


class DamagedError(DataError):
    """Bytes that stayed wrong, however often they were read."""


class Source:
    """What :class:`vmcmc_dist.data.blocks.Blocks` reads from; thread-safe.

    cache_folder, cache_bytes   of the blocks kept on this machine; None = none are
    """

    def __init__(
        self,
        *,
        retry_s: float = 120.0,
        stall_s: float = 15.0,
        cache_folder: str | None = None,
        cache_bytes: int = 0,
    ) -> None:
        self._closed = False
        policy = RetryPolicy(seconds=retry_s, sleep=self._sleep)
        self.reader = RangeReader(policy, stall_s=stall_s)
        folder = None if cache_folder is None else Path(cache_folder).expanduser()
        self.cache = None if folder is None else BlockCache(folder, cache_bytes)

    async def _sleep(self, seconds: float) -> None:
        """Between two tries; ends at once when nobody waits for the bytes any more."""
        end = time.monotonic() + seconds
        while not self._closed and (left := end - time.monotonic()) > 0:
            await asyncio.sleep(min(left, NAP_S))
        if self._closed:
            raise DataError("the stream was closed while it waited for the store")

    def close(self) -> None:
        """Give up reads that wait for another try; what is under way ends by itself."""
        self._closed = True

    @property
    def stats(self) -> Stats:
        """Of the store, since the start."""
        return self.reader.stats

    @property
    def cache_counts(self) -> CacheCounts | None:
        """Of the cache, since the start; None where there is none."""
        return None if self.cache is None else self.cache.counts

    def size(self, url: str) -> int:
        """Bytes of the whole object, in the version that is read."""
        return self.reader.size(url)

    def read(self, url: str, start: int, length: int, crc32: int | None = None) -> bytes:
        """Bytes [start, start + length), whose ``zlib.crc32`` is the one given, if one is.

        Raises DamagedError if the store gives other bytes ``READS`` times.
        """
        if self.cache is None:
            return self._fetch(url, start, length, crc32)
        return self.cache.get(
            block_key(url, self.reader.version(url), start, length),
            lambda: self._fetch(url, start, length, crc32),
            lambda data: len(data) == length and crc32 in (None, deflate_crc32(data)),
        )

    def _fetch(self, url: str, start: int, length: int, crc32: int | None) -> bytes:
        for again in range(READS):
            data = self.reader.read(url, start, length)
            if crc32 is None or deflate_crc32(data) == crc32:
                return data
            log.warning(
                "%s, bytes %d-%d: checksum mismatch, read %d of %d",
                url, start, start + length - 1, again + 1, READS,
            )  # fmt: skip
        raise DamagedError(f"{url}, bytes {start}-{start + length - 1}: checksum mismatch")
