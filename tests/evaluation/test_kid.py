"""The kernel distance against double loops, and against its value for Gaussians on a line."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from vmcmc_dist.errors import DataError
from vmcmc_dist.evaluation.kid import kernel_distance, squared_mmd


def normal(n: int, dim: int, seed: int, shift: float = 0.0, scale: float = 1.0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(shift + scale * rng.standard_normal((n, dim)))


def mmd_by_loops(x: np.ndarray, y: np.ndarray) -> float:
    def k(a, b):
        return (float(np.dot(a, b)) / len(a) + 1) ** 3

    n, m = len(x), len(y)
    same_x = sum(k(x[i], x[j]) for i, j in itertools.permutations(range(n), 2)) / (n * (n - 1))
    same_y = sum(k(y[i], y[j]) for i, j in itertools.permutations(range(m), 2)) / (m * (m - 1))
    across = sum(k(a, b) for a in x for b in y) / (n * m)
    return same_x + same_y - 2 * across


def test_equals_double_loops():
    x, y = normal(13, 4, 0), normal(9, 4, 1, shift=0.5)
    assert squared_mmd(x, y) == pytest.approx(mmd_by_loops(x.numpy(), y.numpy()), rel=1e-10)
    assert kernel_distance(x, x + 1, size=20) == pytest.approx(
        (mmd_by_loops(x.numpy(), x.numpy() + 1), 0)
    )


def test_gaussians_on_a_line_have_the_distance_of_their_moments():
    """(xy + 1)³ = x³y³ + 3x²y² + 3xy + 1, so MMD² = Δ₃² + 3Δ₂² + 3Δ₁² of the raw moments."""
    mean, scale = 0.6, 1.3
    first, second, third = mean, mean**2 + scale**2, mean**3 + 3 * mean * scale**2
    expected = (third - 0) ** 2 + 3 * (second - 1) ** 2 + 3 * (first - 0) ** 2
    x = torch.special.ndtri((torch.arange(1500).double()[:, None] + 0.5) / 1500)  # quantiles
    y = mean + scale * x
    assert kernel_distance(x, y, size=1500)[0] == pytest.approx(expected, rel=0.02)


def test_it_is_unbiased_where_a_plug_in_is_not():
    values = [squared_mmd(normal(20, 3, 2 * s), normal(20, 3, 2 * s + 1)) for s in range(400)]
    error = np.std(values) / len(values) ** 0.5
    assert abs(np.mean(values)) < 3 * error and min(values) < 0


def test_subsets_give_a_spread_and_follow_the_seed():
    x, y = normal(300, 2, 0), normal(200, 2, 1, shift=1)
    mean, spread = kernel_distance(x, y, subsets=30, size=50)
    assert spread > 0 and (mean, spread) == kernel_distance(x, y, subsets=30, size=50)
    assert kernel_distance(x, y, subsets=30, size=50, seed=1)[0] != mean
    assert mean == pytest.approx(squared_mmd(x, y), abs=3 * spread / 30**0.5)


def test_one_sample_is_too_few():
    with pytest.raises(DataError, match="at least 2 samples"):
        kernel_distance(normal(1, 2, 0), normal(5, 2, 1))
