"""A net that learns: forward, backward, step. The teaching step knows no more than this."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn


class Learner(Protocol):
    """What :func:`vmcmc_dist.teaching.step.teach` needs of each of its two nets."""

    sampler: Callable[..., Any]
    """The net as chains and proposals call it: U(x) of the energy, g(z) of the VAE."""

    def __call__(self, *inputs: Tensor | None) -> Any:
        """Forward with gradients to the weights."""
        ...

    def backward(self, loss: Tensor) -> None:
        """Accumulate the gradients of a micro-batch's loss (a scalar)."""
        ...

    def step(self) -> Tensor | None:
        """Update the weights; returns the gradient's norm where it is known."""
        ...


class TorchLearner:
    """A plain module and a plain optimizer: for notebooks, tests, and the bench's bare loop.

        energy = TorchLearner(net, torch.optim.Adam(net.parameters(), 1e-4))

    Args:
        accumulation: micro-batches per step; each loss is divided by it.
        clip: gradients are scaled to at most this L2 norm.
        sampler: what proposals and chains call; the module itself if not given. For a VAE:
            ``vae.decode``.
    """

    def __init__(
        self,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        accumulation: int = 1,
        clip: float | None = None,
        sampler: Callable[..., Any] | None = None,
    ):
        self.module, self.optimizer = module, optimizer
        self.sampler = sampler or module
        self.accumulation, self.clip = accumulation, clip

    def __call__(self, *inputs: Tensor | None) -> Any:
        return self.module(*inputs)

    def backward(self, loss: Tensor) -> None:
        (loss / self.accumulation).backward()

    def step(self) -> Tensor | None:
        norm = None
        if self.clip:
            norm = nn.utils.clip_grad_norm_(self.module.parameters(), self.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm
