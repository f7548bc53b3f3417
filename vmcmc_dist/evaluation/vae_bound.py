"""What a VAE says about the likelihood of x: the ELBO of one sample, or of k (IWAE)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vmcmc_dist.langevin import Noise
from vmcmc_dist.models import VAE


@torch.no_grad()
def log_likelihood_bound(vae: VAE, x: Tensor, sigma: float, noise: Noise, k: int = 1) -> Tensor:
    """log p(x) ≥ log (1/k) Σ_i p(x|z_i) p(z_i) / q(z_i|x), z_i ~ q(z|x), in nats: [B, …] → [B].

    p(x|z) = N(g(z), σ²I). k = 1 is a one-sample ELBO; the mean rises with k towards log p(x).
    Source: Burda et al., arXiv:1509.00519.
    """
    mu, logvar = (t.float() for t in vae.encode(x))
    dim = x[0].numel()
    constant = -0.5 * dim * math.log(2 * math.pi * sigma**2)
    bounds = []
    for _ in range(k):
        eps = noise.normal(mu.shape)
        z = mu + (0.5 * logvar).exp() * eps
        error = (x - vae.decode(z).float()).square().flatten(1).sum(1)
        log_prior_ratio = 0.5 * (eps.square() + logvar - z.square()).sum(1)  # log p(z) − log q(z|x)
        bounds.append(constant - error / (2 * sigma**2) + log_prior_ratio)
    return torch.stack(bounds).logsumexp(0) - math.log(k)
