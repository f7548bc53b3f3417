"""From stored values to the range that nets see."""

from __future__ import annotations

import torch
from torch import Tensor


def to_model_range(x: Tensor) -> Tensor:
    """uint8 0…255 → float32 in [−1, 1], x/127.5 − 1; float values pass unchanged."""
    return x.float() / 127.5 - 1 if x.dtype == torch.uint8 else x.float()


def to_pixels(x: Tensor) -> Tensor:
    """Float in [−1, 1] → uint8 0…255, clamped and rounded, (x + 1)·127.5; uint8 pass unchanged."""
    return x if x.dtype == torch.uint8 else ((x.float().clamp(-1, 1) + 1) * 127.5).round().byte()
