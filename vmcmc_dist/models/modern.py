"""The ``modern`` nets: residual, with SiLU; no batch norm, so that no sample sees another."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vmcmc_dist.models.condition import (
    Condition,
    LabelProjection,
    has_labels,
    image_channels,
    label_features,
)
from vmcmc_dist.models.layers import EnergyHead
from vmcmc_dist.models.residual import Blur, ChannelNorm, ResidualBlock, pyramid, stages
from vmcmc_dist.models.translate import ImageDecoder
from vmcmc_dist.models.vae import VAE


class ModernEnergy(nn.Module):
    """U_θ: x [B, C, H, H] in [−1, 1] → [B], low = data; ``depth`` blocks in each of the stages.

    U(x, c) takes labels by projection on the last features, an image c as further channels. Given
    classes but no c, it returns the energies of all of them, [B, K].
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        width: int,
        depth: int,
        *,
        spectral_norm: bool = False,
        condition: Condition | None = None,
    ) -> None:
        super().__init__()
        self.blur = Blur(shape[0])
        channels = shape[0] + image_channels(condition)
        self.features = pyramid((channels, *shape[1:]), width, depth, spectral_norm=spectral_norm)
        side, last = stages(shape[1], width)[-1]
        self.head = EnergyHead(last, side, side)
        self.label = (
            LabelProjection(condition, last) if condition and has_labels(condition) else None
        )

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        x = self.blur(x)
        if c is not None and self.label is None:
            x = torch.cat([x, c], 1)
        h = self.features(x)
        u = self.head(h)
        if self.label is None:
            return u
        return u[:, None] + self.label.every(h) if c is None else u + self.label(h, c)


class Encoder(nn.Module):
    """x [B, C, H, H] (and c) → (μ, logvar) side by side, [B, 2d], float32."""

    def __init__(
        self,
        shape: tuple[int, ...],
        width: int,
        depth: int,
        latent_dim: int,
        dropout: float,
        condition: Condition | None = None,
    ) -> None:
        super().__init__()
        channels = shape[0] + image_channels(condition)
        self.features = pyramid((channels, *shape[1:]), width, depth, norm=True)
        side, last = stages(shape[1], width)[-1]
        self.dropout = nn.Dropout(dropout)
        self.labels = condition if has_labels(condition) else None
        labels = self.labels.size if self.labels else 0
        self.project = nn.Linear(last * side * side + labels, 2 * latent_dim)

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        if c is not None and self.labels is None:
            x = torch.cat([x, c], 1)
        h = self.dropout(self.features(x).flatten(1))
        if c is not None and self.labels is not None:
            h = torch.cat([h, label_features(c, self.labels, h)], 1)
        return self.project(h).float()


class Decoder(nn.Module):
    """z [B, d] (and labels c) → x̂ [B, C, H, H] in [−1, 1], float32: the trunk turned round.

    The last two layers stand at full resolution with few channels, and the very last pads by
    repeating the border, so that neither dots nor frames show.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        width: int,
        depth: int,
        latent_dim: int,
        condition: Condition | None = None,
    ) -> None:
        super().__init__()
        sides = stages(shape[1], width)[::-1]
        self.side, channels = sides[0]
        self.labels = condition
        labels = condition.size if condition else 0
        self.project = nn.Linear(latent_dim + labels, channels * self.side**2)
        blocks: list[nn.Module] = []
        for k, (_, out) in enumerate(sides):
            for i in range(depth if k else depth - 1):
                up = "up" if k and not i else None
                blocks.append(ResidualBlock(channels, out, up, norm=True))
                channels = out
        self.blocks = nn.Sequential(*blocks, ChannelNorm(channels), nn.SiLU())
        fine = max(8, width // 8)
        self.image = nn.Sequential(
            nn.Conv2d(channels, 4 * fine, 3, padding=1),
            nn.PixelShuffle(2),
            nn.SiLU(),
            nn.Conv2d(fine, shape[0], 3, padding=1, padding_mode="replicate"),
        )

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        if c is not None and self.labels is not None:
            z = torch.cat([z, label_features(c, self.labels, z)], 1)
        h = self.project(z).unflatten(1, (self.side, self.side, -1)).permute(0, 3, 1, 2)
        return torch.tanh(self.image(self.blocks(h)).float())


class ModernVAE(VAE):
    """The residual VAE, with channel norm: x [B, C, H, H] in [−1, 1], z [B, d].

    ``width`` is the decoder's; the encoder, which has the easier part, takes half of it. Given an
    image as condition, the decoder is an encoder–decoder with skips from that image.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        width: int,
        depth: int,
        latent_dim: int,
        dropout: float = 0.0,
        condition: Condition | None = None,
    ) -> None:
        encoder = Encoder(shape, max(1, width // 2), depth, latent_dim, dropout, condition)
        decoder: nn.Module
        if condition is not None and condition.kind == "image":
            decoder = ImageDecoder(shape, width, depth, latent_dim, condition)
        else:
            decoder = Decoder(shape, width, depth, latent_dim, condition)
        super().__init__(encoder, decoder, latent_dim)
