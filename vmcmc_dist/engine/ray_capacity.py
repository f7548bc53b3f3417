"""How many workers a cluster can hold: now, and with all that its autoscaler may start."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Any

import psutil
import yaml


@dataclass(frozen=True)
class Node:
    """A machine of the cluster that is alive: id, IP address, what Ray counts on it, labels."""

    id: str
    address: str
    total: dict[str, float]
    free: dict[str, float]
    head: bool


@dataclass(frozen=True)
class Growth:
    """What an autoscaler may start: kinds of machines with their number, together ``limit``.

    ``kinds`` is empty where there is an autoscaler that does not say.
    """

    kinds: tuple[tuple[dict[str, float], float], ...] = ()
    limit: float = math.inf


def nodes() -> list[Node]:
    """Machines that are alive and not about to go; the driver's cluster must be joined."""
    import ray

    state = ray._private.state.state
    leaving, free = state.get_draining_nodes(), state.available_resources_per_node()
    found = []
    for entry in ray.nodes():
        if entry["Alive"] and entry["NodeID"] not in leaving:
            total = {k: float(v) for k, v in entry["Resources"].items()}
            head = "node:__internal_head__" in total
            now = free.get(entry["NodeID"], {})
            found.append(Node(entry["NodeID"], entry["NodeManagerAddress"], total, now, head))
    return sorted(found, key=lambda node: (not node.head, node.address))


def fits(have: dict[str, float], each: dict[str, float]) -> int:
    """Workers that fit on one machine: a worker is never split over two."""
    return min(
        (int(have.get(kind, 0.0) / amount + 1e-6) for kind, amount in each.items() if amount),
        default=0,
    )


def growth() -> Growth | None:
    """What the cluster's autoscaler may add; ``None`` where there is none.

    Ray keeps it in three places: its own state, the file that the autoscaler on the head was
    started with, and (KubeRay) nowhere that a job can read.
    """
    import ray

    config = ray._private.state.state.get_cluster_config()
    if config is not None and config.node_group_configs:
        kinds = [
            ({k: float(v) for k, v in group.resources.items()}, _count(group.max_count))
            for group in config.node_group_configs
        ]
        return Growth(tuple(kinds))
    path = _autoscaling_file()
    if path is not None:
        return _from_file(path)
    asked = "--no-monitor" in os.environ.get("KUBERAY_GEN_RAY_START_CMD", "")
    return Growth() if asked or os.environ.get("RAY_AUTOSCALER_ENABLED") else None


def most_workers(now: list[Node], more: Growth | None, each: dict[str, float]) -> float:
    """Workers that the cluster can ever hold; infinity where its autoscaler does not say."""
    here = sum(fits(node.total, each) for node in now)
    if more is None:
        return here
    if not more.kinds:
        return math.inf
    room, machines = 0.0, more.limit
    for resources, count in sorted(more.kinds, key=lambda kind: -fits(kind[0], each)):
        used = min(count, machines)
        room, machines = room + used * fits(resources, each), machines - used
    # machines that run are among those that may; the head is not
    return max(here, room + sum(fits(node.total, each) for node in now if node.head))


def _from_file(path: str) -> Growth:
    with open(path) as file:
        config: dict[str, Any] = yaml.safe_load(file)
    head = config.get("head_node_type")
    limit = float(config.get("max_workers", math.inf))
    kinds = []
    for name, kind in (config.get("available_node_types") or {}).items():
        if name != head:
            resources = {k: float(v) for k, v in (kind.get("resources") or {}).items()}
            kinds.append((resources, float(kind.get("max_workers", limit))))
    return Growth(tuple(kinds), limit)


def _autoscaling_file() -> str | None:
    """What ``ray start --autoscaling-config`` was given, if its monitor runs on this machine."""
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
        except psutil.Error:
            continue
        if any(word.endswith(("monitor.py", "autoscaler/v2/monitor.py")) for word in words):
            for word in words:
                if word.startswith("--autoscaling-config=") and _ours(words):
                    return os.path.expanduser(word.partition("=")[2])
    return None


def _ours(words: list[str]) -> bool:
    """Whether these are the words of a process of the cluster that is joined."""
    import ray

    address = ray.get_runtime_context().gcs_address
    return any(word in (f"--gcs-address={address}", address) for word in words)


def _count(count: int) -> float:
    return math.inf if count < 0 else float(count)
