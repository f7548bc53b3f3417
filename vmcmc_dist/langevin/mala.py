"""The Metropolis-adjusted Langevin step: exact for exp(−U/T) at any step size."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from vmcmc_dist.langevin.step import drift_mean


class MalaState(NamedTuple):
    """A state with what is known about it: x [B, …], energy U(x) [B], grad ∂U/∂x [B, …]."""

    x: Tensor
    energy: Tensor
    grad: Tensor


def mala_step(
    state: MalaState,
    energy_and_grad: Callable[[Tensor], tuple[Tensor, Tensor]],
    eps: Tensor,
    uniform: Tensor,
    *,
    step_size: float,
    temperature: float = 1.0,
    clip_move: float | None = None,
    clamp: float | None = None,
) -> tuple[MalaState, Tensor]:
    """Propose y = m(x) + δ√T·ε, accept with probability α(x, y); returns the state and α [B].

    α = min(1, exp((U(x) − U(y))/T) · q(x|y)/q(y|x)),  q(y|x) = N(y; m(x), δ²T·I), with m the drift
    of :func:`drift_mean` (its clipping included, so that the step stays exact). With ``clamp`` the
    target is exp(−U/T) inside the box: proposals outside are rejected. An infinite U(y) is
    rejected; a NaN shows as a NaN in α.
    Source: Roberts and Tweedie 1996; Roberts and Rosenthal 1998.
    """
    x, u_x, grad_x = state
    variance = step_size**2 * temperature
    mean_x = drift_mean(x, grad_x, step_size=step_size, clip_move=clip_move)
    y = mean_x.add(eps, alpha=math.sqrt(variance))
    u_y, grad_y = energy_and_grad(y)
    mean_y = drift_mean(y, grad_y, step_size=step_size, clip_move=clip_move)

    backward = (x - mean_y).flatten(1).square().sum(1)
    forward = (y - mean_x).flatten(1).square().sum(1)
    log_alpha = (u_x - u_y) / temperature + (forward - backward) / (2 * variance)
    never = u_y == math.inf
    if clamp is not None:
        never |= (y.abs() > clamp).flatten(1).any(1)
    alpha = log_alpha.masked_fill(never, -math.inf).clamp_max(0).exp()

    accept = uniform < alpha
    wide = accept.view(-1, *[1] * (x.dim() - 1))
    moved = MalaState(
        torch.where(wide, y, x), torch.where(accept, u_y, u_x), torch.where(wide, grad_y, grad_x)
    )
    return moved, alpha
