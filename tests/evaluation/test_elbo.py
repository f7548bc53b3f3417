"""Bounds of a linear-Gaussian VAE, whose log density and posterior are known in closed form."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from vmcmc_dist.config import load_config
from vmcmc_dist.evaluation.elbo import elbo, iwae
from vmcmc_dist.models import VAE
from vmcmc_dist.trained import Trained

SIGMA, DIM, LATENT = 0.6, 5, 2
generator = torch.Generator().manual_seed(0)
MIX = torch.randn(DIM, LATENT, generator=generator)
MIX[:, 1] += MIX[:, 0] / 2  # a posterior that no diagonal fits
SHIFT = torch.randn(DIM, generator=generator)


def linear_vae(spoil: float = 0.0) -> Trained:
    """g(z) = Az + b; the encoder N(μ, v) has the posterior's mean, moved by ``spoil``, and the
    best diagonal v: 1/v = diag of the posterior's precision."""
    precision = torch.eye(LATENT) + MIX.T @ MIX / SIGMA**2
    gain = torch.linalg.solve(precision, MIX.T) / SIGMA**2
    encoder = nn.Linear(DIM, 2 * LATENT)
    decoder = nn.Linear(LATENT, DIM)
    with torch.no_grad():
        encoder.weight.copy_(torch.cat([gain, torch.zeros(LATENT, DIM)]))
        encoder.bias.copy_(torch.cat([spoil - gain @ SHIFT, -precision.diag().log()]))
        decoder.weight.copy_(MIX)
        decoder.bias.copy_(SHIFT)
    config = load_config(None, ["energy.net=mlp", "vae.net=mlp", f"vae.sigma={SIGMA}"])
    return Trained(config, (DIM,), nn.Identity(), VAE(encoder, decoder, LATENT))


def exact(x: Tensor) -> Tensor:
    """log N(x; b, AAᵀ + σ²I)."""
    covariance = MIX @ MIX.T + SIGMA**2 * torch.eye(DIM)
    return MultivariateNormal(SHIFT, covariance).log_prob(x)


def slack(spoil: float) -> float:
    """KL(q ‖ posterior), the same for all x: ½[tr(Λ V) − d + |Λ^½ spoil|² + log(det Λ⁻¹/det V)]."""
    precision = torch.eye(LATENT) + MIX.T @ MIX / SIGMA**2
    variance, moved = 1 / precision.diag(), torch.full((LATENT,), spoil)
    trace = (precision.diag() * variance).sum()
    quadratic = moved @ precision @ moved
    log_ratio = -precision.logdet() - variance.log().sum()
    return float(0.5 * (trace - LATENT + quadratic + log_ratio))


@pytest.fixture
def x() -> Tensor:
    z = torch.randn(200, LATENT, generator=torch.Generator().manual_seed(1))
    noise = torch.randn(200, DIM, generator=torch.Generator().manual_seed(2))
    return z @ MIX.T + SHIFT + SIGMA * noise


@pytest.mark.parametrize("spoil", [0.0, 0.3])
def test_the_elbo_is_the_log_density_less_the_kl_of_the_posterior(x: Tensor, spoil: float) -> None:
    bound = elbo(linear_vae(spoil), x, samples=4000)
    assert slack(spoil) > (0.05 if spoil == 0 else 0.2)
    torch.testing.assert_close(bound, exact(x) - slack(spoil), atol=0.15, rtol=0)
    assert (bound - exact(x)).mean() == pytest.approx(-slack(spoil), abs=0.01)


def test_iwae_closes_in_on_the_log_density(x: Tensor) -> None:
    model = linear_vae(0.3)
    gaps = [float((exact(x) - iwae(model, x, k)).mean()) for k in (1, 10, 3000)]
    assert gaps[0] == pytest.approx(slack(0.3), abs=0.25)
    assert gaps[0] > gaps[1] > abs(gaps[2])
    assert abs(gaps[2]) < 0.05


def test_one_draw_is_an_unbiased_bound(x: Tensor) -> None:
    model = linear_vae()
    ones = torch.stack([elbo(model, x, seed=seed) for seed in range(50)])
    assert ones.mean() == pytest.approx(float(exact(x).mean()) - slack(0.0), abs=0.05)
    assert torch.equal(elbo(model, x, seed=3), ones[3])
    assert not torch.equal(ones[3], ones[4])


def test_the_constant_is_that_of_a_density(x: Tensor) -> None:
    """Scaling x, g and σ by a factor moves a log density by −D log factor."""
    model = linear_vae()
    wide = linear_vae()
    with torch.no_grad():
        wide.vae.decoder.weight.mul_(10)
        wide.vae.decoder.bias.mul_(10)
        wide.vae.encoder.weight.div_(10)
    wide.config.vae.sigma = 10 * SIGMA
    moved = elbo(wide, 10 * x, seed=1)
    torch.testing.assert_close(
        moved, elbo(model, x, seed=1) - DIM * math.log(10), atol=1e-3, rtol=0
    )


def test_no_draws_is_refused(x: Tensor) -> None:
    with pytest.raises(ValueError, match="k ≥ 1"):
        iwae(linear_vae(), x, 0)
