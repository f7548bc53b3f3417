"""Precision, recall, density and coverage against their definitions written as loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vmcmc_dist.errors import DataError
from vmcmc_dist.evaluation import manifolds as module
from vmcmc_dist.evaluation.manifolds import manifolds


def normal(n: int, seed: int, shift: float = 0.0, dim: int = 3) -> torch.Tensor:
    return torch.from_numpy(shift + np.random.default_rng(seed).standard_normal((n, dim)))


def by_loops(fake: np.ndarray, real: np.ndarray, k_precision: int, k_density: int):
    def radius(points, i, k):
        return sorted(np.linalg.norm(points[i] - p) for j, p in enumerate(points) if j != i)[k - 1]

    def near(a, b, r):
        return np.linalg.norm(a - b) <= r

    balls = [radius(real, i, k_precision) for i in range(len(real))]
    wide = [radius(real, i, k_density) for i in range(len(real))]
    own = [radius(fake, j, k_precision) for j in range(len(fake))]
    precision = np.mean(
        [any(near(f, x, r) for x, r in zip(real, balls, strict=True)) for f in fake]
    )
    recall = np.mean([any(near(x, f, r) for f, r in zip(fake, own, strict=True)) for x in real])
    inside = [[near(f, x, r) for x, r in zip(real, wide, strict=True)] for f in fake]
    density = np.sum(inside) / (k_density * len(fake))
    coverage = np.mean(np.any(inside, axis=0))
    return precision, recall, density, coverage


@pytest.mark.parametrize("ks", [(3, 5), (2, 1)])
def test_equals_the_definitions(ks, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 7)
    fake, real = normal(40, 0, shift=0.7), normal(31, 1)
    found = manifolds(fake, real, *ks)
    expected = by_loops(fake.numpy(), real.numpy(), *ks)
    assert tuple(vars(found).values()) == pytest.approx(expected, rel=1e-12)
    assert 0.2 < found.precision < 1 and 0.2 < found.coverage < 1


def test_chunks_do_not_change_the_numbers(monkeypatch):
    fake, real = normal(50, 0, shift=0.5), normal(60, 1)
    whole = manifolds(fake, real)
    monkeypatch.setattr(module, "CHUNK", 11)
    assert manifolds(fake, real) == whole


def test_same_distribution_far_away_and_collapsed():
    real = normal(800, 0)
    alike = manifolds(normal(800, 1), real)
    assert min(alike.precision, alike.recall, alike.coverage) > 0.85
    assert alike.density == pytest.approx(1, abs=0.1)
    far = manifolds(normal(800, 1, shift=50), real)
    assert tuple(vars(far).values()) == (0, 0, 0, 0)
    collapsed = manifolds(0.01 * normal(800, 1), real)
    assert collapsed.precision > 0.95 and collapsed.recall < 0.05 and collapsed.coverage < 0.1


def test_too_few_neighbours():
    with pytest.raises(DataError, match="at least 6 samples"):
        manifolds(normal(5, 0), normal(100, 1))
