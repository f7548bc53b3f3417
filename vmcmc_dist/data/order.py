"""The order of an epoch, in closed form: a function of (seed, epoch) and the shards' counts alone.

1. shards are permuted by rng(seed, epoch);
2. dealt like cards into C streams, C = min(streams, number of shards);
3. within a stream, each group of ``shuffle_shards`` shards is shuffled together by
   rng(seed, epoch, stream, group);
4. the epoch takes one sample from each stream in turn; a stream that ends drops out.

Nothing here knows ranks, batches or threads, so every reader agrees on what sample p is, and
finding it reads nothing.
"""

from __future__ import annotations

from collections import OrderedDict

import numpy as np


def rng(seed: int, *path: int) -> np.random.Generator:
    """An independent generator for every (seed, *path)."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, *path])))


def coin_flips(seed: int, index: np.ndarray) -> np.ndarray:
    """One fair bit per global sample index: bool [B], by the splitmix64 finaliser."""
    with np.errstate(over="ignore"):
        x = index.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        x ^= np.uint64(rng(seed, 0xF11B).integers(2**63))
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((x ^ (x >> np.uint64(31))) & np.uint64(1)).astype(bool)


class EpochOrder:
    """Which row of the data set stands at each position of one epoch.

    Rows number the samples in the manifest's order. Shapes: ``counts`` int64 [S];
    ``rows(positions)`` int64 [B] → int64 [B], positions in [0, sum(counts)).
    """

    def __init__(
        self,
        counts: np.ndarray,
        *,
        seed: int,
        epoch: int,
        streams: int,
        shuffle_shards: int,
        shuffle: bool = True,
    ) -> None:
        self.seed, self.epoch, self.shuffle = seed, epoch, shuffle
        self.counts = np.asarray(counts, dtype=np.int64)
        self.offsets = np.concatenate([[0], np.cumsum(self.counts)])
        self.length = int(self.offsets[-1])
        number = len(self.counts)
        if not shuffle:
            streams, shuffle_shards = 1, 1
        shards = rng(seed, epoch).permutation(number) if shuffle else np.arange(number)
        streams = min(streams, number)
        self.groups = [
            [dealt[i : i + shuffle_shards] for i in range(0, len(dealt), shuffle_shards)]
            for dealt in (shards[c::streams] for c in range(streams))
        ]
        self._group_ends = [
            np.cumsum([self.counts[group].sum() for group in groups]) for groups in self.groups
        ]
        self._round_robin(np.array([ends[-1] for ends in self._group_ends], dtype=np.int64))
        self._rows: OrderedDict[tuple[int, int], np.ndarray] = OrderedDict()

    def _round_robin(self, lengths: np.ndarray) -> None:
        """Tables for position → (stream, place in stream), with F(r) = Σ_c min(L_c, r).

        Between two consecutive distinct lengths the set of live streams is constant.
        """
        starts = np.unique(np.concatenate([[0], lengths]))[:-1]
        self._rounds = starts
        self._positions = np.array([np.minimum(lengths, r).sum() for r in starts])
        self._live = [np.flatnonzero(lengths > r) for r in starts]

    def locate(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Position in the epoch → (stream, place within the stream), int64 [B] each."""
        phase = np.searchsorted(self._positions, positions, side="right") - 1
        stream = np.empty(len(positions), dtype=np.int64)
        place = np.empty(len(positions), dtype=np.int64)
        for k in np.unique(phase):
            here = phase == k
            live = self._live[k]
            turn, seat = np.divmod(positions[here] - self._positions[k], len(live))
            stream[here] = live[seat]
            place[here] = self._rounds[k] + turn
        return stream, place

    def group_rows(self, stream: int, group: int) -> np.ndarray:
        """The rows of one group in the order in which they are taken, int64."""
        key = (stream, group)
        if key not in self._rows:
            shards = self.groups[stream][group]
            rows = np.concatenate(
                [np.arange(self.offsets[s], self.offsets[s + 1], dtype=np.int64) for s in shards]
            )
            if self.shuffle:
                rows = rng(self.seed, self.epoch, stream, group).permutation(rows)
            self._rows[key] = rows
            if len(self._rows) > 2 * len(self.groups):
                self._rows.popitem(last=False)
        self._rows.move_to_end(key)
        return self._rows[key]

    def rows(self, positions: np.ndarray) -> tuple[np.ndarray, list[tuple[int, int, bool]]]:
        """Positions → rows int64 [B], and the groups they lie in as (stream, group, past half)."""
        streams, places = self.locate(positions)
        rows = np.empty(len(positions), dtype=np.int64)
        touched = []
        for c in np.unique(streams):
            of_stream = streams == c
            ends = self._group_ends[c]
            group_of = np.searchsorted(ends, places[of_stream], side="right")
            taken = np.empty(len(group_of), dtype=np.int64)
            for g in np.unique(group_of):
                start = ends[g - 1] if g else 0
                inside = places[of_stream][group_of == g] - start
                order = self.group_rows(int(c), int(g))
                taken[group_of == g] = order[inside]
                touched.append((int(c), int(g), bool(2 * inside[-1] >= len(order))))
            rows[of_stream] = taken
        return rows, touched
