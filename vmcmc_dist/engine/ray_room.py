"""What a Ray cluster has for workers: ever, and now."""

from __future__ import annotations

import os
import time

from vmcmc_dist.config import Config
from vmcmc_dist.engine.resources import cpu_count
from vmcmc_dist.errors import ResourceError

SETTLED = 2.0
"""Seconds for which a count must hold: what the last group had comes back piece by piece."""


def worker_resources(config: Config) -> dict[str, float]:
    """What Ray reserves for each worker."""
    resources = config.resources
    share = max(1, cpu_count() // resources.workers)
    each: dict[str, float] = {"CPU": resources.cpus_per_worker or share}
    if resources.device == "cuda":
        each["GPU"] = 1
    return each


def check_cluster(config: Config, each: dict[str, float]) -> None:
    """Whether the cluster can ever hold the workers; :class:`ResourceError` at once if not."""
    import ray

    resources = config.resources
    if resources.address and autoscales():
        return
    total = ray.cluster_resources()
    least = resources.min_workers or resources.workers
    for kind, amount in each.items():
        needed, have = amount * least, total.get(kind, 0.0)
        if needed > have:
            raise ResourceError(
                f"resources.workers={least} needs {needed:g} {kind}, the Ray "
                f"cluster has {have:g}; ask for fewer workers or lower resources.cpus_per_worker"
            )


def workers_now(config: Config, each: dict[str, float]) -> int:
    """How many workers to start: ``workers``, or as many as fit now where fewer may run."""
    most, least = config.resources.workers, config.resources.min_workers
    if not 0 < least < most:
        return most
    since, count = time.monotonic(), room(each)
    while count < most and time.monotonic() - since < SETTLED:
        time.sleep(0.25)
        if (again := room(each)) != count:
            since, count = time.monotonic(), again
    return max(least, min(count, most))


def room(each: dict[str, float]) -> int:
    """Workers that fit now, on machines that are alive and not about to go."""
    import ray

    state = ray._private.state.state
    leaving = state.get_draining_nodes()
    return sum(
        min(int(free.get(kind, 0.0) / amount + 1e-6) for kind, amount in each.items() if amount)
        for node, free in state.available_resources_per_node().items()
        if node not in leaving
    )


def autoscales() -> bool:
    return bool(os.environ.get("RAY_AUTOSCALER_ENABLED"))
