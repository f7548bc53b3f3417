"""A stream's bytes: ranged reads, behind a cache of this machine if there is one."""

from __future__ import annotations

from vmcmc_dist.data.storage.client import Stats
from vmcmc_dist.data.storage.ranges import RangeReader
from vmcmc_dist.data.storage.retry import RetryPolicy


class Source:
    """What :class:`vmcmc_dist.data.blocks.Blocks` reads from; thread-safe."""

    def __init__(self, *, retry_s: float, stall_s: float) -> None:
        self.reader = RangeReader(RetryPolicy(seconds=retry_s), stall_s=stall_s)

    @property
    def stats(self) -> Stats:
        """Of the store, since the start."""
        return self.reader.stats

    def size(self, url: str) -> int:
        """Bytes of the whole object, in the version that is read."""
        return self.reader.size(url)

    def read(self, url: str, start: int, length: int, *, fresh: bool = False) -> bytes:
        """Bytes [start, start + length); ``fresh`` passes over the cache and renews it."""
        return self.reader.read(url, start, length)
