"""Chains given a condition, and chains in which a part of x stays."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from vmcmc_dist.langevin import LangevinConfig, Noise, run_chain

RHO = 0.8
PRECISION = torch.linalg.inv(torch.tensor([[1.0, RHO], [RHO, 1.0]]))


def correlated(x: Tensor) -> Tensor:
    """U of a Gaussian with unit variances and correlation ρ."""
    return 0.5 * torch.einsum("bi,ij,bj->b", x, PRECISION, x)


def test_each_sample_is_drawn_given_its_own_condition() -> None:
    """U(x, c) = |x − c|²/2 from x = 0: the chain's mean is c, sample by sample."""
    c = torch.linspace(-3, 3, 4000)[:, None]
    config = LangevinConfig(steps=60, step_size=0.5)
    x, info = run_chain(
        lambda x, c: (x - c).square().sum(1) / 2,
        torch.zeros(4000, 1),
        config,
        Noise(0),
        condition=c,
    )
    assert (x - c).mean().abs() < 0.06
    assert abs((x - c).std().item() - 1 / math.sqrt(1 - 0.25**2)) < 0.04
    assert info.energy.shape == (60,)


@pytest.mark.parametrize("adjusted", [False, True])
def test_what_is_free_follows_the_conditional_law(adjusted: bool) -> None:
    """x₁ | x₀ = a is N(ρa, 1 − ρ²); x₀ does not move at all."""
    known = torch.tensor([1.5, 0.0]).repeat(6000, 1)
    config = LangevinConfig(steps=120, step_size=0.3, adjusted=adjusted)
    x, _ = run_chain(correlated, known, config, Noise(1), free=torch.tensor([[0.0, 1.0]]))
    assert torch.equal(x[:, 0], known[:, 0])
    assert abs(x[:, 1].mean().item() - RHO * 1.5) < 0.03
    variance = 1 - RHO**2
    stationary = variance if adjusted else variance / (1 - 0.3**2 / (4 * variance))
    assert abs(x[:, 1].var().item() / stationary - 1) < 0.06


def test_masks_of_images_broadcast_over_channels() -> None:
    x0 = torch.rand(3, 2, 4, 4)
    free = torch.zeros(3, 1, 4, 4)
    free[:, :, :, 2:] = 1
    config = LangevinConfig(steps=4, step_size=0.2, clamp=1.0)
    x, info = run_chain(lambda x: x.square().flatten(1).sum(1), x0, config, Noise(0), free=free)
    moved = x != x0
    assert not moved[..., :2].any() and moved[..., 2:].all()
    torch.testing.assert_close(info.displacement, (x - x0).flatten(1).norm(dim=1))
