"""How close one image is to another: MSE, PSNR and SSIM, per image, on all pixels or on some.

    hidden = masks("centre", x.shape[1:], len(x))            # 1 = count this pixel
    psnr(filled, x, hidden).mean()                           # dB, over hidden pixels alone

Images are [B, C, H, W] in [-1, 1], so the data range is 2. ``where`` is [B or 1, 1, H, W], 1 at
the pixels that count. Everything is computed in float64 and returned as float64 [B].
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from vmcmc_dist.errors import DataError

DATA_RANGE = 2.0
ROUNDING_MSE = (DATA_RANGE / 255) ** 2 / 12
"""Mean squared error of rounding to 8 bits: no smaller error is told apart."""

WINDOW, WINDOW_STD = 11, 1.5


def mse(x: Tensor, y: Tensor, where: Tensor | None = None) -> Tensor:
    """Mean squared error per image [B], over channels and pixels; in (units of the pixels)²."""
    squared = (_images(x) - _images(y, like=x)).square().mean(1, keepdim=True)
    if where is None:
        return squared.mean((1, 2, 3))
    weight = where.to(squared).expand_as(squared)
    count = weight.sum((1, 2, 3))
    if (count == 0).any():
        raise DataError("a mask counts no pixel of an image: mask at least one")
    return (squared * weight).sum((1, 2, 3)) / count


def psnr(x: Tensor, y: Tensor, where: Tensor | None = None) -> Tensor:
    """Peak signal-to-noise ratio per image [B], 10 log₁₀(2² / MSE), in dB; higher is closer.

    At most 58.9 dB: an error below that of rounding to 8 bits counts as that, so that equal
    images (and black corners) have a finite value.
    """
    return 10 * torch.log10(DATA_RANGE**2 / mse(x, y, where).clamp_min(ROUNDING_MSE))


def ssim_map(x: Tensor, y: Tensor) -> Tensor:
    """Local SSIM [B, C, H−10, W−10]: one value per place where the whole window fits.

        (2 μx μy + C1)(2 σxy + C2) / ((μx² + μy² + C1)(σx² + σy² + C2))

    Moments under a Gaussian window of 11×11, σ 1.5; C1 = (0.01·2)², C2 = (0.03·2)².
    Source: Wang et al. 2004, eq. 13.
    """
    x, y = _images(x), _images(y, like=x)
    if min(x.shape[2:]) < WINDOW:
        raise DataError(f"SSIM needs images of at least {WINDOW}×{WINDOW}, got {list(x.shape)}")
    c1, c2 = (0.01 * DATA_RANGE) ** 2, (0.03 * DATA_RANGE) ** 2
    mean_x, mean_y, xx, yy, xy = _local_means(torch.stack([x, y, x * x, y * y, x * y]))
    var_x, var_y, cov = xx - mean_x**2, yy - mean_y**2, xy - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return luminance * (2 * cov + c2) / (var_x + var_y + c2)


def ssim(x: Tensor, y: Tensor, where: Tensor | None = None) -> Tensor:
    """Mean SSIM per image [B], 1 = equal, channels averaged; over windows centred where asked.

    NaN for an image whose counted pixels all lie within 5 pixels of its border.
    """
    local = ssim_map(x, y).mean(1, keepdim=True)
    if where is None:
        return local.mean((1, 2, 3))
    edge = WINDOW // 2
    weight = where[..., edge:-edge, edge:-edge].to(local).expand_as(local)
    return (local * weight).sum((1, 2, 3)) / weight.sum((1, 2, 3))


def _local_means(images: Tensor) -> Tensor:
    """Gaussian-weighted means [..., H, W] → [..., H−10, W−10]."""
    offsets = torch.arange(WINDOW, dtype=images.dtype, device=images.device) - WINDOW // 2
    window = torch.exp(-offsets.square() / (2 * WINDOW_STD**2))
    window = window / window.sum()
    flat = images.flatten(0, -3)[:, None]
    flat = functional.conv2d(flat, window.view(1, 1, -1, 1))
    flat = functional.conv2d(flat, window.view(1, 1, 1, -1))
    return flat.view(*images.shape[:-2], *flat.shape[-2:])


def _images(x: Tensor, like: Tensor | None = None) -> Tensor:
    if x.ndim != 4 or (like is not None and x.shape != like.shape):
        other = "" if like is None else f" beside {list(like.shape)}"
        raise DataError(
            f"images [B, C, H, W] of one shape are compared, got {list(x.shape)}{other}"
        )
    return x.double()
