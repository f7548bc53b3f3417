"""The two losses of variational MCMC teaching, each as its formula.

Energy U is low where data is likely: p_θ(x) ∝ exp(−U_θ(x)).
Source: arXiv:2012.14936; the levers' sources stand beside them.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from vmcmc_dist.teaching.config import EnergyObjective, VAEObjective


def energy_loss(u_data: Tensor, u_refined: Tensor, objective: EnergyObjective) -> Tensor:
    """Contrastive form of the negative log-likelihood's gradient, a scalar.

    L(θ) = E_data[U_θ(x)] − E_refined[U_θ(x̃)] + α (E_data[U²] + E_refined[U²])

    ∇L is the gradient of KL(p_data‖p_θ) − KL(M_θp_α‖p_θ) in θ, with M_θp_α held fixed.
    The α term is IGEBM's energy-magnitude penalty (arXiv:1903.08689); 0 is the paper.

    Args:
        u_data, u_refined: energies [B], [B'].
    """
    u_data, u_refined = u_data.float(), u_refined.float()
    loss = u_data.mean() - u_refined.mean()
    if objective.penalty:
        loss = loss + objective.penalty * (u_data.square().mean() + u_refined.square().mean())
    return loss


def label_loss(u: Tensor, c: Tensor) -> Tensor:
    """−log p(c|x) = U(x, c) + log Σ_c' exp(−U(x, c')), mean over the batch, in nats.

    With it the energy learns the joint law of images and classes. Source: arXiv:1912.03263 (JEM).

    Args:
        u: energies of every class, [B, K]; c: the right ones, int64 [B].
    """
    return functional.cross_entropy(-u.float(), c)


class ELBO(NamedTuple):
    """Mean terms of a negative ELBO over a batch, in nats per sample."""

    reconstruction: Tensor
    kl: Tensor


def negative_elbo(x: Tensor, x_hat: Tensor, mu: Tensor, logvar: Tensor, sigma: float) -> ELBO:
    """The negative ELBO's two terms, without the constant of the Gaussian.

    E_q |x − g(z')|²/(2σ²),   KL(N(μ, v) ‖ N(0, I)) = ½ Σ (v + μ² − 1 − log v)

    Args:
        x, x_hat: [B, ...]; mu, logvar: [B, d], logvar = log v.
    """
    reconstruction = (x.float() - x_hat.float()).square().flatten(1).sum(1) / (2 * sigma**2)
    mu, logvar = mu.float(), logvar.float()
    kl = 0.5 * (logvar.exp() + mu.square() - 1 - logvar).sum(1)
    return ELBO(reconstruction.mean(), kl.mean())


def gaussian_nll(z: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
    """−log N(z; μ, v) without its constant, mean over the batch; all [B, d]."""
    mu, logvar = mu.float(), logvar.float()
    return 0.5 * ((z - mu).square() * torch.exp(-logvar) + logvar).sum(1).mean()


def vae_loss(elbo: ELBO, objective: VAEObjective) -> Tensor:
    """Reconstruction + w·KL, a scalar in nats per sample."""
    return elbo.reconstruction + objective.kl_weight * elbo.kl
