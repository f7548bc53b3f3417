"""Blocks at hand: fetched ahead by threads, checked, and split into encoded samples."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from vmcmc_dist.data.manifest import Manifest
from vmcmc_dist.data.samples import Bad, Encoded, split_block
from vmcmc_dist.data.storage.source import DamagedError, Source
from vmcmc_dist.errors import DataError


class Blocks:
    """The blocks that are in use or soon will be; others are forgotten.

    All samples of a block whose bytes are not those of the block table are Bad. Raises DataError
    for shards that are missing or of another size than the manifest says.
    """

    def __init__(self, manifest: Manifest, source: Source, *, readers: int, verify: bool) -> None:
        self.manifest, self.source, self.verify = manifest, source, verify
        self._paths = [manifest.path(s) for s in range(len(manifest.shards))]
        self._sized: set[int] = set()
        self._held: dict[int, Future[Sequence[Encoded | Bad]]] = {}
        self._ready: dict[int, Sequence[Encoded | Bad]] = {}
        self._pool = ThreadPoolExecutor(readers, "vmcmc-read") if readers else None

    def request(self, wanted: Iterable[int]) -> None:
        """Start to fetch the blocks of ``wanted``, in this order, and forget all others."""
        ordered = list(dict.fromkeys(wanted))
        keep = set(ordered)
        for block in [b for b in self._held if b not in keep]:
            self._held.pop(block).cancel()
            self._ready.pop(block, None)
        for block in ordered:
            if block not in self._held:
                self._held[block] = self._start(block)

    def _start(self, block: int) -> Future[Sequence[Encoded | Bad]]:
        if self._pool is not None:
            return self._pool.submit(self.load, block)
        future: Future[Sequence[Encoded | Bad]] = Future()
        future.set_result(self.load(block))
        return future

    def samples(self, block: int) -> Sequence[Encoded | Bad]:
        """The samples of a requested block."""
        found = self._ready.get(block)  # asked for by every batch
        if found is None:
            found = self._ready[block] = self._held[block].result()
        return found

    def held_bytes(self) -> int:
        """Bytes of the blocks that are held or under way."""
        return int(self.manifest.blocks["bytes"][list(self._held)].sum())

    def shard(self, block: int) -> str:
        """Path or URL of the shard that a block lies in."""
        return self._paths[self.manifest.blocks["shard"][block]]

    def load(self, block: int) -> Sequence[Encoded | Bad]:
        """Fetch one block now."""
        entry = self.manifest.blocks[block]
        shard, count = int(entry["shard"]), int(entry["count"])
        start, length = int(entry["start"]), int(entry["bytes"])
        path = self._paths[shard]
        try:
            data = self.source.read(
                path, start, length, int(entry["crc32"]) if self.verify else None
            )
        except DamagedError:
            return [Bad(f"number {i} of a block", "checksum mismatch") for i in range(count)]
        finally:
            self._check_size(shard)
        return split_block(
            data, path, count, self.manifest.labels, pairs=self.manifest.source_shape is not None
        )

    def _check_size(self, shard: int) -> None:
        if shard in self._sized:
            return
        found, stated = self.source.size(self._paths[shard]), self.manifest.shards[shard].bytes
        if found != stated:
            raise DataError(
                f"{self._paths[shard]}: {found} bytes, the manifest says {stated}: torn or "
                "overwritten; copy it again or prepare the data again"
            )
        self._sized.add(shard)

    def close(self) -> None:
        """Stop the threads; reads under way end in the background, without another try."""
        self.source.close()
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
