"""Multilayer perceptrons for vectors (and anything small enough to flatten)."""

from __future__ import annotations

import math

from torch import Tensor, nn

from vmcmc_dist.models.layers import EnergyHead
from vmcmc_dist.models.spectral import SpectralLinear
from vmcmc_dist.models.vae import VAE

Shape = tuple[int, ...]


def _hidden(
    features: int, width: int, depth: int, linear: type[nn.Linear] = nn.Linear, dropout: float = 0.0
) -> list[nn.Module]:
    """``depth`` times: linear, SiLU (and dropout)."""
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [linear(features, width), nn.SiLU()]
        layers += [nn.Dropout(dropout)] if dropout else []
        features = width
    return layers


class MLPEnergy(nn.Module):
    """U(x) = head(SiLU layers(x)): [B, …] → [B]."""

    def __init__(
        self, shape: Shape, width: int = 128, depth: int = 3, spectral_norm: bool = False
    ) -> None:
        super().__init__()
        linear = SpectralLinear if spectral_norm else nn.Linear
        self.features = nn.Sequential(
            nn.Flatten(), *_hidden(math.prod(shape), width, depth, linear)
        )
        self.head = EnergyHead(width if depth else math.prod(shape))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


def mlp_vae(
    shape: Shape, latent_dim: int, width: int = 128, depth: int = 3, dropout: float = 0.0
) -> VAE:
    """A VAE of two SiLU perceptrons; the decoder is linear at its end (vectors have no range)."""
    size = math.prod(shape)
    last_in, last_z = (width, width) if depth else (size, latent_dim)
    encoder = nn.Sequential(
        nn.Flatten(),
        *_hidden(size, width, depth, dropout=dropout),
        nn.Linear(last_in, 2 * latent_dim),
    )
    decoder = nn.Sequential(
        *_hidden(latent_dim, width, depth), nn.Linear(last_z, size), nn.Unflatten(1, shape)
    )
    return VAE(encoder, decoder, latent_dim)
