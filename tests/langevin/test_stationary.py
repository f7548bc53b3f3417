"""Chains on densities whose moments are known in closed form, the discretisation bias included."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from vmcmc_dist.langevin import LangevinConfig, Noise, energy_and_grad, run_chain
from vmcmc_dist.models import SamplerCopy
from vmcmc_dist.models.mlp import MLPEnergy

PRECISION_MATRIX = torch.tensor([[2.0, 0.5], [0.5, 0.75]])  # exact in bf16
MEAN = torch.tensor([0.5, -1.0])
CHAINS = 20_000


def gaussian_energy(x: Tensor) -> Tensor:
    """U = (x − μ)ᵀP(x − μ)/2, its product in the precision of the chain."""
    centred = x - MEAN
    return ((centred @ PRECISION_MATRIX).float() * centred).sum(1) / 2


def ula_covariance(step_size: float, temperature: float) -> Tensor:
    """x' − μ = (I − δ²P/2)(x − μ) + δ√T·ε is stationary at C = T·(P − δ²P²/4)⁻¹."""
    p = PRECISION_MATRIX
    return temperature * torch.linalg.inv(p - step_size**2 / 4 * p @ p)


def assert_moments(x: Tensor, mean: Tensor, covariance: Tensor, sigmas: float = 5.0) -> None:
    """Mean and covariance within Monte-Carlo error: Var(ĉ_ij) = (c_ii·c_jj + c_ij²)/n."""
    n = len(x)
    scale = covariance.diag()
    error = ((scale[:, None] * scale + covariance**2) / n).sqrt()
    assert ((x.mean(0) - mean).abs() < sigmas * (scale / n).sqrt()).all()
    assert ((torch.cov(x.T) - covariance).abs() < sigmas * error).all()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("temperature", [1.0, 0.25])
def test_ula_has_the_discretised_gaussian(precision: str, temperature: float) -> None:
    config = LangevinConfig(steps=60, step_size=0.9, temperature=temperature)
    x, _ = run_chain(gaussian_energy, torch.zeros(CHAINS, 2), config, Noise(1), precision=precision)
    biased = ula_covariance(0.9, temperature)
    assert_moments(x, MEAN, biased)
    exact = temperature * torch.linalg.inv(PRECISION_MATRIX)
    assert biased[0, 0] > 1.3 * exact[0, 0]  # the bias is there to be seen


@pytest.mark.parametrize("temperature", [1.0, 0.25])
@pytest.mark.parametrize("clip_move", [None, 0.3])
def test_mala_has_no_bias(temperature: float, clip_move: float | None) -> None:
    config = LangevinConfig(
        steps=150, step_size=0.9, temperature=temperature, clip_move=clip_move, adjusted=True
    )
    x, _ = run_chain(gaussian_energy, torch.zeros(CHAINS, 2), config, Noise(2))
    assert_moments(x, MEAN, temperature * torch.linalg.inv(PRECISION_MATRIX))


def test_mala_accepts_as_often_as_quadrature_says() -> None:
    """E[α] = ∫∫ p(x) q(y|x) α(x, y) dy dx for a standard normal, on a grid."""
    delta = 1.5
    grid = torch.linspace(-8, 8, 1601, dtype=torch.float64)
    x, y = grid[:, None], grid[None, :]

    def log_q(y: Tensor, x: Tensor) -> Tensor:
        return -((y - x * (1 - delta**2 / 2)) ** 2) / (2 * delta**2)

    weight = torch.exp(-(x**2) / 2 + log_q(y, x)) / (2 * math.pi * delta)
    alpha = torch.exp((x**2 - y**2) / 2 + log_q(x, y) - log_q(y, x)).clamp_max(1)
    expected = (weight * alpha).sum() * float(grid[1] - grid[0]) ** 2

    x0 = torch.randn(CHAINS, 1, generator=torch.Generator().manual_seed(0))
    config = LangevinConfig(steps=20, step_size=delta, adjusted=True)
    _, info = run_chain(lambda x: x.square().sum(1) / 2, x0, config, Noise(3))
    assert info.acceptance is not None
    assert info.acceptance.shape == (20,)
    assert info.acceptance.mean() == pytest.approx(float(expected), abs=0.005)
    assert 0.3 < expected < 0.9


def test_clamped_mala_samples_the_truncated_normal() -> None:
    x0 = torch.zeros(CHAINS, 1)
    config = LangevinConfig(steps=100, step_size=0.8, clamp=1.0, adjusted=True)
    x, _ = run_chain(lambda x: x.square().sum(1) / 2, x0, config, Noise(4))
    density = math.exp(-0.5) / math.sqrt(2 * math.pi)
    variance = 1 - 2 * density / math.erf(1 / math.sqrt(2))
    assert x.abs().max() <= 1
    assert x.var() == pytest.approx(variance, rel=0.04)


def test_gaussian_reference_multiplies_the_model() -> None:
    """exp(−|x|²/2)·N(0, s²): precision 1 + 1/s², whose energy and gradient are the sum's."""
    x = torch.randn(7, 3)
    u, grad = energy_and_grad(lambda x: x.square().sum(1) / 2, x, reference_std=0.5)
    torch.testing.assert_close(u, 2.5 * x.square().sum(1))
    torch.testing.assert_close(grad, 5 * x)
    config = LangevinConfig(steps=200, step_size=0.5, reference_std=0.5, adjusted=True)
    samples, _ = run_chain(
        lambda x: x.square().sum(1) / 2, torch.zeros(CHAINS, 1), config, Noise(5)
    )
    assert samples.var() == pytest.approx(1 / 5, rel=0.04)


def test_bf16_samples_a_trained_net_as_fp32_does() -> None:
    """A net that learned two wells: both precisions within Monte-Carlo error of each other."""
    torch.manual_seed(0)
    net = MLPEnergy((2,), width=32, depth=2)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(300):
        x = 2 * torch.randn(256, 2)
        wells = -torch.logsumexp(-torch.stack([(x - 1).square(), (x + 1).square()]).sum(2), 0)
        loss = (net(x) - wells).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.3

    config = LangevinConfig(steps=150, step_size=0.5)
    x0 = torch.zeros(8000, 2)
    full, _ = run_chain(net, x0, config, Noise(6))
    samples = {
        "autocast": run_chain(net, x0, config, Noise(7), precision="bf16")[0],
        "copy": run_chain(SamplerCopy(net, torch.bfloat16), x0, config, Noise(8))[0],
    }
    assert full.abs().mean() > 0.7  # it has left the saddle for the wells
    for half in samples.values():
        for moment in (lambda x: x, lambda x: x.square(), lambda x: x[:, :1] * x[:, 1:]):
            a, b = moment(full), moment(half)
            error = (a.var(0) / len(a) + b.var(0) / len(b)).sqrt()
            assert ((a.mean(0) - b.mean(0)).abs() < 4.5 * error).all()
