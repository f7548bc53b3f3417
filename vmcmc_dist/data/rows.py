"""Rows of the data set, decoded: a thread pool that reads shards and one that decodes samples."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from vmcmc_dist.data import shards
from vmcmc_dist.data.manifest import Manifest


class Rows:
    """Random access to rows whose shards are at hand.

    With ``resident`` every decoded sample stays in memory, so it is read and decoded once;
    otherwise shards are held encoded, only while ``keep`` names them.
    """

    def __init__(self, manifest: Manifest, *, workers: int, verify: bool, resident: bool) -> None:
        self.manifest, self.verify, self.resident = manifest, verify, resident
        self.offsets = np.concatenate([[0], np.cumsum(manifest.counts)])
        self.workers = workers
        self._verified: set[int] = set()
        self._shards: dict[int, Future[list[shards.Encoded]]] = {}
        self._readers = ThreadPoolExecutor(max(1, workers), "vmcmc-read") if workers else None
        self._decoders = ThreadPoolExecutor(workers, "vmcmc-decode") if workers else None
        number = manifest.num_samples if resident else 0
        self._have = np.zeros(number, dtype=bool)
        self._x = np.empty((number, *manifest.shape), dtype=manifest.dtype)
        self._y = self._labels(number)
        self._source = self._sources(number)
        self._missing = manifest.counts.copy()

    def _labels(self, number: int) -> np.ndarray | None:
        labels = self.manifest.labels
        if labels.kind == "none":
            return None
        shape = (number,) if labels.width is None else (number, labels.width)
        return np.empty(shape, dtype=np.int64)

    def _sources(self, number: int) -> np.ndarray | None:
        shape = self.manifest.source_shape
        return None if shape is None else np.empty((number, *shape), dtype=self.manifest.dtype)

    def request(self, keep: Iterable[int]) -> None:
        """Start reading the shards in ``keep`` that are not at hand, and forget all others."""
        keep = set(keep)
        for shard in [s for s in self._shards if s not in keep and not self.resident]:
            self._shards.pop(shard).cancel()
        for shard in sorted(keep - self._shards.keys()):
            if not (self.resident and self._missing[shard] == 0):
                self._shards[shard] = self._read(shard)

    def _read(self, shard: int) -> Future[list[shards.Encoded]]:
        verify = self.verify and shard not in self._verified
        self._verified.add(shard)
        if self._readers is not None:
            return self._readers.submit(shards.read_shard, self.manifest, shard, verify=verify)
        future: Future[list[shards.Encoded]] = Future()
        future.set_result(shards.read_shard(self.manifest, shard, verify=verify))
        return future

    def fetch(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
        """Rows int64 [B], of requested shards → x [B, *shape], labels int64 [B(, A)] or None, and
        the input images of pairs [B, *source_shape] or None.
        """
        if not self.resident:
            x = np.empty((len(rows), *self.manifest.shape), dtype=self.manifest.dtype)
            y, source = self._labels(len(rows)), self._sources(len(rows))
            self._decode(rows, x, y, source, np.arange(len(rows)))
            return x, y, source
        wanted = np.unique(rows[~self._have[rows]])
        if len(wanted):
            self._decode(wanted, self._x, self._y, self._source, wanted)
            self._have[wanted] = True
            touched = np.searchsorted(self.offsets, wanted, side="right") - 1
            np.subtract.at(self._missing, touched, 1)
            for shard in np.unique(touched):
                if self._missing[shard] == 0:
                    self._shards.pop(int(shard), None)
        return (
            self._x[rows],
            None if self._y is None else self._y[rows],
            None if self._source is None else self._source[rows],
        )

    def _decode(
        self,
        rows: np.ndarray,
        x: np.ndarray,
        y: np.ndarray | None,
        source: np.ndarray | None,
        places: np.ndarray,
    ) -> None:
        shard_of = np.searchsorted(self.offsets, rows, side="right") - 1
        at_hand = {int(s): self._shards[int(s)].result() for s in np.unique(shard_of)}

        def work(part: range) -> None:
            for i in part:
                shard = int(shard_of[i])
                sample = at_hand[shard][int(rows[i] - self.offsets[shard])]
                path = self.manifest.path(shard)
                x[places[i]] = shards.decode(path, sample, self.manifest.shape)
                if y is not None:
                    y[places[i]] = sample.label
                if source is not None and sample.source is not None:
                    shape = source.shape[1:]
                    source[places[i]] = shards.decode(path, sample.source, shape)

        if self._decoders is None or len(rows) < 2:
            work(range(len(rows)))
            return
        parts = [range(w, len(rows), self.workers) for w in range(self.workers)]
        for _ in self._decoders.map(work, parts):
            pass

    def close(self) -> None:
        """Stop the threads; reads under way end in the background."""
        for pool in (self._readers, self._decoders):
            if pool is not None:
                pool.shutdown(wait=False, cancel_futures=True)
