"""Masks for inpainting: 1 = hidden (to be filled), 0 = visible.

    hidden = masks("free_form", (3, 64, 64), n=8, seed=0)    # float32 [8, 1, 64, 64]
    x_masked = x * (1 - hidden)

A mask is a function of (kind, shape, share, seed, index) alone: the same for a sample whatever
the batch or the worker it is in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from vmcmc_dist.errors import ConfigError

Draw = Callable[[np.random.Generator, int, int, float], np.ndarray]


def masks(
    kind: str, shape: tuple[int, ...], n: int, seed: int = 0, share: float | None = None
) -> Tensor:
    """Masks of samples 0 … n−1, float32 [n, 1, H, W]; the rest as in :func:`masks_at`."""
    return masks_at(kind, shape, range(n), seed, share)


def masks_at(
    kind: str,
    shape: tuple[int, ...],
    indices: Iterable[int] | Tensor,
    seed: int = 0,
    share: float | None = None,
) -> Tensor:
    """Masks float32 [n, 1, H, W] of the samples with these global ``indices``, 1 = hidden.

    kind     what is hidden                                                     share if not given
    left     the left columns (right, top, bottom likewise)                     1/2
    centre   the rectangle in the middle, of the image's proportions            1/4
    random   pixels one by one, exactly this share of them                      1/2
    free_form  thick random strokes, until at least this share is hidden        1/4
    mixed    for each sample one of the kinds above, by chance                  as of that kind

    Args:
        shape: of an image, its last two axes H and W at least 4.
        share: hidden share of the pixels, between 0 and 1.

    Errors: ``ConfigError`` for an unknown kind, a share out of range, or data that are no images.
    Source of free-form masks: Yu et al. 2019, arXiv:1806.03589, §3.4 (strokes; ours until a share).
    """
    if kind not in MASK_KINDS:
        raise ConfigError(f"no mask {kind!r}; there are {', '.join(MASK_KINDS)}")
    if share is not None and not 0 < share < 1:
        raise ConfigError(f"the hidden share of a mask lies between 0 and 1, got {share:g}")
    if len(shape) < 2 or min(shape[-2:]) < 4:
        raise ConfigError(f"masks are for images of at least 4×4 pixels, not for shape {shape}")
    height, width = shape[-2:]
    rows = [_mask(kind, height, width, int(index), seed, share) for index in indices]
    stack = np.stack(rows) if rows else np.zeros((0, height, width), dtype=bool)
    return torch.from_numpy(stack.astype(np.float32))[:, None]


def _mask(
    kind: str, height: int, width: int, index: int, seed: int, share: float | None
) -> np.ndarray:
    rng = np.random.default_rng([seed, index])
    if kind == "mixed":
        kind = list(_DRAW)[rng.integers(len(_DRAW))]
    draw, usual = _DRAW[kind]
    return draw(rng, height, width, usual if share is None else share)


def _lines(share: float, size: int) -> int:
    """How many of ``size`` lines are hidden: at least one, never all."""
    return min(max(round(share * size), 1), size - 1)


def _left(rng: np.random.Generator, height: int, width: int, share: float) -> np.ndarray:
    hidden = np.zeros((height, width), dtype=bool)
    hidden[:, : _lines(share, width)] = True
    return hidden


def _right(rng: np.random.Generator, height: int, width: int, share: float) -> np.ndarray:
    return _left(rng, height, width, share)[:, ::-1]


def _top(rng: np.random.Generator, height: int, width: int, share: float) -> np.ndarray:
    return _left(rng, width, height, share).T


def _bottom(rng: np.random.Generator, height: int, width: int, share: float) -> np.ndarray:
    return _top(rng, height, width, share)[::-1]


def _centre(rng: np.random.Generator, height: int, width: int, share: float) -> np.ndarray:
    h, w = (_lines(math.sqrt(share), size) for size in (height, width))
    hidden = np.zeros((height, width), dtype=bool)
    top, left = (height - h) // 2, (width - w) // 2
    hidden[top : top + h, left : left + w] = True
    return hidden


def _random(rng: np.random.Generator, height: int, width: int, share: float) -> np.ndarray:
    hidden = np.zeros(height * width, dtype=bool)
    hidden[rng.permutation(height * width)[: _lines(share, height * width)]] = True
    return hidden.reshape(height, width)


def _free_form(rng: np.random.Generator, height: int, width: int, share: float) -> np.ndarray:
    """Strokes that wander, segment by segment, until ``share`` is hidden."""
    canvas = Image.new("1", (width, height))
    pen = ImageDraw.Draw(canvas)
    hidden = np.zeros((height, width), dtype=bool)
    while hidden.mean() < share:
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        angle = rng.uniform(0, 2 * math.pi)
        brush = max(1.0, rng.uniform(0.08, 0.2) * min(height, width))
        for _ in range(rng.integers(3, 8)):
            angle += rng.normal(0, 0.9)
            length = rng.uniform(0.1, 0.3) * max(height, width)
            start = x, y
            x = float(np.clip(x + length * math.cos(angle), 0, width - 1))
            y = float(np.clip(y + length * math.sin(angle), 0, height - 1))
            pen.line([start, (x, y)], fill=1, width=round(brush))
            r = brush / 2
            pen.ellipse([x - r, y - r, x + r, y + r], fill=1)
            drawn = np.asarray(canvas)
            if drawn.all():  # a share near 1 on a small image
                return hidden
            hidden = drawn.copy()
            if hidden.mean() >= share:
                break
    return hidden


_DRAW: dict[str, tuple[Draw, float]] = {
    "left": (_left, 0.5),
    "right": (_right, 0.5),
    "top": (_top, 0.5),
    "bottom": (_bottom, 0.5),
    "centre": (_centre, 0.25),
    "random": (_random, 0.5),
    "free_form": (_free_form, 0.25),
}
"""Kind → how it is drawn, and the share it hides by default."""

MASK_KINDS = (*_DRAW, "mixed")
"""Kinds of masks."""
