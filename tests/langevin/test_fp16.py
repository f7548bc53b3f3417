"""fp16: gradients below its smallest numbers are lifted, not lost."""

from __future__ import annotations

import torch
from torch import Tensor

from vmcmc_dist.langevin import energy_and_grad


def test_small_gradients_survive() -> None:
    torch.manual_seed(0)
    first, second = 1e-3 * torch.randn(8, 4), 1e-3 * torch.randn(8)

    def energy(x: Tensor) -> Tensor:
        return (x @ first.T) @ second

    x = torch.randn(5, 4)
    expected = (second @ first).expand(5, 4)  # about 1e-6; fp16 counts in steps of 6e-8 there
    _, grad = energy_and_grad(energy, x, precision="fp16")
    assert grad.dtype == torch.float32
    assert (grad - expected).norm() < 0.005 * expected.norm()
