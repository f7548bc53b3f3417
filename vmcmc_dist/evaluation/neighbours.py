"""Exact nearest neighbours in a data set that is read in batches.

found = nearest(queries, (batch.x for batch in real_batches(data, "train")), k=3)
found.distance[:, 0], found.row[:, 0]         # of the closest, [Q] each
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from vmcmc_dist.errors import DataError

CANCELS = 1e-6  # of the sum of both norms, squared: what is less has lost half of its digits
COLUMNS = 16_384  # dimensions that are held in float64 at a time
QUANTILE = 0.01
ENOUGH = 100  # values below which no 1 % quantile is taken


@dataclass(frozen=True)
class Nearest:
    """For each query its k closest points, in order.

    Attributes:
        distance: L2, float64 [Q, k], ascending.
        row: int64 [Q, k], the points' places in the order in which they came.
    """

    distance: Tensor
    row: Tensor

    def without_itself(self) -> Nearest:
        """For queries that are points of the data set: the neighbours beside their own copy."""
        return Nearest(self.distance[:, 1:], self.row[:, 1:])

    def __getitem__(self, rows: slice) -> Nearest:
        return Nearest(self.distance[rows], self.row[rows])


def nearest(queries: Tensor, batches: Iterable[Tensor], k: int) -> Nearest:
    """The k closest of all points [N, …], given in batches [B, …], to each query [Q, …].

    Every pair is compared, in float64, and a distance is good to 1e-7 of itself. Memory: one batch,
    the queries, and Q × (k + B) distances.
    DataError: fewer than k points, or points of another size.
    """
    flat = queries.flatten(1)
    distance = torch.empty(len(flat), 0, dtype=torch.float64)
    row = torch.empty(len(flat), 0, dtype=torch.int64)
    seen = 0
    for batch in batches:
        points = batch.flatten(1)
        if points.shape[1] != flat.shape[1]:
            raise DataError(
                f"neighbours are of one size: queries have {flat.shape[1]} values, the data "
                f"{points.shape[1]}"
            )
        here = squared_distances(flat, points)
        rows = torch.arange(seen, seen + len(points)).expand(len(flat), -1)
        distance, row = torch.cat([distance, here], 1), torch.cat([row, rows], 1)
        distance, order = distance.topk(min(k, distance.shape[1]), dim=1, largest=False)
        row, seen = row.gather(1, order), seen + len(points)
    if seen < k:
        raise DataError(f"{k} neighbours were asked for, but there are {seen} points")
    return Nearest(distance.sqrt(), row)


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """|a_i − b_j|², float64 [A, B], of a [A, D] and b [B, D].

    |a|² + |b|² − 2 a·b, ``COLUMNS`` dimensions at a time; where that nearly cancels (near copies),
    the sum of (a − b)² itself.
    """
    total, norms = (torch.zeros(len(a), len(b), dtype=torch.float64) for _ in range(2))
    parts = [slice(start, start + COLUMNS) for start in range(0, a.shape[1], COLUMNS)]
    for part in parts:
        x, y = a[:, part].double(), b[:, part].double()
        both = x.square().sum(1)[:, None] + y.square().sum(1)[None]
        norms += both
        total += both - 2 * x @ y.T
    near = total < CANCELS * norms
    for i in near.any(1).nonzero()[:, 0].tolist():
        copies = b[near[i]]
        gaps = [(a[i, part].double() - copies[:, part].double()).square().sum(1) for part in parts]
        total[i, near[i]] = torch.stack(gaps).sum(0)
    return total


@dataclass(frozen=True)
class Closeness:
    """Are samples nearer to the training data than new data are?

    Attributes:
        samples, held_out: medians of the distance to the nearest training point.
        ratio: the first over the second; ≈ 1 as new data, ≪ 1 as copies.
        closer: share of samples nearer than the 1 % quantile of held-out data; 0.01 as new data.
    """

    samples: float
    held_out: float
    ratio: float
    closer: float


def closeness(samples: Tensor, held_out: Tensor) -> Closeness:
    """From the distances to the nearest training point, [N] and [M].

    DataError: fewer than 100 held-out distances, or a median of 0 among them.
    """
    if len(held_out) < ENOUGH:
        raise DataError(
            f"the {QUANTILE:.0%} quantile of held-out distances needs at least {ENOUGH} of them, "
            f"got {len(held_out)}: take n ≥ {ENOUGH}, or data with more held out"
        )
    middle = held_out.median().item()
    if middle == 0:
        raise DataError("half of the held-out data are in the training data too")
    bound = held_out.double().quantile(QUANTILE)
    mine = samples.median().item()
    closer = (samples < bound).double().mean().item()
    return Closeness(mine, middle, mine / middle, closer)
