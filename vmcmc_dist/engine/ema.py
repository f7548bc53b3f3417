"""Exponential moving average of a net's weights, with its half-life in images."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class EMA:
    """w̄ ← w̄ + (1 − β)(w − w̄) with β = ½^(batch / half-life), in fp32.

    Early in a run the half-life is at most ``ramp`` × the images seen, so that the average
    forgets the random start (EDM, arXiv:2206.00364).

    Args:
        halflife: images; 0 keeps the average equal to the weights.
    """

    def __init__(self, module: nn.Module, halflife: float, ramp: float = 0.1):
        self.module = copy.deepcopy(module).eval().requires_grad_(False).float()
        self.halflife, self.ramp = halflife, ramp
        self._names = list(self.module.state_dict())
        self._tensors = list(self.module.state_dict().values())

    @torch.no_grad()
    def update(self, weights: dict[str, Tensor], batch_size: int, images: int) -> None:
        """Blend in ``weights`` (full, by name) after an iteration of ``batch_size`` images."""
        new = [weights[name] for name in self._names]
        halflife = min(self.halflife, self.ramp * images) if self.halflife else 0.0
        weight = 1.0 if halflife <= 0 else 1 - 0.5 ** (batch_size / halflife)
        floating = [i for i, t in enumerate(self._tensors) if t.is_floating_point()]
        torch._foreach_lerp_(
            [self._tensors[i] for i in floating], [new[i].float() for i in floating], weight
        )
        for i, tensor in enumerate(self._tensors):
            if not tensor.is_floating_point():
                tensor.copy_(new[i])
