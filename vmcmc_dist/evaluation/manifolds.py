"""Fidelity and diversity apart: is each sample near the data, is all data near a sample?

Each set is taken for the union of balls around its points that reach to the k-th neighbour.
Distances are made a few rows at a time, so memory stays at CHUNK × N.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from vmcmc_dist.errors import DataError

CHUNK = 1000
PRECISION_K, DENSITY_K = 3, 5


@dataclass(frozen=True)
class Manifolds:
    """How two sets of features lie in each other.

    Attributes:
        precision: share of samples inside some real ball (Kynkäänniemi et al. 2019, eq. 2), k = 3.
        recall: share of real images inside some sample's ball, k = 3.
        density: real balls around a sample / k, mean (Naeem et al. 2020, eq. 3), k = 5; may be > 1.
        coverage: share of real balls that hold a sample (their eq. 4), k = 5.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def manifolds(
    samples: Tensor, real: Tensor, precision_k: int = PRECISION_K, density_k: int = DENSITY_K
) -> Manifolds:
    """Precision, recall, density and coverage of samples [N, D] against real features [M, D].

    Depends on N and M: compare numbers of equal ones. DataError: too few for k neighbours.
    """
    needed = max(precision_k, density_k) + 1
    if min(len(samples), len(real)) < needed:
        raise DataError(
            f"nearest neighbours need at least {needed} samples on each side, got "
            f"{len(samples)} and {len(real)}"
        )
    samples, real = samples.double(), real.double()
    real_radii = _radii(real, (precision_k, density_k))
    sample_radius = _radii(samples, (precision_k,))[0]
    precise = held = 0
    recalled = torch.zeros(len(real), dtype=torch.bool)
    covered = torch.zeros(len(real), dtype=torch.bool)
    for rows, distance in _distances(samples, real):
        precise += int((distance <= real_radii[0]).any(1).sum())
        inside = distance <= real_radii[1]
        held += int(inside.sum())
        covered |= inside.any(0)
        recalled |= (distance <= sample_radius[rows, None]).any(0)
    return Manifolds(
        precision=precise / len(samples),
        recall=recalled.double().mean().item(),
        density=held / (density_k * len(samples)),
        coverage=covered.double().mean().item(),
    )


def _radii(x: Tensor, ks: tuple[int, ...]) -> list[Tensor]:
    """Distance from each point to its k-th nearest other point, for each k: [N]."""
    nearest = []
    for rows, distance in _distances(x, x):
        here = torch.arange(len(x))[rows]
        distance[torch.arange(len(here)), here] = torch.inf
        nearest.append(distance.topk(max(ks), largest=False).values)
    found = torch.cat(nearest)
    return [found[:, k - 1] for k in ks]


def _distances(x: Tensor, y: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Rows of |xᵢ − yⱼ| as (rows of x, [≤ CHUNK, M])."""
    for start in range(0, len(x), CHUNK):
        rows = slice(start, start + CHUNK)
        yield rows, torch.cdist(x[rows], y)
