"""How many trials the cluster holds at a time, and what each asks Ray for."""

from __future__ import annotations

import math
from typing import Any

import ray
from ray.tune import PlacementGroupFactory

from vmcmc_dist.errors import ResourceError
from vmcmc_dist.tuning.config import Sweep

NESTED_MEMORY = 100e6
"""Bytes that the process asks for which watches a trial of several workers."""


def places_of(sweep: Sweep) -> PlacementGroupFactory:
    """Of a trial's own process: all that it needs, or next to nothing where its workers train."""
    if sweep.workers > 1:
        return PlacementGroupFactory([{"memory": NESTED_MEMORY}])
    return PlacementGroupFactory([need(sweep)])


def need(sweep: Sweep) -> dict[str, float]:
    """Of one worker."""
    each = {"CPU": sweep.cpus_per_trial, "GPU": sweep.gpus_per_trial}
    return {kind: amount for kind, amount in each.items() if amount} or {"memory": NESTED_MEMORY}


def room_for(sweep: Sweep) -> int:
    """Trials at a time: ``concurrent``, but never more than the cluster holds now.

    A fraction of a GPU is on one node, so places are counted by node; the workers of a trial may
    be on several.

    Raises:
        ResourceError: not one trial fits, and why.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return room_on(sweep, nodes)


def room_on(sweep: Sweep, nodes: list[dict[str, Any]]) -> int:
    """As :func:`room_for`, on these nodes."""
    each = need(sweep)
    workers = sum(
        min(math.floor(node.get(kind, 0.0) / amount + 1e-9) for kind, amount in each.items())
        for node in nodes
    )
    room = workers // sweep.workers
    if room == 0:
        asked = " and ".join(f"{amount:g} {kind}" for kind, amount in each.items())
        most = {kind: max((n.get(kind, 0.0) for n in nodes), default=0.0) for kind in each}
        have = " and ".join(f"{most[kind]:g} {kind}" for kind in each)
        what = f"{sweep.workers} workers of {asked} each" if sweep.workers > 1 else asked
        raise ResourceError(
            f"a trial needs {what}, but the cluster's {len(nodes)} node(s) hold {workers} such "
            f"worker(s); the largest has {have}. Lower workers, cpus_per_trial or gpus_per_trial"
        )
    return min(room, sweep.concurrent) if sweep.concurrent else room
