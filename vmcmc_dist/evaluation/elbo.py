"""Lower bounds on the VAE's log density, log p_α(x) = log ∫ N(x; g(z), σ²I) N(z; 0, I) dz.

    elbo(model, x)           # [B] nats, E_q[log p(x|z)] − KL(q(z|x) ‖ N(0, I))
    iwae(model, x, k=50)     # [B] nats, tighter; tends to log p_α(x) as k grows

Both keep the Gaussian's constant −(D/2) log 2πσ², so they are log densities of x in the units it
is given in, to be held against −U(x) − log Z. A condition c makes them bounds on log p_α(x|c).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vmcmc_dist.langevin import Noise, stream_seed
from vmcmc_dist.trained import Trained


@torch.no_grad()
def elbo(
    model: Trained, x: Tensor, c: Tensor | None = None, *, seed: int = 0, samples: int = 1
) -> Tensor:
    """ELBO(x) = E_q[log N(x; g(z), σ²I)] − KL(q(z|x) ‖ N(0, I)), nats: float32 [B].

    The expectation is the mean of ``samples`` draws of z ~ q(z|x), the KL exact.

    Args:
        x: [B, *shape]; images in [-1, 1].
        c: conditions of a conditional model, one per sample.
        seed: of the draws; give each batch of a data set its own.
    """
    x = x.to(model.device)
    mu, logvar = model.encode(x, c)
    noise = Noise(stream_seed(seed, "elbo"), model.device)
    total = torch.zeros(len(x), device=model.device)
    for _ in range(samples):
        z = mu + torch.exp(0.5 * logvar) * noise.normal(mu.shape)
        total += _log_likelihood(model, x, z, c)
    kl = 0.5 * (logvar.exp() + mu.square() - 1 - logvar).sum(1)
    return total / samples - kl


@torch.no_grad()
def iwae(model: Trained, x: Tensor, k: int, c: Tensor | None = None, *, seed: int = 0) -> Tensor:
    """log (1/k) Σ_i p(x, z_i)/q(z_i|x), z_i ~ q(z|x), nats: float32 [B]. k = 1 is an ELBO.

    Arguments as of :func:`elbo`; one decoding of the batch in memory at a time.
    Source: Burda et al. 2016, arXiv:1509.00519.
    """
    if k < 1:
        raise ValueError(f"an importance-weighted bound needs k ≥ 1 draws, got {k}")
    x = x.to(model.device)
    mu, logvar = model.encode(x, c)
    noise = Noise(stream_seed(seed, "iwae"), model.device)
    total = torch.full((len(x),), -math.inf, device=model.device)
    for _ in range(k):
        eps = noise.normal(mu.shape)
        z = mu + torch.exp(0.5 * logvar) * eps
        log_ratio = 0.5 * (eps.square() - z.square() + logvar).sum(1)  # log N(z; 0, I)/q(z|x)
        total = torch.logaddexp(total, _log_likelihood(model, x, z, c) + log_ratio)
    return total - math.log(k)


def _log_likelihood(model: Trained, x: Tensor, z: Tensor, c: Tensor | None) -> Tensor:
    """log N(x; g(z), σ²I) [B], with its constant."""
    sigma = model.config.vae.sigma
    error = (x - model.decode(z, c)).square().flatten(1)
    return -error.sum(1) / (2 * sigma**2) - error.shape[1] / 2 * math.log(2 * math.pi * sigma**2)
