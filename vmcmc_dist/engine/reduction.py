"""The mean of a net's gradients over the workers, on its way while other work goes on.

reduction = Reduction(net.parameters())     # after the backward pass; returns at once
...                                         # the other net's forward and backward
reduction.finish()                          # now every .grad is the mean
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import nn
from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors


class Reduction:
    """One all-reduce of all gradients, flat and in order, as DeepSpeed does it at ZeRO stage 0:
    the same sums in the same order, so the same bits. Collective; every worker starts its
    reductions in the same order.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]):
        self.gradients = []
        for parameter in parameters:
            if parameter.grad is None:  # another worker may have one
                parameter.grad = torch.zeros_like(parameter)
            self.gradients.append(parameter.grad)
        self.flat = _flatten_dense_tensors(self.gradients)
        self.work = dist.all_reduce(self.flat, async_op=True)

    @torch.no_grad()
    def finish(self) -> None:
        """Wait for the sum and put the mean into every gradient."""
        self.work.wait()
        self.flat.mul_(1 / dist.get_world_size())
        means = _unflatten_dense_tensors(self.flat, self.gradients)
        torch._foreach_copy_(self.gradients, list(means))
