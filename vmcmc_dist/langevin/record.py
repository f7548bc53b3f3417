"""What a chain tells about itself."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vmcmc_dist.errors import DivergenceError


@dataclass
class ChainInfo:
    """A chain of T steps over B samples, as float32 tensors on the CPU.

    energy        [T] or [T+1]  mean U (with the Gaussian reference) before each step, and at the
                                end if it was asked for or is known
    grad_rms      [T]           root mean square of ∂U/∂x per dimension, before each step
    displacement  [B]           L2 distance of each sample from its start
    acceptance    [T] or None   mean acceptance probability, for adjusted chains
    """

    energy: Tensor
    grad_rms: Tensor
    displacement: Tensor
    acceptance: Tensor | None = None


class Recorder:
    """Collects scalars on the device and moves them to the CPU once, at the end."""

    def __init__(self) -> None:
        self.energy: list[Tensor] = []
        self.grad_rms: list[Tensor] = []
        self.acceptance: list[Tensor] = []

    def step(self, energy: Tensor, grad: Tensor) -> None:
        """Note the energies [B] and the gradient [B, …] before a step."""
        self.energy.append(energy.mean())
        self.grad_rms.append(torch.linalg.vector_norm(grad) / grad.numel() ** 0.5)

    def info(self, x0: Tensor, x: Tensor) -> ChainInfo:
        """The record. Raises ``DivergenceError`` naming the step where a value was not finite."""
        displacement = torch.linalg.vector_norm((x - x0).flatten(1), dim=1)
        parts = [self.energy, self.grad_rms, self.acceptance]
        scalars = (
            torch.stack([s for part in parts for s in part]) if self.energy else x.new_empty(0)
        )
        on_cpu = torch.cat([displacement, scalars]).cpu()
        b, e, g, a = len(displacement), *map(len, parts)
        moved, energy, grad_rms, acceptance = on_cpu.split([b, e, g, a])
        if not on_cpu.isfinite().all():
            _raise_diverged(moved, energy, grad_rms, acceptance)
        return ChainInfo(energy, grad_rms, moved, acceptance if a else None)


def _raise_diverged(moved: Tensor, energy: Tensor, grad_rms: Tensor, acceptance: Tensor) -> None:
    """Say where and in what a chain stopped being finite."""
    causes = []
    for name, values in (
        ("the energy", energy),
        ("the gradient of the energy", grad_rms),
        ("the acceptance probability", acceptance),
    ):
        bad = (~values.isfinite()).nonzero()
        if len(bad):
            causes.append((int(bad[0]), name))
    count = int((~moved.isfinite()).sum())
    step, what = min(causes, default=(len(grad_rms), "the state"))
    raise DivergenceError(
        f"Langevin chain: {what} was not finite at step {step} of {len(grad_rms)} "
        f"({count} of {len(moved)} samples ended not finite). Make langevin.step_size smaller, "
        "set langevin.clip_move or langevin.clamp, or lower the learning rate of the energy."
    )
