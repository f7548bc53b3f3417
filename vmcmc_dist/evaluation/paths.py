"""Paths between codes, and how smooth the images along them are.

z = path(z0, z1, points=9, mode="spherical")          # [9, B, d]
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vmcmc_dist.errors import ConfigError

NEARLY_STRAIGHT = 1e-4  # sine of the angle below which the two formulas agree to rounding


def linear(z0: Tensor, z1: Tensor, t: float) -> Tensor:
    """(1 − t) z0 + t z1, [B, d]."""
    return (1 - t) * z0 + t * z1


def spherical(z0: Tensor, z1: Tensor, t: float) -> Tensor:
    """sin((1−t)ω)/sin ω · z0 + sin(tω)/sin ω · z1 with ω the angle between z0 and z1, [B, d].

    Keeps the norm where both ends have it, as most of N(0, I_d) has; linear where ω is 0 or π.
    Source: Shoemake 1985; White 2016, arXiv:1609.04468.
    """
    cosine = torch.cosine_similarity(z0, z1, dim=1).clamp(-1, 1)[:, None]
    angle, sine = cosine.acos(), (1 - cosine.square()).sqrt()
    on_arc = (((1 - t) * angle).sin() * z0 + (t * angle).sin() * z1) / sine
    return torch.where(sine > NEARLY_STRAIGHT, on_arc, linear(z0, z1, t))


MODES: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "linear": linear,
    "spherical": spherical,
}


def path(z0: Tensor, z1: Tensor, points: int, mode: str) -> Tensor:
    """Codes [points, B, d] at even t from z0 to z1 [B, d], ends included."""
    if mode not in MODES:
        raise ConfigError(f"no path {mode!r}; there are {', '.join(MODES)}")
    if points < 2:
        raise ConfigError(f"a path has at least its two ends, got points={points}")
    return torch.stack([MODES[mode](z0, z1, i / (points - 1)) for i in range(points)])


def strides(x: Tensor) -> Tensor:
    """L2 distances between neighbours along paths x [points, B, …]: [points − 1, B]."""
    return torch.linalg.vector_norm((x[1:] - x[:-1]).flatten(2), dim=2)
