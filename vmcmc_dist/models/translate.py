"""The decoder of a VAE that is given an image: an encoder–decoder with skips."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vmcmc_dist.models.condition import Condition
from vmcmc_dist.models.residual import ChannelNorm, ResidualBlock, stages


class ImageDecoder(nn.Module):
    """z [B, d], c [B, C', H, H] → x̂ [B, C, H, H] in [−1, 1], float32.

    c goes down through the stages; z joins it at the bottom; on the way up each stage sees the
    features of c at its own size, and the last layer sees c itself. Source: arXiv:1505.04597.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        width: int,
        depth: int,
        latent_dim: int,
        condition: Condition,
    ) -> None:
        super().__init__()
        sides = stages(shape[1], width)
        self.side, bottom = sides[-1]
        skips = [max(1, channels // 2) for _, channels in sides]
        self.stem = nn.Sequential(
            nn.PixelUnshuffle(2), nn.Conv2d(4 * condition.size, skips[0], 3, padding=1)
        )
        self.down = nn.ModuleList(
            ResidualBlock(skips[max(0, k - 1)], skips[k], "down" if k else None, norm=True)
            for k in range(len(sides))
        )
        self.project = nn.Linear(latent_dim, bottom * self.side**2)
        self.up = nn.ModuleList()
        channels = bottom
        for k in reversed(range(len(sides))):
            out = sides[k][1]
            blocks = [ResidualBlock(channels + skips[k], out, norm=True)]
            blocks += [ResidualBlock(out, out, norm=True) for _ in range(depth - 1)]
            self.up.append(nn.Sequential(*blocks))
            channels = out
        fine = max(8, width // 8)
        self.shuffle = nn.Sequential(
            ChannelNorm(channels),
            nn.SiLU(),
            nn.Conv2d(channels, 4 * fine, 3, padding=1),
            nn.PixelShuffle(2),
            nn.SiLU(),
        )
        self.image = nn.Sequential(
            nn.Conv2d(fine + condition.size, 2 * fine, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(2 * fine, shape[0], 3, padding=1, padding_mode="replicate"),
        )

    def forward(self, z: Tensor, c: Tensor) -> Tensor:
        skips = [self.down[0](self.stem(c))]
        for block in self.down[1:]:
            skips.append(block(skips[-1]))
        h = self.project(z).unflatten(1, (self.side, self.side, -1)).permute(0, 3, 1, 2)
        for block, skip in zip(self.up, reversed(skips), strict=True):
            if h.shape[-1] != skip.shape[-1]:
                h = F.interpolate(h, scale_factor=2)
            h = block(torch.cat([h, skip], 1))
        h = self.shuffle(h)
        return torch.tanh(self.image(torch.cat([h, c.to(h.dtype)], 1)).float())
