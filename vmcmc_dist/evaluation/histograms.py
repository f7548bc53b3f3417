"""Shares of values in common bins, and how far two sets of values overlap."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from vmcmc_dist.errors import DataError


def common_edges(sets: Mapping[str, Tensor], bins: int = 60) -> Tensor:
    """Edges [bins + 1], float64, over all values of all sets."""
    values = torch.cat([v.detach().double().flatten().cpu() for v in sets.values()])
    if not len(values) or not torch.isfinite(values).all():
        raise DataError("values for a histogram are missing or not finite")
    low, high = values.min().item(), values.max().item()
    if high <= low:
        low, high = low - 0.5, high + 0.5
    return torch.linspace(low, high, bins + 1, dtype=torch.float64)


def shares(values: Tensor, edges: Tensor) -> Tensor:
    """Share of the values in each bin, [bins], summing to 1; the last bin holds its right edge."""
    place = torch.bucketize(values.detach().double().cpu(), edges[1:-1], right=True)
    return torch.bincount(place, minlength=len(edges) - 1).double() / len(values)


def overlap(a: Tensor, b: Tensor, bins: int = 60) -> float:
    """Overlap coefficient ∫ min(p, q) of two sets of values in common bins, from 0 to 1.

    Two samples of one law stay below 1 by the noise of the bins, about √(bins/N).
    """
    edges = common_edges({"a": a, "b": b}, bins)
    return torch.minimum(shares(a, edges), shares(b, edges)).sum().item()
