"""One node looked at from within: what it has, and what it reaches."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from vmcmc_dist.config import Config
from vmcmc_dist.data.config import DataConfig
from vmcmc_dist.engine.ray_capacity import Node
from vmcmc_dist.engine.reach import Reach, leave_mark, reach_data, reach_out, take_mark
from vmcmc_dist.engine.versions import Versions, versions_here

LOOK_S = 30.0
"""A machine that does not answer for so long is said not to; most need two."""


@dataclass
class NodeReport:
    """What a node says of itself.

    Attributes:
        memory, tmp_free: bytes that are free: RAM, and the disk of Ray's files.
        tmp_share: part of that disk that is in use; Ray stops at 0.95.
        skew: seconds that its clock is ahead of the driver's, within ± ``skew_error``.
    """

    host: str
    versions: Versions
    cpus: int
    load: float
    memory: int
    tmp_free: int
    tmp_share: float
    out: Reach
    data: Reach
    skew: float = 0.0
    skew_error: float = 0.0


class NodeProbe:
    """An actor on one node."""

    def __init__(self, requires: tuple[str, ...], temp_dir: str):
        self.requires, self.temp_dir = requires, temp_dir

    def clock(self) -> float:
        return time.time()

    def look(self, out: str, mark: str, mine: str, data: DataConfig) -> NodeReport:
        place = Path(self.temp_dir)
        disk = shutil.disk_usage(place if place.exists() else "/")
        return NodeReport(
            host=socket.gethostname(),
            versions=versions_here(self.requires),
            cpus=len(os.sched_getaffinity(0)),
            load=os.getloadavg()[0],
            memory=psutil.virtual_memory().available,
            tmp_free=disk.free,
            tmp_share=disk.used / max(1, disk.used + disk.free),
            out=reach_out(out, mark, mine),
            data=reach_data(data),
        )


def look_at(
    here: list[Node], config: Config, requires: tuple[str, ...]
) -> dict[str, NodeReport | str]:
    """Node id → what it says of itself, or why it said nothing."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    mark = f".preflight-{secrets.token_hex(4)}"
    problem = leave_mark(config.out, mark)
    temp_dir = ray._private.worker._global_node.get_session_dir_path()  # type: ignore[attr-defined]
    found: dict[str, NodeReport | str] = {}
    probes: dict[str, Any] = {}
    for node in here:
        options = {
            "num_cpus": 0,
            "scheduling_strategy": NodeAffinitySchedulingStrategy(node.id, soft=False),
        }
        actor: Any = ray.remote(NodeProbe)
        probes[node.id] = actor.options(**options).remote(requires, temp_dir)
    try:
        asked = {
            probes[node.id].look.remote(
                config.out, mark, f"{mark}-{node.id[:12]}", config.data
            ): node.id
            for node in here
        }
        ready, _ = ray.wait(list(asked), num_returns=len(asked), timeout=LOOK_S)
        for ref, node_id in asked.items():
            found[node_id] = _answer(ref) if ref in ready else f"did not answer within {LOOK_S:g} s"
        for node_id, report in found.items():
            if isinstance(report, NodeReport):
                report.skew, report.skew_error = _skew(probes[node_id])
                if problem:
                    report.out = type(report.out)(problem)
    finally:
        if not problem:
            take_mark(config.out, mark)
        for probe in probes.values():
            ray.kill(probe)
    return found


def _answer(ref: Any) -> NodeReport | str:
    import ray

    try:
        return ray.get(ref)
    except ray.exceptions.RayError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        telling = [line for line in lines if "No module named" in line]
        if telling:
            return f"{telling[-1]}: its image lacks the package; build it from cluster/Dockerfile"
        return f"could not be looked at: {(lines or [type(error).__name__])[-1][:200]}"


def _skew(probe: Any) -> tuple[float, float]:
    """Seconds that a node's clock is ahead, and the error of that: the quickest of five pings."""
    import ray

    best = (0.0, float("inf"))
    for _ in range(5):
        began = time.time()
        theirs = ray.get(probe.clock.remote())
        took = time.time() - began
        if took / 2 < best[1]:
            best = (theirs - began - took / 2, took / 2)
    return best
