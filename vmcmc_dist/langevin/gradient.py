"""Energy and its gradient w.r.t. x, in the precision asked for."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
from torch import Tensor

Energy = Callable[[Tensor], Tensor]
Precision = Literal["fp32", "bf16", "fp16"]

_DTYPE = {"bf16": torch.bfloat16, "fp16": torch.float16}
_FP16_SCALE = 2.0**10  # lifts ∂U/∂x of a fp16 net above the smallest fp16 numbers


def _casting(device: torch.device, precision: Precision) -> AbstractContextManager:
    if precision in _DTYPE:
        return torch.autocast(device.type, dtype=_DTYPE[precision])
    if precision != "fp32":
        raise ValueError(f"precision must be fp32, bf16 or fp16, got {precision!r}")
    if torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def energy_and_grad(
    energy: Energy, x: Tensor, *, reference_std: float | None = None, precision: Precision = "fp32"
) -> tuple[Tensor, Tensor]:
    """(U(x) + |x|²/2s², its gradient w.r.t. x): [B] and [B, …], both float32 and detached.

    Only the gradient w.r.t. x is computed. The Gaussian reference is added in float32.
    Errors: ``ValueError`` if ``energy`` does not return one value per sample.
    """
    x = x.detach().requires_grad_(True)
    with torch.enable_grad(), _casting(x.device, precision):
        u = energy(x)
        if u.shape != x.shape[:1]:
            raise ValueError(
                f"an energy returns one value per sample, shape [{x.shape[0]}]; "
                f"this one returned {list(u.shape)}"
            )
        scale = _FP16_SCALE if precision == "fp16" else 1.0
        (grad,) = torch.autograd.grad(u.float().sum() * scale, x)
    x, u, grad = x.detach(), u.detach().float(), grad.float()
    if scale != 1.0:
        grad = grad / scale
    if reference_std is not None:
        grad = grad.add(x, alpha=1 / reference_std**2)
        u = u.add(x.flatten(1).square().sum(1), alpha=1 / (2 * reference_std**2))
    return u, grad
