"""Inception score, Fréchet distance and class shares from sums that add up over workers.

Every statistic is kept as a plain fp64 sum, so N workers that each saw a part give the number
that one worker gives on all of it:

    sums = MomentSums.empty(dim)
    for x in batches:
        sums.add(classifier.features(x))
    fd_classifier = frechet_distance(*sums.moments(), *reference.moments())

A Fréchet distance carries the name of the net that made its features (``fd_classifier``);
the name of the published Inception-v3 number belongs to that number alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from vmcmc_dist.errors import DataError


@dataclass
class MomentSums:
    """Count, Σφ [D] and Σφφᵀ [D, D] of features φ, in fp64 on the CPU."""

    count: int
    total: Tensor
    outer: Tensor

    @classmethod
    def empty(cls, dim: int) -> MomentSums:
        return cls(0, torch.zeros(dim, dtype=torch.float64), torch.zeros(dim, dim).double())

    def add(self, features: Tensor) -> None:
        """Take in features [B, D]."""
        phi = features.detach().double().cpu()
        self.count += phi.shape[0]
        self.total += phi.sum(0)
        self.outer += phi.T @ phi

    def __add__(self, other: MomentSums) -> MomentSums:
        return MomentSums(
            self.count + other.count, self.total + other.total, self.outer + other.outer
        )

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean [D] and unbiased covariance [D, D]; DataError on fewer than two samples."""
        if self.count < 2:
            raise DataError(
                f"a covariance needs at least 2 samples, got {self.count}: ask for more samples"
            )
        mean = self.total / self.count
        covariance = (self.outer - self.count * torch.outer(mean, mean)) / (self.count - 1)
        return mean, covariance


def frechet_distance(mean_a: Tensor, cov_a: Tensor, mean_b: Tensor, cov_b: Tensor) -> float:
    """Squared 2-Wasserstein distance of two Gaussians (Dowson & Landau 1982; Heusel et al. 2017).

        |μa − μb|² + tr Σa + tr Σb − 2 tr (Σa^½ Σb Σa^½)^½

    Means [D], covariances [D, D] positive semi-definite (singular ones too), result ≥ 0.
    """
    mean_a, cov_a, mean_b, cov_b = (t.double() for t in (mean_a, cov_a, mean_b, cov_b))
    root_a = _sqrt_psd(cov_a)
    inner = torch.linalg.eigvalsh(root_a @ cov_b @ root_a).clamp_min(0).sqrt().sum()
    squared_shift = (mean_a - mean_b).square().sum()
    return max(0.0, (squared_shift + cov_a.trace() + cov_b.trace() - 2 * inner).item())


def _sqrt_psd(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp_min(0).sqrt()) @ vectors.T


@dataclass
class PredictionSums:
    """Count, Σp(y|x) [K], Σ −H[p(y|x)] and the count of each predicted class [K], in fp64."""

    count: int
    probability: Tensor
    negative_entropy: float
    predicted: Tensor

    @classmethod
    def empty(cls, classes: int) -> PredictionSums:
        zeros = torch.zeros(classes, dtype=torch.float64)
        return cls(0, zeros, 0.0, zeros.clone())

    def add(self, logits: Tensor) -> None:
        """Take in logits [B, K]."""
        log_p = logits.detach().double().cpu().log_softmax(1)
        p = log_p.exp()
        self.count += p.shape[0]
        self.probability += p.sum(0)
        self.negative_entropy += (p * log_p).sum().item()
        self.predicted += torch.bincount(p.argmax(1), minlength=p.shape[1]).double()

    def __add__(self, other: PredictionSums) -> PredictionSums:
        return PredictionSums(
            self.count + other.count,
            self.probability + other.probability,
            self.negative_entropy + other.negative_entropy,
            self.predicted + other.predicted,
        )

    def inception_score(self) -> float:
        """exp E_x KL(p(y|x) ‖ p(y)) = exp(H[p(y)] − E_x H[p(y|x)]), from 1 to K.

        Salimans et al. 2016, with this classifier in place of Inception-v3.
        """
        self._some()
        marginal = self.probability / self.count
        entropy = -torch.xlogy(marginal, marginal).sum().item()
        return math.exp(entropy + self.negative_entropy / self.count)

    def class_shares(self) -> list[float]:
        """Share of the samples that the classifier puts into each class; sums to 1."""
        self._some()
        return (self.predicted / self.count).tolist()

    def _some(self) -> None:
        if self.count == 0:
            raise DataError("no samples were counted: ask for at least one")
