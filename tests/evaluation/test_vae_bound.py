"""The bound of a linear-Gaussian VAE, whose likelihood and posterior are known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from vmcmc_dist.evaluation.vae_bound import log_likelihood_bound
from vmcmc_dist.langevin import Noise
from vmcmc_dist.models import VAE

SIGMA, SLOPE = 0.5, 1.5


class Encoder(nn.Module):
    """q(z|x) of x = (a z + σε₁, σε₂): exact, or with its variance scaled."""

    def __init__(self, widened: float = 1.0) -> None:
        super().__init__()
        self.widened = widened

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        precision = 1 + SLOPE**2 / SIGMA**2
        mu = SLOPE * x[:, :1] / SIGMA**2 / precision
        return torch.cat([mu, torch.full_like(mu, math.log(self.widened / precision))], 1)


class Decoder(nn.Module):
    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return torch.cat([SLOPE * z, torch.zeros_like(z)], 1)


def exact(x: torch.Tensor) -> torch.Tensor:
    total = 0.0
    for i, variance in enumerate((SLOPE**2 + SIGMA**2, SIGMA**2)):
        total = total - 0.5 * (x[:, i].square() / variance + math.log(2 * math.pi * variance))
    return total


POINTS = torch.tensor([[0.0, 0.0], [1.0, -0.5], [-3.0, 0.2], [0.4, 2.0]])


def test_with_the_true_posterior_every_draw_gives_the_likelihood() -> None:
    vae = VAE(Encoder(), Decoder(), 1)
    for k in (1, 5):
        bound = log_likelihood_bound(vae, POINTS, SIGMA, Noise(3), k)
        torch.testing.assert_close(bound, exact(POINTS), rtol=0, atol=1e-4)


def test_with_another_posterior_it_rises_to_the_likelihood_from_below() -> None:
    x = POINTS[1:2].repeat(4000, 1)
    vae = VAE(Encoder(widened=3.0), Decoder(), 1)
    one, many = (log_likelihood_bound(vae, x, SIGMA, Noise(0), k).mean() for k in (1, 50))
    gap = 0.5 * (3.0 - 1 - math.log(3.0))  # KL(q ‖ posterior)
    assert exact(x)[0] - one == pytest.approx(gap, abs=0.05)
    assert exact(x)[0] - 0.03 < many <= exact(x)[0] + 0.01
