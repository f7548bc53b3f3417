"""AUROC and average precision against the definitions, counted pair by pair."""

from __future__ import annotations

import pytest
import torch

from vmcmc_dist.errors import DataError
from vmcmc_dist.evaluation.detection import auroc, average_precision


def auroc_by_pairs(positive: list[float], negative: list[float]) -> float:
    won = sum(1.0 if p > n else 0.5 if p == n else 0.0 for p in positive for n in negative)
    return won / (len(positive) * len(negative))


def precision_by_thresholds(positive: list[float], negative: list[float]) -> float:
    area, recall = 0.0, 0.0
    for threshold in sorted({*positive, *negative}, reverse=True):
        hits = sum(p >= threshold for p in positive)
        alarms = sum(n >= threshold for n in negative)
        now = hits / len(positive)
        area += (now - recall) * hits / (hits + alarms)
        recall = now
    return area


@pytest.mark.parametrize("levels", [3, 10, 10_000])
@pytest.mark.parametrize("sizes", [(1, 1), (40, 25), (7, 300)])
def test_against_counting_with_and_without_ties(levels: int, sizes: tuple[int, int]) -> None:
    rng = torch.Generator().manual_seed(levels + sizes[1])
    positive = torch.randint(levels, (sizes[0],), generator=rng).float() + levels // 4
    negative = torch.randint(levels, (sizes[1],), generator=rng).float()
    lists = positive.tolist(), negative.tolist()
    assert auroc(positive, negative) == pytest.approx(auroc_by_pairs(*lists), abs=1e-12)
    assert average_precision(positive, negative) == pytest.approx(
        precision_by_thresholds(*lists), abs=1e-12
    )


def test_the_ends_of_the_scale() -> None:
    low, high = torch.arange(5.0), torch.arange(10.0, 20.0)
    assert auroc(high, low) == average_precision(high, low) == 1.0
    assert auroc(low, high) == 0.0
    same = torch.ones(6)
    assert auroc(same, torch.ones(3)) == 0.5
    assert average_precision(same, torch.ones(3)) == pytest.approx(6 / 9)


def test_two_gaussians_give_the_closed_form() -> None:
    """AUROC of N(1, 1) against N(0, 1) is Φ(1/√2)."""
    rng = torch.Generator().manual_seed(0)
    positive, negative = torch.randn(2, 40_000, generator=rng) + torch.tensor([[1.0], [0.0]])
    expected = torch.special.ndtr(torch.tensor(0.5**0.5)).item()
    assert auroc(positive, negative) == pytest.approx(expected, abs=4e-3)


def test_large_energies_keep_their_order() -> None:
    """Differences beyond float32's sixth digit still rank (fp64 throughout)."""
    base = torch.tensor([1e9], dtype=torch.float64)
    assert auroc(base + 1, base) == 1.0


def test_empty_and_broken_scores_are_refused() -> None:
    with pytest.raises(DataError, match="both sets"):
        auroc(torch.zeros(0), torch.zeros(3))
    with pytest.raises(DataError, match="not finite"):
        average_precision(torch.tensor([1.0, float("nan")]), torch.zeros(3))
