"""How well an epoch is shuffled, beside a perfect shuffle, and the memory that it costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vmcmc_dist.data import index
from vmcmc_dist.data.config import DataConfig
from vmcmc_dist.data.manifest import Manifest
from vmcmc_dist.data.order import EpochOrder
from vmcmc_dist.data.shard_info import ShardInfo
from vmcmc_dist.data.stream import memory_bound

WINDOWS = ((24, 1), (24, 2), (24, 4), (24, 8), (24, 16), (8, 4), (96, 4))
"""Streams and blocks per window that are compared."""


@dataclass(frozen=True)
class Quality:
    """What an order does to its data set.

    Samples that were neighbours in the data set (rows i and i + 1):
    distance_mean, distance_median   in positions of the epoch
    closer_than_batch                share of them less than one batch apart
    serial_correlation               of the rows at positions t and t + 1
    Within a batch:
    same_block                       share of pairs that come from one block
    chi_square                       Σ_c (n_c − B·p_c)² / (B·p_c) of its class counts n_c, mean
    """

    distance_mean: float
    distance_median: float
    closer_than_batch: float
    serial_correlation: float
    same_block: float
    chi_square: float


def quality(rows: np.ndarray, counts: np.ndarray, classes: np.ndarray, batch: int) -> Quality:
    """Quality of an order: rows int64 [N] by position, counts [K] of the blocks, classes [N] of
    the rows.
    """
    number = len(rows)
    position = np.empty(number, dtype=np.int64)
    position[rows] = np.arange(number)
    distance = np.abs(np.diff(position))
    whole = number // batch * batch
    block_of = np.repeat(np.arange(len(counts)), counts)
    blocks = np.sort(block_of[rows[:whole]].reshape(-1, batch), axis=1)
    together = (_runs(blocks) / (batch * (batch - 1))).mean()
    share = np.bincount(classes) / number
    batches = np.repeat(np.arange(whole // batch), batch)
    table = np.zeros((whole // batch, len(share)))
    np.add.at(table, (batches, classes[rows[:whole]]), 1)
    expected = batch * share[share > 0]
    chi_square = ((table[:, share > 0] - expected) ** 2 / expected).sum(1).mean()
    return Quality(
        float(distance.mean()),
        float(np.median(distance)),
        float((distance < batch).mean()),
        float(np.corrcoef(rows[:-1], rows[1:])[0, 1]),
        float(together),
        float(chi_square),
    )


def _runs(ordered: np.ndarray) -> np.ndarray:
    """Σ n·(n − 1) over the runs of equal values in each row of [B', B]."""
    number, width = ordered.shape
    values = (ordered + np.arange(number)[:, None] * (ordered.max() + 1)).ravel()
    starts = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]]))
    lengths = np.diff(np.concatenate([starts, [values.size]]))
    return np.bincount(starts // width, lengths * (lengths - 1), minlength=number)


def perfect(counts: np.ndarray, classes: np.ndarray, batch: int) -> Quality:
    """What a uniformly random permutation comes to, in closed form.

    N samples: distances have mean (N + 1)/3 and median N·(1 − 1/√2), less than B with
    probability (B − 1)(2N − B)/(N(N − 1)); two of a batch share a block with Σ n_k(n_k − 1)/
    (N(N − 1)); class counts are hypergeometric, so χ² is (C − 1)(N − B)/(N − 1).
    """
    n = int(counts.sum())
    present = int(np.count_nonzero(np.bincount(classes)))
    sizes = counts.astype(np.float64)
    return Quality(
        (n + 1) / 3,
        n * (1 - 0.5**0.5),
        (batch - 1) * (2 * n - batch) / (n * (n - 1)),
        -1 / (n - 1),
        float((sizes * (sizes - 1)).sum() / (n * (n - 1))),
        (present - 1) * (n - batch) / (n - 1),
    )


@dataclass(frozen=True)
class Row:
    """One setting: its quality, and the bytes of encoded blocks that a reader holds at the most."""

    streams: int
    shuffle_blocks: int
    memory: int
    quality: Quality


@dataclass(frozen=True)
class ShuffleBench:
    """Settings side by side. ``str()`` is a markdown table of ratios to a perfect shuffle."""

    samples: int
    blocks: int
    shards: int
    classes: int
    batch: int
    world_size: int
    perfect: Quality
    rows: list[Row]

    def __str__(self) -> str:
        lines = [
            f"{self.samples:,} samples in {self.blocks:,} blocks of {self.shards:,} shards, sorted "
            f"into {self.classes} classes; global batch {self.batch}, {self.world_size} "
            f"reader{'s' if self.world_size > 1 else ''}; × a perfect shuffle, one epoch",
            "",
            "| data.streams | data.shuffle_blocks | memory per reader "
            "| distance of neighbours: mean | median | closer than a batch | pairs of one block "
            "| χ² of classes | serial correlation |",
            "|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
        ]
        best = self.perfect
        for row in self.rows:
            q = row.quality
            lines.append(
                f"| {row.streams} | {row.shuffle_blocks} | {row.memory / 2**20:.0f} MiB "
                f"| {q.distance_mean / best.distance_mean:.3f} "
                f"| {q.distance_median / best.distance_median:.3f} "
                f"| {q.closer_than_batch / best.closer_than_batch:.2f} "
                f"| {q.same_block / best.same_block:.2f} | {q.chi_square / best.chi_square:.3f} "
                f"| {q.serial_correlation:+.4f} |"
            )
        lines.append(
            f"| perfect | | | {best.distance_mean:,.0f} | {best.distance_median:,.0f} "
            f"| {best.closer_than_batch:.2g} | {best.same_block:.2g} | {best.chi_square:.2f} "
            f"| {best.serial_correlation:+.4f} |"
        )
        return "\n".join(lines)


def bench_shuffle(
    manifest: Manifest,
    settings: Sequence[tuple[int, int]] = WINDOWS,
    *,
    batch: int = 256,
    world_size: int = 1,
    classes: int = 10,
    seed: int = 0,
) -> ShuffleBench:
    """Quality of the epoch order of a manifest at several (streams, shuffle_blocks).

    The data set is taken to be sorted by class, ``classes`` of equal size: the hardest case.
    Nothing is read; seconds per million samples.
    """
    counts = manifest.blocks["count"].astype(np.int64)
    number = int(counts.sum())
    labels = np.arange(number) * classes // number
    rows = []
    for streams, window in settings:
        order = EpochOrder(counts, seed=seed, epoch=0, streams=streams, shuffle_blocks=window)
        cfg = DataConfig(streams=streams, shuffle_blocks=window)
        rows.append(
            Row(
                streams,
                window,
                memory_bound(manifest, cfg, world_size),
                quality(epoch_rows(order), counts, labels, batch),
            )
        )
    return ShuffleBench(
        number,
        len(counts),
        len(manifest.shards),
        classes,
        batch,
        world_size,
        perfect(counts, labels, batch),
        rows,
    )


def epoch_rows(order: EpochOrder, at_once: int = 1 << 16) -> np.ndarray:
    """The rows of a whole epoch, int64 [N]."""
    starts = range(0, order.length, at_once)
    parts = [order.rows(np.arange(s, min(s + at_once, order.length)))[0] for s in starts]
    return np.concatenate(parts)


def made_up_manifest(shards: int, samples: int, sample_bytes: int) -> Manifest:
    """A data set that is not there: ``shards`` tars of ``samples`` samples each, in blocks."""
    per_block = max(1, index.BLOCK_BYTES // sample_bytes)
    first = np.arange(0, samples, per_block)
    one = np.zeros(len(first), dtype=index.DTYPE)
    one["count"] = np.minimum(per_block, samples - first)
    one["start"] = first * sample_bytes
    one["bytes"] = one["count"].astype(np.int64) * sample_bytes
    blocks = np.tile(one, shards)
    blocks["shard"] = np.repeat(np.arange(shards), len(first))
    tar_bytes = samples * sample_bytes + 1024
    infos = tuple(
        ShardInfo(f"shard-{s:06d}.tar", samples, tar_bytes, f"{s:064x}") for s in range(shards)
    )
    return Manifest("made up", (3, 64, 64), "uint8", infos, blocks=blocks, base="nowhere")
