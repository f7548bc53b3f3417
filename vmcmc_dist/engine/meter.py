"""Means of an iteration's figures over a log interval and over workers."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


class Meter:
    """Sums and counts of 0-d figures by name; an iteration need not have every figure."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def __bool__(self) -> bool:
        return bool(self.sums)

    def add(self, record: dict[str, Tensor]) -> None:
        for name, value in record.items():
            self.sums[name] = self.sums.get(name, 0.0) + value.detach().double()
            self.counts[name] = self.counts.get(name, 0) + 1

    def means(self) -> dict[str, float]:
        """Means over iterations and workers (collective); the meter is then empty."""
        names = sorted(self.sums)
        sums = self._stacked(names)
        if dist.is_initialized() and dist.get_world_size() > 1:
            sums = sum_over_workers(sums) / dist.get_world_size()
        counts = torch.tensor([self.counts[name] for name in names], dtype=torch.float64)
        means = (sums.cpu() / counts).tolist()
        self.sums, self.counts = {}, {}
        return dict(zip(names, means, strict=True))

    def state(self) -> dict:
        """The open interval's sums, one row per worker (collective)."""
        names = sorted(self.sums)
        rows = self._stacked(names)[None]
        if dist.is_initialized() and dist.get_world_size() > 1:
            mine = torch.zeros(dist.get_world_size(), len(names), dtype=torch.float64)
            mine[dist.get_rank()] = rows[0]
            rows = sum_over_workers(mine)
        counts = [self.counts[name] for name in names]
        return {"names": names, "rows": rows.tolist(), "counts": counts}

    def load(self, state: dict, rank: int, world_size: int) -> None:
        """This worker's row; with another number of workers, the mean of all rows."""
        rows = torch.tensor(state["rows"], dtype=torch.float64)
        row = rows[rank] if len(rows) == world_size else rows.mean(0)
        self.sums = dict(zip(state["names"], row.unbind(), strict=True))
        self.counts = dict(zip(state["names"], state["counts"], strict=True))

    def _stacked(self, names: list[str]) -> Tensor:
        if not names:
            return torch.zeros(0, dtype=torch.float64)
        return torch.stack([self.sums[name] for name in names])


def anywhere(flags: list[bool]) -> list[bool]:
    """Each flag: is it set on any worker (collective)?"""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return flags
    total = sum_over_workers(torch.tensor(flags, dtype=torch.float32))
    return [bool(value) for value in total > 0]


def total_counts(counts: dict[str, int]) -> dict[str, int]:
    """Each count, of all workers together (collective)."""
    if not counts or not dist.is_initialized() or dist.get_world_size() == 1:
        return counts
    total = sum_over_workers(torch.tensor(list(counts.values()), dtype=torch.float64))
    return dict(zip(counts, (int(value) for value in total.tolist()), strict=True))


def sum_over_workers(values: Tensor) -> Tensor:
    """Sum of a tensor over all workers, on the backend's own device."""
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    total = values.to(device, copy=True)
    dist.all_reduce(total)
    return total.to(values.device)
