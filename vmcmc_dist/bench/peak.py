"""What convolutions can reach on this machine, and how much work a chain's step is."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from vmcmc_dist.langevin.gradient import energy_and_grad


class ConvPeak:
    """A large 3×3 convolution, forward, in one dtype: as close to the peak as a net can come.

    128 → 128 channels on 32×32, channels last. ``run`` is one forward of ``flops`` operations.
    """

    def __init__(self, dtype: torch.dtype, device: torch.device, batch: int = 8) -> None:
        form = {"dtype": dtype, "device": device}
        self.x = torch.randn(batch, 128, 32, 32, **form).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.weight = torch.randn(128, 128, 3, 3, **form).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.flops = 2 * batch * 128 * 128 * 9 * 32 * 32

    @torch.no_grad()
    def run(self) -> Tensor:
        return F.conv2d(self.x, self.weight, padding=1)


def step_flops(energy: Callable[[Tensor], Tensor], x: Tensor) -> int:
    """Floating-point operations of U and ∂U/∂x at x [B, …], as torch counts them."""
    with FlopCounterMode(display=False) as counter:
        energy_and_grad(lambda leaf: energy(leaf.view_as(leaf)), x)  # it cannot count at a leaf
    return counter.get_total_flops()
