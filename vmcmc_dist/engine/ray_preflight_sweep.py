"""How fast the ranks sum over the network: an all-reduce at growing sizes."""

from __future__ import annotations

import socket
import statistics
import time
from typing import Any, NamedTuple

from vmcmc_dist.engine.interface import talk_over

SIZES = (1 << 10, 32 << 10, 1 << 20, 8 << 20, 64 << 20)
"""Bytes of each rank's tensor."""
SWEEP_S = 120.0
SIZE_S = 1.5
"""For each size: as many rounds as fit, at least three, at most fifty."""


class Sum(NamedTuple):
    """One size of the sweep: bytes a rank, median seconds."""

    size: int
    seconds: float


class RankProbe:
    """An actor in the place of one rank."""

    def meeting_point(self) -> tuple[str, int]:
        """An address here that the other ranks can come to."""
        import ray

        with socket.socket() as free:
            free.bind(("", 0))
            return ray.util.get_node_ip_address(), free.getsockname()[1]

    def sweep(
        self, rank: int, world: int, place: tuple[str, int], gpu: bool, sizes: tuple[int, ...]
    ) -> list[Sum]:
        """All-reduce every size with the other ranks; what the first rank measured."""
        from datetime import timedelta

        import ray
        import torch
        import torch.distributed as dist

        talk_over(ray.util.get_node_ip_address())
        torch.set_num_threads(1)
        dist.init_process_group(
            "nccl" if gpu else "gloo",
            init_method=f"tcp://{place[0]}:{place[1]}",
            rank=rank,
            world_size=world,
            timeout=timedelta(seconds=30),
        )
        device = "cuda" if gpu else "cpu"
        try:
            return [Sum(size, _median(size, device, dist, torch)) for size in sizes]
        finally:
            dist.destroy_process_group()


def sweep(group: Any, each: dict[str, float], workers: int, gpu: bool) -> tuple[list[Sum], str]:
    """The sums among one actor for each bundle of a placement group, and why there are none.

    Args:
        each: what every bundle holds.
    """
    import ray
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy as In

    probe: Any = ray.remote(RankProbe)
    ranks = [
        probe.options(
            num_cpus=each["CPU"],
            num_gpus=each.get("GPU", 0),
            scheduling_strategy=In(group, placement_group_bundle_index=bundle),
        ).remote()
        for bundle in range(workers)
    ]
    try:
        place = ray.get(ranks[0].meeting_point.remote(), timeout=SWEEP_S)
        sweeps = [r.sweep.remote(i, workers, place, gpu, SIZES) for i, r in enumerate(ranks)]
        return ray.get(sweeps, timeout=SWEEP_S)[0], ""
    except (ray.exceptions.RayError, TimeoutError, RuntimeError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return [], (lines or [type(error).__name__])[-1][:200]
    finally:
        for rank in ranks:
            ray.kill(rank)


def _median(size: int, device: str, dist: Any, torch: Any) -> float:
    tensor = torch.ones(size // 4, device=device)
    took: list[float] = []
    rounds, done = 50, 0
    while done < rounds:
        dist.barrier()
        began = time.perf_counter()
        dist.all_reduce(tensor)
        if device == "cuda":
            torch.cuda.synchronize()
        took.append(time.perf_counter() - began)
        tensor.fill_(1.0)
        done += 1
        if done == 3:  # all ranks must do the same number
            count = torch.tensor([min(50.0, max(3.0, SIZE_S / max(took)))], device=device)
            dist.all_reduce(count, op=dist.ReduceOp.MIN)
            rounds = int(count.item())
    return statistics.median(took[1:])


def bus_bandwidth(sum_: Sum, world: int) -> float:
    """Bytes per second over the slowest link, as NCCL's tests count: 2 (n−1)/n · size / time."""
    return 2 * (world - 1) / world * sum_.size / sum_.seconds
