"""The order of an epoch, in closed form: a function of (seed, epoch) and the block table alone.

1. blocks (runs of some samples, see index.py) are permuted by rng(seed, epoch);
2. dealt like cards into C streams, C = min(streams, number of blocks);
3. within a stream, each window of ``shuffle_blocks`` blocks is shuffled together by
   rng(seed, epoch, stream, window); the first windows of an epoch hold 1, 2, 4, … blocks, so that
   its first batch is soon there;
4. the epoch takes one sample from each stream in turn; a stream that ends drops out.

Nothing here knows ranks, batches, threads or shards at hand, so every reader agrees on what sample
p is, and finding it reads nothing.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from itertools import pairwise
from typing import NamedTuple

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


def offsets_of(counts: np.ndarray) -> np.ndarray:
    """First row of each block, and the number of all rows: int64 [K + 1]."""
    offsets = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(counts, out=offsets[1:])
    return offsets


class Place(NamedTuple):
    """Where a position of the epoch lies: window of a stream, and how far into it."""

    stream: int
    window: int
    offset: int


class Reach(NamedTuple):
    """What positions touch of one stream: its windows first … last, and the last place in it."""

    stream: int
    first: int
    last: int
    place: int


class EpochOrder:
    """Which row of the data set stands at each position of one epoch.

    Rows number the samples in the manifest's order. Shapes: ``counts`` integers [K], the samples
    of each block; ``rows(positions)`` int64 [B] → int64 [B], positions in [0, sum(counts)).
    """

    def __init__(
        self,
        counts: np.ndarray,
        *,
        seed: int,
        epoch: int,
        streams: int,
        shuffle_blocks: int,
        shuffle: bool = True,
    ) -> None:
        self.seed, self.epoch, self.shuffle = seed, epoch, shuffle
        number = len(counts)
        self.offsets = offsets_of(counts)
        self.length = int(self.offsets[-1])
        if not shuffle:
            streams, shuffle_blocks = 1, 1
        blocks = rng(seed, epoch).permutation(number) if shuffle else np.arange(number)
        streams = min(streams, number)
        self._blocks = [blocks[c::streams] for c in range(streams)]
        self._starts = [window_starts(len(dealt), shuffle_blocks) for dealt in self._blocks]
        self._ends = [
            np.cumsum(np.add.reduceat(counts[dealt], starts, dtype=np.int64))
            for dealt, starts in zip(self._blocks, self._starts, strict=True)
        ]
        self._round_robin(np.array([ends[-1] for ends in self._ends], dtype=np.int64))
        self._rows: OrderedDict[tuple[int, int], np.ndarray] = OrderedDict()

    @property
    def streams(self) -> int:
        """Number of streams, C."""
        return len(self._blocks)

    def windows(self, stream: int) -> int:
        """Number of windows of a stream."""
        return len(self._starts[stream])

    def blocks(self, stream: int, window: int, end: int | None = None) -> np.ndarray:
        """The blocks of a window, or of all windows from it to ``end`` (exclusive); int64."""
        starts = self._starts[stream]
        if window >= len(starts):
            return self._blocks[stream][:0]
        end = window + 1 if end is None else end
        return self._blocks[stream][starts[window] : starts[end] if end < len(starts) else None]

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

    def window_of(self, stream: int, place: int) -> int:
        """The window that holds a place of a stream; the number of windows if none does."""
        return bisect_right(self._ends[stream], place)

    def length_of(self, stream: int, window: int) -> int:
        """Samples in a window."""
        ends = self._ends[stream]
        return int(ends[window] - (ends[window - 1] if window else 0))

    def left_after(self, stream: int, place: int) -> int:
        """Samples of a stream that come after a place."""
        return int(self._ends[stream][-1]) - place - 1

    def place(self, position: int) -> Place:
        """The window that one position lies in."""
        stream, place = (int(a[0]) for a in self.locate(np.array([position])))
        window = self.window_of(stream, place)
        return Place(stream, window, place - (int(self._ends[stream][window - 1]) if window else 0))

    def window_rows(self, stream: int, window: int) -> np.ndarray:
        """The rows of one window in the order in which they are taken, int64."""
        key = (stream, window)
        if key not in self._rows:
            rows = np.concatenate(
                [
                    np.arange(self.offsets[b], self.offsets[b + 1], dtype=np.int64)
                    for b in self.blocks(stream, window)
                ]
            )
            if self.shuffle:
                rows = rng(self.seed, self.epoch, stream, window).permutation(rows)
            self._rows[key] = rows
            if len(self._rows) > 2 * self.streams:
                self._rows.popitem(last=False)
        self._rows.move_to_end(key)
        return self._rows[key]

    def rows(self, positions: np.ndarray) -> tuple[np.ndarray, list[Reach]]:
        """Ascending positions → rows int64 [B], and what they touch of each stream."""
        streams, places = self.locate(positions)
        by_stream = np.argsort(streams, kind="stable")
        streams, places = streams[by_stream], places[by_stream]
        found = np.empty(len(positions), dtype=np.int64)
        touched = []
        cuts = [*np.flatnonzero(np.diff(streams, prepend=-1)).tolist(), len(streams)]
        for start, stop in pairwise(cuts):
            stream, last_place = int(streams[start]), int(places[stop - 1])
            ends = self._ends[stream]
            first = window = self.window_of(stream, int(places[start]))
            while True:
                base = int(ends[window - 1]) if window else 0
                upto = stop
                if last_place >= ends[window]:
                    upto = start + int(np.searchsorted(places[start:stop], ends[window]))
                rows = self.window_rows(stream, window)
                found[start:upto] = rows[places[start:upto] - base]
                if upto == stop:
                    break
                start, window = upto, window + 1
            touched.append(Reach(stream, first, window, last_place))
        ordered = np.empty_like(found)
        ordered[by_stream] = found
        return ordered, touched


def window_starts(blocks: int, shuffle_blocks: int) -> np.ndarray:
    """First block of each window of a stream: windows of 1, 2, 4, …, K, K, … blocks."""
    sizes = [1]
    while sizes[-1] < shuffle_blocks:
        sizes.append(min(2 * sizes[-1], shuffle_blocks))
    ramp = np.cumsum([0, *sizes[:-1]])
    rest = np.arange(ramp[-1] + sizes[-1], max(blocks, 1), shuffle_blocks)
    starts = np.concatenate([ramp, rest])
    return starts[starts < max(blocks, 1)]
