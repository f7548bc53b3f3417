"""What conditional nets are told beside x."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from vmcmc_dist.errors import ConfigError


@dataclass(frozen=True)
class Condition:
    """The kind of c and its size.

    class       size K classes:      c int64 [B] in 0…K−1
    attributes  size A attributes:   c float32 [B, A] of 0 and 1
    image       size C channels:     c float32 [B, C, H, W] in [-1, 1], height and width of x
    """

    kind: Literal["class", "attributes", "image"]
    size: int

    @classmethod
    def of(cls, found: tuple[str, int] | None) -> Condition | None:
        """From (kind, size) as the data say them; ``None`` stays ``None``."""
        return None if found is None else cls(cast(Any, found[0]), found[1])

    def shape(self, rows: int, sample: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of c for ``rows`` samples of shape ``sample``."""
        match self.kind:
            case "class":
                return (rows,)
            case "attributes":
                return (rows, self.size)
        return (rows, self.size, *sample[1:])

    def checked(self, c: Tensor, rows: int, sample: tuple[int, ...]) -> Tensor:
        """c in its type. ``ConfigError`` where it does not fit."""
        expected = self.shape(rows, sample)
        if tuple(c.shape) != expected:
            raise ConfigError(
                f"a condition of kind {self.kind} has shape {list(expected)} for {rows} samples, "
                f"got {list(c.shape)}"
            )
        if self.kind != "class":
            return c.float()
        if len(c) and (c.is_floating_point() or c.min() < 0 or c.max() >= self.size):
            raise ConfigError(f"classes are whole numbers from 0 to {self.size - 1}")
        return c.long()


def has_labels(condition: Condition | None) -> bool:
    """Classes or attributes, as against an image or nothing."""
    return condition is not None and condition.kind != "image"


def image_channels(condition: Condition | None) -> int:
    """Channels that c adds to an image; 0 for labels and for no condition."""
    return condition.size if condition is not None and condition.kind == "image" else 0


def label_features(c: Tensor, condition: Condition, like: Tensor) -> Tensor:
    """Labels as numbers [B, size] in the type of ``like``: one-hot classes, attributes as ±1."""
    if condition.kind == "class":
        return functional.one_hot(c, condition.size).to(like.dtype)
    return (2 * c - 1).to(like.dtype)


class LabelProjection(nn.Module):
    """⟨v(c), mean φ(h)⟩ with v(c) = W of a class, or Σ ± W of attributes: h [B, C, H, W] → [B].

    The term by which an energy depends on labels, in float32.
    Source: projection discriminator, arXiv:1802.05637.
    """

    keep_fp32 = True

    def __init__(self, condition: Condition, channels: int) -> None:
        super().__init__()
        self.condition = condition
        self.weight = nn.Parameter(torch.randn(condition.size, channels) * channels**-0.5)

    def forward(self, h: Tensor, c: Tensor) -> Tensor:
        with torch.autocast(h.device.type, enabled=False):
            weight = self.weight.float()
            v = label_features(c, self.condition, weight) @ weight
            return (h.float().mean((2, 3)) * v).sum(1)

    def every(self, h: Tensor) -> Tensor:
        """The term of each class, [B, K]."""
        with torch.autocast(h.device.type, enabled=False):
            return h.float().mean((2, 3)) @ self.weight.float().T
