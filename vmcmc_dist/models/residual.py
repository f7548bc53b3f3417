"""The residual stages that the ``modern`` nets are built of: SiLU, average pooling, no batch norm.

Pixels are unshuffled to half the sides at once (a full-resolution stage costs most and gives
least), then each stage halves the sides down to 7 or 4. Channels: width · min(2^stage, 4).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vmcmc_dist.models.spectral import SpectralConv2d

SMALLEST = 7  # pixels a side at which the stages stop


def stages(size: int, width: int) -> list[tuple[int, int]]:
    """(pixels a side, channels) of every stage after the stem, e.g. 28 px: (14, w), (7, 2w)."""
    sides = [size // 2]
    while sides[-1] > SMALLEST:
        sides.append(sides[-1] // 2)
    return [(side, width * min(2**k, 4)) for k, side in enumerate(sides)]


class Blur(nn.Module):
    """The fixed filter [1 2 1]ᵀ[1 2 1]/16 on each channel: x [B, C, H, W], same shape.

    It removes what alternates from pixel to pixel, which an unshuffled stem would see by phase:
    without it a chain writes dots of that period into its samples. Source: arXiv:1904.11486.
    """

    kernel: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        line = torch.tensor([1.0, 2.0, 1.0]) / 4
        kernel = (line[:, None] * line).expand(channels, 1, 3, 3)
        self.register_buffer("kernel", kernel.contiguous(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, (1, 1, 1, 1), mode="replicate")
        return F.conv2d(x, self.kernel.to(x.dtype), groups=x.shape[1])


class ChannelNorm(nn.Module):
    """Layer norm over the channels of each pixel: independent of batch and of place.

    x: [B, C, H, W], channels-last memory is fastest. Source: arXiv:1607.06450, arXiv:2201.03545.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)
        weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
        return F.layer_norm(x, (x.shape[-1],), weight, bias).permute(0, 3, 1, 2)


class ResidualBlock(nn.Module):
    """skip(x) + conv(silu(conv(silu(x)))); halves (``"down"``) or doubles (``"up"``) the sides.

    x: [B, C, H, W] → [B, C', H', W']. Source: arXiv:1603.05027 (pre-activation).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        resample: str | None = None,
        norm: bool = False,
        spectral_norm: bool = False,
    ) -> None:
        super().__init__()
        conv = SpectralConv2d if spectral_norm else nn.Conv2d
        self.norm1 = ChannelNorm(in_channels) if norm else nn.Identity()
        self.norm2 = ChannelNorm(out_channels) if norm else nn.Identity()
        self.conv1 = conv(in_channels, out_channels, 3, padding=1)
        self.conv2 = conv(out_channels, out_channels, 3, padding=1)
        same = in_channels == out_channels
        self.skip = nn.Identity() if same else conv(in_channels, out_channels, 1, bias=False)
        self.resample = resample

    def forward(self, x: Tensor) -> Tensor:
        if self.resample == "up":
            x = F.interpolate(x, scale_factor=2)
        h = self.conv1(F.silu(self.norm1(x)))
        if self.resample == "down":
            x, h = F.avg_pool2d(x, 2), F.avg_pool2d(h, 2)
        return self.skip(x) + self.conv2(F.silu(self.norm2(h)))


def pyramid(
    shape: tuple[int, ...], width: int, depth: int, norm: bool = False, spectral_norm: bool = False
) -> nn.Sequential:
    """Image [B, C, H, H] → features [B, C', h, h] with h = 7 or 4: the trunk of both nets.

    ``depth`` blocks in each stage; where a stage is entered by halving, its first block does that.
    The stem counts as the first block of the first stage.
    """
    conv = SpectralConv2d if spectral_norm else nn.Conv2d
    sides = stages(shape[1], width)
    layers = [nn.PixelUnshuffle(2), conv(4 * shape[0], width, 3, padding=1)]
    channels = width
    for k, (_, out) in enumerate(sides):
        for i in range(depth if k else depth - 1):
            down = "down" if k and not i else None
            layers.append(ResidualBlock(channels, out, down, norm, spectral_norm))
            channels = out
    layers.append(ResidualBlock(channels, channels, None, norm, spectral_norm))
    layers += [ChannelNorm(channels) if norm else nn.Identity(), nn.SiLU()]
    return nn.Sequential(*layers)
