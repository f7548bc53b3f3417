"""What a Ray cluster has for workers: ever, and now."""

from __future__ import annotations

import time

from vmcmc_dist.config import Config
from vmcmc_dist.engine.ray_capacity import Growth, growth, most_workers, nodes
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
    problem = capacity_problem(config, each)
    if problem:
        raise ResourceError(problem)


def capacity_problem(config: Config, each: dict[str, float]) -> str:
    """Why the cluster can never hold the workers, and what to do; "" if it can."""
    least = config.resources.min_workers or config.resources.workers
    here, more = nodes(), growth() if config.resources.address else None
    most = most_workers(here, more, each)
    if most >= least:
        return ""
    kinds = [k for k in each if max((n.total.get(k, 0.0) for n in here), default=0.0) < each[k]]
    needed = " and ".join(f"{each[k] * least:g} {k}s" for k in each)
    has = " and ".join(f"{sum(n.total.get(k, 0.0) for n in here):g} {k}s" for k in each)
    grown = ""
    if more is not None:
        grown = f", and its autoscaler may start {_started(more)}"
    advice = f"set resources.workers={most:g} or fewer" if most else _too_large(kinds, each)
    return (
        f"resources.workers={least} needs {needed} (for each worker, on one machine, "
        f"{', '.join(f'{v:g} {k}' for k, v in each.items())}); the Ray cluster has {has} on "
        f"{len(here)} machine{'s' if len(here) != 1 else ''}{grown}, room for {most:g}: {advice}"
    )


def _started(more: Growth) -> str:
    shown = [
        f"{count:g} × {', '.join(f'{v:g} {k}' for k, v in kind.items() if k in ('CPU', 'GPU'))}"
        for kind, count in more.kinds
    ]
    return "; ".join(shown) + (f", {more.limit:g} in all" if more.limit < float("inf") else "")


def _too_large(kinds: list[str], each: dict[str, float]) -> str:
    if "GPU" in kinds:
        return "there are no GPUs; add machines that have some, or set resources.device=cpu"
    return f"no machine has {each['CPU']:g} CPUs; lower resources.cpus_per_worker"


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
