"""One Langevin step, as pure functions of tensors."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def drift_mean(
    x: Tensor,
    grad_u: Tensor,
    *,
    step_size: float,
    reference_std: float | None = None,
    clip_move: float | None = None,
) -> Tensor:
    """Where the drift alone takes x: m(x) = x − (δ²/2)(∂U/∂x + x/s²), the move's L2 ≤ clip_move.

    Shapes: x, grad_u [B, …] → [B, …].
    """
    if reference_std is not None:
        grad_u = grad_u.add(x, alpha=1 / reference_std**2)
    if clip_move is None:
        return x.add(grad_u, alpha=-(step_size**2) / 2)
    length = torch.linalg.vector_norm(grad_u.flatten(1), dim=1) * (step_size**2 / 2)
    scale = (clip_move / length.clamp_min(1e-30)).clamp_max(1.0) * (-(step_size**2) / 2)
    return x.addcmul(grad_u, scale.view(-1, *[1] * (x.dim() - 1)))


def langevin_step(
    x: Tensor,
    grad_u: Tensor,
    eps: Tensor | None,
    *,
    step_size: float,
    temperature: float = 1.0,
    reference_std: float | None = None,
    clip_move: float | None = None,
    clamp: float | None = None,
) -> Tensor:
    """x ← x − (δ²/2)(∂U/∂x + x/s²) + δ√T·ε, then clamped to [−clamp, clamp].

    Shapes: x, grad_u, eps [B, …] → [B, …], inputs unchanged. ``grad_u`` is ∂U/∂x without the
    Gaussian reference when ``reference_std`` is given. ``eps`` ~ N(0, I), unused (may be ``None``)
    at temperature 0. Source: arXiv:2012.14936, the revision step.
    """
    x = drift_mean(x, grad_u, step_size=step_size, reference_std=reference_std, clip_move=clip_move)
    if temperature > 0:
        assert eps is not None, "a step at temperature > 0 needs its noise"
        x = x.add_(eps, alpha=step_size * math.sqrt(temperature))
    return x if clamp is None else x.clamp_(-clamp, clamp)
