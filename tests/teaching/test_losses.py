"""The losses against closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from vmcmc_dist.teaching.config import EnergyObjective, VAEObjective
from vmcmc_dist.teaching.losses import energy_loss, gaussian_nll, negative_elbo, vae_loss


def test_kl_is_that_of_two_gaussians() -> None:
    torch.manual_seed(0)
    mu, logvar = torch.randn(7, 5), torch.randn(7, 5)
    x = torch.zeros(7, 3)
    expected = kl_divergence(Normal(mu, (0.5 * logvar).exp()), Normal(0.0, 1.0)).sum(1).mean()
    torch.testing.assert_close(negative_elbo(x, x, mu, logvar, 1.0).kl, expected)


def test_kl_of_the_prior_itself_is_zero() -> None:
    zero = torch.zeros(4, 6)
    assert negative_elbo(zero, zero, zero, zero, 0.3).kl == 0


def test_reconstruction_is_the_gaussian_log_likelihood() -> None:
    torch.manual_seed(1)
    x, x_hat, sigma = torch.randn(5, 2, 3, 3), torch.randn(5, 2, 3, 3), 0.4
    log_p = Normal(x_hat, sigma).log_prob(x).flatten(1).sum(1).mean()
    constant = 18 * math.log(sigma * math.sqrt(2 * math.pi))
    zero = torch.zeros(5, 1)
    got = negative_elbo(x, x_hat, zero, zero, sigma).reconstruction
    torch.testing.assert_close(got, -log_p - constant)


def test_nll_of_a_code_is_the_gaussians() -> None:
    torch.manual_seed(2)
    z, mu, logvar = torch.randn(3, 6, 4)
    constant = 4 * 0.5 * math.log(2 * math.pi)
    expected = -Normal(mu, (0.5 * logvar).exp()).log_prob(z).sum(1).mean() - constant
    torch.testing.assert_close(gaussian_nll(z, mu, logvar), expected)


def test_elbo_of_a_linear_gaussian_vae_at_its_posterior_is_the_evidence() -> None:
    """x = Wz + b + σε: at the exact posterior the ELBO equals log p(x), whatever x is.

    W has orthogonal columns, so the posterior N(m, diag v) is one that an encoder can give:
    v_i = σ²/(σ² + |w_i|²), m_i = w_iᵀ(x − b)/(σ² + |w_i|²).
    """
    torch.manual_seed(3)
    d, k, sigma, n = 5, 2, 0.7, 200_000
    basis = torch.linalg.qr(torch.randn(d, d)).Q[:, :k]
    w, b = basis * torch.tensor([1.5, 0.4]), torch.randn(d)
    x = torch.randn(d).expand(n, d)
    precision = sigma**2 + w.square().sum(0)
    mu, logvar = (x - b) @ w / precision, (sigma**2 / precision).log().expand(n, k)
    z = mu + (0.5 * logvar).exp() * torch.randn(n, k)

    elbo = negative_elbo(x, z @ w.T + b, mu, logvar, sigma)
    constant = d * math.log(sigma * math.sqrt(2 * math.pi))
    evidence = MultivariateNormal(b, w @ w.T + sigma**2 * torch.eye(d)).log_prob(x[0])
    loss = vae_loss(elbo, VAEObjective(sigma=sigma)) + constant
    assert float(loss) == pytest.approx(-float(evidence), abs=0.01)


def test_kl_weight_multiplies_the_kl_alone() -> None:
    elbo = negative_elbo(
        torch.ones(2, 3), torch.zeros(2, 3), torch.ones(2, 2), torch.zeros(2, 2), 1
    )
    assert float(vae_loss(elbo, VAEObjective(kl_weight=0))) == 1.5
    assert float(vae_loss(elbo, VAEObjective(kl_weight=3))) == 1.5 + 3 * 1.0


def test_energy_gradient_is_the_contrastive_form() -> None:
    """∇L = E_data[∇U] − E_refined[∇U], from batches of unequal size."""
    torch.manual_seed(4)
    net = nn.Sequential(nn.Linear(3, 8), nn.SiLU(), nn.Linear(8, 1))
    x, refined = torch.randn(6, 3), torch.randn(10, 3)

    def mean_gradient(batch: Tensor) -> list[Tensor]:
        per_sample = [torch.autograd.grad(net(row)[0], list(net.parameters())) for row in batch]
        return [torch.stack(grads).mean(0) for grads in zip(*per_sample, strict=True)]

    loss = energy_loss(net(x)[:, 0], net(refined)[:, 0], EnergyObjective())
    got = torch.autograd.grad(loss, list(net.parameters()))
    expected = [a - b for a, b in zip(mean_gradient(x), mean_gradient(refined), strict=True)]
    torch.testing.assert_close(list(got), expected)


def test_energy_loss_ignores_a_constant_but_its_penalty_does_not() -> None:
    u, v = torch.randn(8), torch.randn(8)
    plain, penalised = EnergyObjective(), EnergyObjective(penalty=0.5)
    torch.testing.assert_close(energy_loss(u + 3, v + 3, plain), energy_loss(u, v, plain))
    assert energy_loss(u + 3, v + 3, penalised) > energy_loss(u, v, penalised)


def test_penalty_is_the_mean_square_of_both_energies() -> None:
    u, v = torch.tensor([1.0, -2.0]), torch.tensor([3.0, 0.0, 0.0])
    added = energy_loss(u, v, EnergyObjective(penalty=0.1)) - energy_loss(u, v, EnergyObjective())
    assert float(added) == pytest.approx(0.1 * (5 / 2 + 9 / 3))


def test_half_precision_energies_are_summed_in_fp32() -> None:
    u = torch.full((4096,), 1.0009765625, dtype=torch.float16)
    loss = energy_loss(u, torch.zeros(4, dtype=torch.float16), EnergyObjective())
    assert loss.dtype == torch.float32 and float(loss) == pytest.approx(1.0009765625, rel=1e-6)
