"""Weights without gradients, for as long as a chain runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def frozen(module: nn.Module) -> Iterator[nn.Module]:
    """Inside, no parameter of ``module`` requires a gradient; the old flags come back at the end.

    The flags are restored when the block raises, too. Parameters that were frozen stay frozen.
    """
    flags = [(parameter, parameter.requires_grad) for parameter in module.parameters()]
    try:
        for parameter, _ in flags:
            parameter.requires_grad_(False)
        yield module
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
