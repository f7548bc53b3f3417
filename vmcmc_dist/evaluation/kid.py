"""Kernel distance of two sets of features (Bińkowski et al. 2018): unbiased at every n."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vmcmc_dist.errors import DataError

SUBSETS, SUBSET_SIZE = 100, 1000


def polynomial_kernel(x: Tensor, y: Tensor) -> Tensor:
    """k(x, y) = (x·y / D + 1)³ of x [N, D] and y [M, D]: [N, M]."""
    return (x @ y.T / x.shape[1] + 1) ** 3


def squared_mmd(x: Tensor, y: Tensor) -> float:
    """Unbiased squared maximum mean discrepancy of x [N, D] and y [M, D].

        Σ_{i≠j} k(xᵢ,xⱼ) / N(N−1) + Σ_{i≠j} k(yᵢ,yⱼ) / M(M−1) − 2 Σ_{ij} k(xᵢ,yⱼ) / NM

    Zero in expectation where both come from one distribution, so it may be negative.
    (Gretton et al. 2012, lemma 6.)
    """
    n, m = len(x), len(y)
    within_x, within_y = polynomial_kernel(x, x), polynomial_kernel(y, y)
    between = polynomial_kernel(x, y).sum() / (n * m)
    alike_x = (within_x.sum() - within_x.diagonal().sum()) / (n * (n - 1))
    alike_y = (within_y.sum() - within_y.diagonal().sum()) / (m * (m - 1))
    return (alike_x + alike_y - 2 * between).item()


def kernel_distance(
    x: Tensor, y: Tensor, subsets: int = SUBSETS, size: int = SUBSET_SIZE, seed: int = 0
) -> tuple[float, float]:
    """Mean and standard deviation of ``squared_mmd`` over random subsets, drawn by ``seed``.

    Subsets hold ``size`` samples of each side, or all of the smaller side where it has fewer.

    DataError: fewer than two samples on a side.
    """
    if min(len(x), len(y)) < 2:
        raise DataError(
            f"a kernel distance needs at least 2 samples on each side, got {len(x)} and {len(y)}"
        )
    size = min(size, len(x), len(y))
    if size == len(x) == len(y):
        subsets = 1
    x, y = x.double(), y.double()
    rng = torch.Generator().manual_seed(seed)
    values = [
        squared_mmd(
            x[torch.randperm(len(x), generator=rng)[:size]],
            y[torch.randperm(len(y), generator=rng)[:size]],
        )
        for _ in range(subsets)
    ]
    mean = math.fsum(values) / subsets
    return mean, math.sqrt(math.fsum((v - mean) ** 2 for v in values) / subsets)
