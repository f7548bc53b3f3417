"""The VAE: encoder q_β(z|x) = N(μ, diag e^logvar), decoder g_α(z)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn


class VAEOutput(NamedTuple):
    """recon g(μ + e^{logvar/2}·ε) [B, …], mu and logvar [B, d], decoded g(z) [B, …] or ``None``."""

    recon: Tensor
    mu: Tensor
    logvar: Tensor
    decoded: Tensor | None


class VAE(nn.Module):
    """An encoder x [B, …] → [B, 2d] (μ and logvar) and a decoder z [B, d] → x̂ [B, …] in [−1, 1].

    One ``forward`` serves a training step: it reconstructs ``x`` and, given ``z``, decodes that as
    well. Noise comes from the caller, so that it can be seeded per global sample. A conditional
    VAE takes c behind x and z: q(z|x, c), g(z, c).
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module, latent_dim: int) -> None:
        super().__init__()
        self.encoder, self.decoder, self.latent_dim = encoder, decoder, latent_dim

    def encode(self, x: Tensor, *c: Tensor) -> tuple[Tensor, Tensor]:
        """(μ, logvar) of q(z|x) or q(z|x, c), each [B, d]."""
        mu, logvar = self.encoder(x, *c).chunk(2, dim=1)
        return mu, logvar

    def decode(self, z: Tensor, *c: Tensor) -> Tensor:
        """g(z) or g(z, c), [B, …]."""
        return self.decoder(z, *c)

    def forward(
        self,
        x: Tensor,
        eps: Tensor,
        z: Tensor | None = None,
        c: Tensor | None = None,
        c_z: Tensor | None = None,
    ) -> VAEOutput:
        """Reconstruct x [B, …] given c with ε [B, d] ~ N(0, I); decode z [B', d] given c_z."""
        given, given_z = (() if t is None else (t,) for t in (c, c_z))
        mu, logvar = self.encode(x, *given)
        recon = self.decode(mu + torch.exp(0.5 * logvar) * eps, *given)
        decoded = None if z is None else self.decode(z, *given_z)
        return VAEOutput(recon, mu, logvar, decoded)
