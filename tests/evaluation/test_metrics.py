"""Distances with known answers, and sums that do not care how the samples were split."""

from __future__ import annotations

import math

import pytest
import torch

from vmcmc_dist.errors import DataError
from vmcmc_dist.evaluation.metrics import (
    MomentSums,
    PredictionSums,
    frechet_distance,
)


def random_covariance(dim: int, seed: int, rank: int | None = None) -> torch.Tensor:
    factor = torch.randn(dim, rank or dim, generator=torch.Generator().manual_seed(seed)).double()
    return factor @ factor.T


def test_frechet_distance_of_axis_aligned_gaussians():
    a, b = torch.tensor([1.0, 4.0, 9.0]), torch.tensor([4.0, 4.0, 0.25])
    shift = torch.tensor([1.0, -2.0, 0.5])
    expected = shift.square().sum() + (a.sqrt() - b.sqrt()).square().sum()
    distance = frechet_distance(torch.zeros(3), a.diag(), shift, b.diag())
    assert distance == pytest.approx(expected.item(), rel=1e-12)


def test_frechet_distance_of_commuting_covariances_in_a_rotated_frame():
    rotation = torch.linalg.qr(random_covariance(5, 0))[0]
    a, b = torch.tensor([3.0, 1, 4, 1, 5]).double(), torch.tensor([2.0, 7, 1, 8, 2]).double()
    distance = frechet_distance(
        torch.zeros(5),
        rotation @ a.diag() @ rotation.T,
        torch.zeros(5),
        rotation @ b.diag() @ rotation.T,
    )
    assert distance == pytest.approx((a.sqrt() - b.sqrt()).square().sum().item(), rel=1e-10)


def test_frechet_distance_equals_the_trace_of_the_plain_product_root():
    a, b = random_covariance(6, 1), random_covariance(6, 2)
    roots = torch.linalg.eigvals(a @ b).real.clamp_min(0).sqrt()
    expected = (a.trace() + b.trace() - 2 * roots.sum()).item()
    zero = torch.zeros(6)
    assert frechet_distance(zero, a, zero, b) == pytest.approx(expected, rel=1e-9)


def test_frechet_distance_is_zero_on_itself_though_singular():
    singular = random_covariance(8, 3, rank=2)
    mean = torch.ones(8)
    assert frechet_distance(mean, singular, mean, singular) == pytest.approx(0, abs=1e-6)


def test_frechet_distance_grows_with_noise():
    cov, zero = random_covariance(4, 4), torch.zeros(4)
    distances = [frechet_distance(zero, cov, zero, cov + s * torch.eye(4)) for s in (0, 0.1, 1, 10)]
    assert distances == sorted(distances) and distances[-1] > 1


def test_moments_summed_over_workers_equal_one_workers():
    x = torch.randn(101, 5, generator=torch.Generator().manual_seed(0)).double() + 7
    whole, left, right = (MomentSums.empty(5) for _ in range(3))
    whole.add(x)
    left.add(x[:30])
    right.add(x[30:64])
    right.add(x[64:])
    mean, cov = (left + right).moments()
    torch.testing.assert_close(mean, x.mean(0), rtol=1e-12, atol=0)
    torch.testing.assert_close(cov, x.T.cov(), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(cov, whole.moments()[1], rtol=1e-10, atol=1e-12)


def test_moments_of_half_precision_features_are_summed_in_fp64():
    x = torch.full((3000, 1), 0.1, dtype=torch.float16)
    sums = MomentSums.empty(1)
    sums.add(x)
    assert sums.moments()[0].item() == pytest.approx(float(x[0, 0]), rel=1e-12)


def inception_score(logits: torch.Tensor) -> float:
    sums = PredictionSums.empty(logits.shape[1])
    sums.add(logits)
    return sums.inception_score()


def test_inception_score_is_the_number_of_classes_for_sure_and_even_predictions():
    sure = 1e3 * torch.eye(10).repeat(7, 1)
    assert inception_score(sure) == pytest.approx(10, rel=1e-9)
    assert inception_score(torch.zeros(50, 10)) == pytest.approx(1, rel=1e-9)
    assert inception_score(sure[:1].repeat(20, 1)) == pytest.approx(1, rel=1e-9)


def test_inception_score_of_unsure_predictions_by_hand():
    p = torch.tensor([[0.9, 0.1], [0.3, 0.7]])
    marginal = [0.6, 0.4]
    kl = sum(
        pi * math.log(pi / q) for row in p.tolist() for pi, q in zip(row, marginal, strict=True)
    )
    assert inception_score(p.log()) == pytest.approx(math.exp(kl / 2), rel=1e-6)


def test_predictions_summed_over_workers_equal_one_workers():
    logits = torch.randn(97, 4, generator=torch.Generator().manual_seed(1))
    whole, left, right = (PredictionSums.empty(4) for _ in range(3))
    whole.add(logits)
    left.add(logits[:40])
    right.add(logits[40:])
    both = left + right
    assert both.inception_score() == pytest.approx(whole.inception_score(), rel=1e-12)
    assert both.class_shares() == whole.class_shares()


def test_class_shares_count_the_largest_logit():
    sums = PredictionSums.empty(3)
    sums.add(torch.tensor([[5.0, 0, 0], [4, 0, 1], [0, 0, 2], [1, 3, 0]]))
    assert sums.class_shares() == [0.5, 0.25, 0.25]


def test_too_few_samples_are_named():
    with pytest.raises(DataError, match="at least 2 samples, got 0"):
        MomentSums.empty(3).moments()
    with pytest.raises(DataError, match="no samples"):
        PredictionSums.empty(3).class_shares()
