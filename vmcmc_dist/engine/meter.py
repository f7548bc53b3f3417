"""Means of an iteration's figures over a log interval and over workers."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


class Meter:
    """Sums of 0-d figures by name; the names must be the same in every iteration."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.sums = torch.zeros(0, dtype=torch.float64)
        self.count = 0

    def add(self, record: dict[str, Tensor]) -> None:
        if not self.names:
            self.names = sorted(record)
            self.sums = torch.zeros(len(self.names), dtype=torch.float64)
        new = torch.stack([record[name].detach().double() for name in self.names])
        self.sums = self.sums.to(new.device) + new
        self.count += 1

    def means(self) -> dict[str, float]:
        """Means over iterations and workers (collective); the meter is then empty."""
        sums = self.sums / max(self.count, 1)
        if dist.is_initialized() and dist.get_world_size() > 1:
            sums = sum_over_workers(sums) / dist.get_world_size()
        values = dict(zip(self.names, sums.tolist(), strict=True))
        self.names, self.sums, self.count = [], torch.zeros(0, dtype=torch.float64), 0
        return values

    def state(self) -> dict:
        """The open interval's sums, one row per worker (collective)."""
        rows = self.sums[None]
        if dist.is_initialized() and dist.get_world_size() > 1:
            mine = torch.zeros(dist.get_world_size(), len(self.sums), dtype=torch.float64)
            mine[dist.get_rank()] = self.sums
            rows = sum_over_workers(mine)
        return {"names": self.names, "rows": rows.tolist(), "count": self.count}

    def load(self, state: dict, rank: int, world_size: int) -> None:
        """This worker's row; with another number of workers, the mean of all rows."""
        rows = torch.tensor(state["rows"], dtype=torch.float64)
        self.names, self.count = list(state["names"]), state["count"]
        self.sums = rows[rank].clone() if len(rows) == world_size else rows.mean(0)


def sum_over_workers(values: Tensor) -> Tensor:
    """Sum of a tensor over all workers, on the backend's own device."""
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    total = values.to(device, copy=True)
    dist.all_reduce(total)
    return total.to(values.device)
