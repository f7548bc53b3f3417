"""How well a score tells one set from another: exact AUROC and average precision.

    auroc(positive, negative)                  # P(s⁺ > s⁻) + ½ P(s⁺ = s⁻)
    average_precision(positive, negative)      # Σ (R_k − R_{k−1}) P_k

Scores are [N] and [M]; the positive set is the one that should score high. Ties count as the
definitions say: half for the AUROC, one threshold for the average precision.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vmcmc_dist.errors import DataError


def auroc(positive: Tensor, negative: Tensor) -> float:
    """Area under the ROC curve, the Mann–Whitney statistic: 1 separates, ½ is chance.

    AUROC = (Σ ranks of the positives − N(N+1)/2) / (N·M), ranks averaged over ties.
    """
    scores, is_positive = _joined(positive, negative)
    _, place, counts = torch.unique(scores, return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    rank = (last - (counts.double() - 1) / 2)[place]
    n, m = len(positive), len(negative)
    return ((rank[is_positive].sum() - n * (n + 1) / 2) / (n * m)).item()


def average_precision(positive: Tensor, negative: Tensor) -> float:
    """Area under the precision–recall steps; chance is N/(N+M).

    Σ_k (R_k − R_{k−1})·P_k over the distinct thresholds from high to low, without interpolation.
    """
    scores, is_positive = _joined(positive, negative)
    _, place, counts = torch.unique(-scores, return_inverse=True, return_counts=True)
    found = torch.zeros(len(counts), dtype=torch.float64)
    found.index_add_(0, place, is_positive.double())
    precision = found.cumsum(0) / counts.cumsum(0)
    return ((found / len(positive)) * precision).sum().item()


def _joined(positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
    if not len(positive) or not len(negative):
        raise DataError(
            f"{len(positive)} positive and {len(negative)} negative scores: both sets need one"
        )
    scores = torch.cat([positive.detach().double().cpu(), negative.detach().double().cpu()])
    if not torch.isfinite(scores).all():
        raise DataError("scores to rank hold values that are not finite: the net has diverged")
    is_positive = torch.zeros(len(scores), dtype=torch.bool)
    is_positive[: len(positive)] = True
    return scores, is_positive
