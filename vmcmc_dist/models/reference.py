"""The nets of the method's reference code, and their natural extension to larger images.

28×28 takes the MNIST nets, 32×32 the CIFAR-10 nets; 64, 128, … add one 4×4 stride-2 stage per
doubling to the CIFAR-10 nets. ``width`` scales all channels (64 is the reference). Source: the
code of arXiv:2012.14936.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vmcmc_dist.errors import ConfigError
from vmcmc_dist.models.layers import EnergyHead, SameConv2d, SameConvTranspose2d, ShiftBatchNorm
from vmcmc_dist.models.vae import VAE

Shape = tuple[int, ...]
REFERENCE_WIDTH = 64


def extra_stages(shape: Shape) -> int:
    """Doublings beyond 32 pixels a side; 0 for 28 and 32. ``ConfigError`` for any other size."""
    if len(shape) == 3 and shape[1] == shape[2]:
        size = shape[1]
        if size == 28:
            return 0
        if size >= 32 and size & (size - 1) == 0:
            return size.bit_length() - 6
    raise ConfigError(
        f"the reference nets take square images of 28, 32, 64, 128, … pixels a side, not "
        f"{list(shape)}; change data.image_size, or use net=mlp for vectors"
    )


def initialise(module: nn.Module, std: float = 0.005) -> None:
    """N(0, 0.005²) for convolutions and the energy head, Glorot for dense layers, zero biases."""
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, EnergyHead)):
            nn.init.normal_(layer.weight, std=std)
        elif isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
        else:
            continue
        assert layer.bias is not None
        nn.init.zeros_(layer.bias)


def _leaky() -> nn.Module:
    return nn.LeakyReLU(0.2)


class ReferenceEnergy(nn.Module):
    """U(x) = −f(x), with f the reference's convolutional net: [B, C, H, W] → [B]."""

    def __init__(self, shape: Shape, width: int = REFERENCE_WIDTH) -> None:
        super().__init__()
        extra, c, w = extra_stages(shape), shape[0], width
        if shape[1] == 28:
            convs = [
                SameConv2d(c, w, 5, 2),
                SameConv2d(w, 2 * w, 3, 2),
                SameConv2d(2 * w, 4 * w, 3),
            ]
            self.head = EnergyHead(4 * w, 7, 7, terms=100)
        else:
            convs = [
                SameConv2d(c, w, 3),
                SameConv2d(w, 2 * w, 4, 2),
                SameConv2d(2 * w, 4 * w, 4, 2),
            ]
            convs += [SameConv2d(4 * w, 4 * w, 4, 2) for _ in range(1 + extra)]
            self.head = EnergyHead(4 * w, 4, 4)
        self.features = nn.Sequential(*(layer for conv in convs for layer in (conv, _leaky())))
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        return -self.head(self.features(x))


class GaussianHead(nn.Module):
    """Two dense layers to (μ, logvar) as [B, 2d]; the second one gives log std."""

    def __init__(self, features: int, latent_dim: int) -> None:
        super().__init__()
        self.mu = nn.Linear(features, latent_dim)
        self.log_std = nn.Linear(features, latent_dim)

    def forward(self, h: Tensor) -> Tensor:
        return torch.cat([self.mu(h), 2 * self.log_std(h)], dim=1)


def reference_encoder(
    shape: Shape, latent_dim: int, width: int = REFERENCE_WIDTH, dropout: float | None = None
) -> nn.Module:
    """x [B, C, H, W] → (μ, logvar) as [B, 2d]. ``dropout=None``: 0.2 at 28×28, else none."""
    extra, c, w = extra_stages(shape), shape[0], width
    if shape[1] == 28:
        convs = [SameConv2d(c, w, 4, 2), SameConv2d(w, w, 4, 2), SameConv2d(w, w, 4)]
        features, dropout = 7 * 7 * w, 0.2 if dropout is None else dropout
    else:
        convs = [SameConv2d(c, w, 3), SameConv2d(w, 2 * w, 4, 2), SameConv2d(2 * w, 4 * w, 4, 2)]
        convs += [SameConv2d(4 * w, 8 * w, 4, 2)]
        convs += [SameConv2d(8 * w, 8 * w, 4, 2) for _ in range(extra)]
        features = 4 * 4 * 8 * w
    layers: list[nn.Module] = []
    for conv in convs:
        layers += [conv, _leaky()] + ([nn.Dropout(dropout)] if dropout else [])
    layers += [nn.Flatten(), GaussianHead(features, latent_dim)]
    return nn.Sequential(*layers)


def reference_decoder(shape: Shape, latent_dim: int, width: int = REFERENCE_WIDTH) -> nn.Module:
    """z [B, d] → x̂ [B, C, H, W] in [−1, 1]."""
    extra, c, w = extra_stages(shape), shape[0], width
    layers: list[nn.Module] = [nn.Unflatten(1, (latent_dim, 1, 1))]

    def stage(cin: int, cout: int, kernel: int, size: int, act: nn.Module) -> None:
        layers.extend([SameConvTranspose2d(cin, cout, kernel, 2, size), ShiftBatchNorm(cout), act])

    act: nn.Module = nn.ReLU() if shape[1] == 28 else _leaky()
    layers += [nn.ConvTranspose2d(latent_dim, 4 * w, 4), ShiftBatchNorm(4 * w), act]
    if shape[1] == 28:
        stage(4 * w, 2 * w, 3, 7, act)
        stage(2 * w, w, 3, 14, act)
        layers += [SameConvTranspose2d(w, c, 3, 2, 28)]
    else:
        size = 4
        for _ in range(extra):
            stage(4 * w, 4 * w, 4, size := size * 2, act)
        stage(4 * w, 2 * w, 4, size * 2, act)
        stage(2 * w, w, 4, size * 4, act)
        layers += [SameConvTranspose2d(w, w, 3, 2, size * 8), act, SameConv2d(w, c, 3)]
    return nn.Sequential(*layers, nn.Tanh())


def reference_vae(
    shape: Shape, latent_dim: int, width: int = REFERENCE_WIDTH, dropout: float | None = None
) -> VAE:
    """The reference's encoder and decoder for images of ``shape`` (C, H, W)."""
    vae = VAE(
        reference_encoder(shape, latent_dim, width, dropout),
        reference_decoder(shape, latent_dim, width),
        latent_dim,
    )
    initialise(vae)
    return vae
