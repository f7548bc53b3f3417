"""Filling in what a mask hides.

    masked = Masked.of(x, masks("centre", model.shape, len(x)))
    filled = clamped(model, masked, latent(model, masked))       # [B, C, H, W]; visible pixels kept

With e(x) the encoder's mean, g the decoder, M the Langevin chain and ⊕ "the visible pixels put
back", the three ways of the method's reference code are, as far as they are described,

    reconstruct   ⊕ g(e(x_visible))                        hidden pixels are 0 for the encoder
    refine        ⊕ M(g(e(x_visible)))                     the chain may move every pixel
    iterate       x ← ⊕ M(g(e(x))), round after round

In none of them does the chain know the visible pixels. In these it does:

    clamped       M(⊕ start) with the visible pixels held: the hidden ones given the visible
    latent        g(z) with z of p(z | x_visible), found by Langevin steps on z
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from vmcmc_dist.langevin import LangevinConfig, Noise, run_chain, stream_seed
from vmcmc_dist.settings import setting
from vmcmc_dist.trained import Trained


@dataclass(frozen=True)
class Masked:
    """Images with hidden pixels; the hidden values are not in here.

    Attributes:
        visible: [B, C, H, W] in [-1, 1], 0 where hidden.
        hidden: [B, 1, H, W], 1 = hidden.
        c: conditions of a conditional model.
    """

    visible: Tensor
    hidden: Tensor
    c: Tensor | None = None

    @classmethod
    def of(cls, x: Tensor, hidden: Tensor, c: Tensor | None = None) -> Masked:
        """Hide pixels of x [B, C, H, W]."""
        return cls(x.masked_fill(hidden > 0, 0.0), hidden, c)

    def paste(self, x: Tensor) -> Tensor:
        """x with the visible pixels put back, to the last bit."""
        return torch.where(self.hidden > 0, x, self.visible)


@dataclass(frozen=True)
class Chain:
    """The image chain's steps, temperature (None: as trained) and seed."""

    steps: int | None = None
    temperature: float | None = None
    seed: int = 0

    def run(self, model: Trained, x: Tensor, masked: Masked, free: Tensor | None = None) -> Tensor:
        """M(x) on x [B, C, H, W]; with ``free`` only there."""
        return model.refine(
            x,
            c=masked.c,
            free=free,
            steps=self.steps,
            temperature=self.temperature,
            seed=self.seed,
        )[0]


@dataclass
class LatentChain:
    """Langevin on z given the visible pixels, in units of the encoder's standard deviation."""

    steps: int = setting(50, "steps on z", unit="steps", ge=0)
    step_size: float = setting(1.0, "δ, in standard deviations of q(z|x)", gt=0)
    temperature: float = setting(0.0, "1 draws from p(z|visible), 0 goes to its mode", ge=0)
    sigma: float | None = setting(None, "σ of the pixels given z; null = vae.sigma", gt=0)
    rounds: int = setting(10, "encode-decode rounds that find the first z", unit="rounds", ge=0)


def autoencode(model: Trained, x: Tensor, c: Tensor | None = None) -> Tensor:
    """g(e(x)) [B, C, H, W]."""
    return model.decode(model.encode(x, c)[0], c)


def mean_fill(masked: Masked) -> Tensor:
    """Hidden pixels at the mean colour of the visible ones: what any way should beat."""
    seen = (1 - masked.hidden).sum((2, 3), keepdim=True)
    mean = masked.visible.sum((2, 3), keepdim=True) / seen
    return masked.paste(mean.expand_as(masked.visible))


def reconstruct(model: Trained, masked: Masked) -> Tensor:
    """⊕ g(e(x_visible))."""
    return masked.paste(autoencode(model, masked.visible, masked.c))


def refine(model: Trained, masked: Masked, chain: Chain) -> Tensor:
    """⊕ M(g(e(x_visible))): the chain moves freely, the visible pixels come back at its end."""
    start = autoencode(model, masked.visible, masked.c)
    return masked.paste(chain.run(model, start, masked))


def iterate(model: Trained, masked: Masked, rounds: int, chain: Chain | None = None) -> Tensor:
    """x ← ⊕ M(g(e(x))), ``rounds`` times from x_visible; without a chain x ← ⊕ g(e(x))."""
    x = masked.visible
    for number in range(rounds):
        x = autoencode(model, x, masked.c)
        if chain is not None:
            seed = stream_seed(chain.seed, "round", number)
            x = Chain(chain.steps, chain.temperature, seed).run(model, x, masked)
        x = masked.paste(x)
    return x


def clamped(model: Trained, masked: Masked, start: Tensor, chain: Chain) -> Tensor:
    """M from ⊕ start, in which the visible pixels stay: x_hidden given x_visible under exp(−U)."""
    return chain.run(model, masked.paste(start), masked, free=masked.hidden)


def latent(model: Trained, masked: Masked, config: LatentChain, seed: int = 0) -> Tensor:
    """⊕ g(z), z from Langevin on p(z | x_visible), started at the encoding of ``iterate``."""
    given = () if masked.c is None else (masked.c,)
    mu, logvar = model.encode(iterate(model, masked, config.rounds), masked.c)
    sigma = model.config.vae.sigma if config.sigma is None else config.sigma
    energy = posterior_energy(lambda z: model.vae.decode(z, *given).float(), masked, sigma)
    z = posterior_codes(energy, mu, (0.5 * logvar).exp(), config, seed=seed)
    return masked.paste(model.decode(z, masked.c))


def posterior_energy(
    decode: Callable[[Tensor], Tensor], masked: Masked, sigma: float
) -> Callable[[Tensor], Tensor]:
    """U(z) = |z|²/2 + |x − g(z)|²_visible / 2σ²: z [B, d] → [B], −log p(z | x_visible) + const."""

    def energy(z: Tensor) -> Tensor:
        residual = (masked.visible - decode(z)) * (1 - masked.hidden)
        misfit = residual.square().flatten(1).sum(1) / (2 * sigma**2)
        return z.square().sum(1) / 2 + misfit

    return energy


def posterior_codes(
    energy: Callable[[Tensor], Tensor],
    centre: Tensor,
    scale: Tensor,
    config: LatentChain,
    *,
    seed: int = 0,
) -> Tensor:
    """z = centre + scale·w [B, d] after a Langevin chain on w from 0, with U of z.

    ``scale`` (the encoder's standard deviations) is the chain's preconditioner: codes that the
    pixels fix tightly take small steps, free ones large. The law of z is not changed by it.
    """
    z, _ = run_chain(
        lambda w: energy(centre + scale * w),
        torch.zeros_like(centre),
        LangevinConfig(
            steps=config.steps, step_size=config.step_size, temperature=config.temperature
        ),
        Noise(stream_seed(seed, "codes"), centre.device),
    )
    return centre + scale * z
