"""Before the first step: what the cluster has and reaches, on one page; refuses what cannot work.

``auto`` looks at every machine (seconds); ``full`` waits for the machines that an autoscaler has
to start, and sums over the network as well.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

from vmcmc_dist.config import Config
from vmcmc_dist.engine.preflight_page import (
    NodeLine,
    Page,
    ranks_line,
    reach_line,
    size_text,
    time_text,
)
from vmcmc_dist.engine.ray_capacity import Node, fits, growth, nodes
from vmcmc_dist.engine.ray_preflight_node import NodeReport, look_at
from vmcmc_dist.engine.ray_preflight_sweep import bus_bandwidth, sweep
from vmcmc_dist.engine.ray_room import capacity_problem, worker_resources, workers_now
from vmcmc_dist.engine.versions import VARIABLE, Versions, differences, disagreements, versions_here
from vmcmc_dist.errors import ResourceError

PLACE_S = 3.0
SKEW_WARN, SKEW_REFUSE = 1.0, 300.0
"""Seconds; S3 and TLS refuse requests from clocks that are minutes off."""
DISK_WARN, DISK_REFUSE = 2 << 30, 64 << 20
FULL_SHARE = 0.95
"""Ray's own limit, after which it stores nothing more."""


def preflight(config: Config, say: Callable[[str], Any], mode: str = "") -> None:
    """Look, and print the page; the cluster must be joined.

    Args:
        mode: ``auto`` or ``full``; default ``resources.preflight``.

    Raises:
        ResourceError: every reason why the run cannot work, at once.
    """
    page = look(config, (mode or config.resources.preflight) == "full")
    say(page.text())
    if page.refusals:
        reasons = "\n  - ".join(page.refusals)
        raise ResourceError(f"this cluster cannot run {config.name}:\n  - {reasons}")


def look(config: Config, full: bool) -> Page:
    """The page, with everything that was found."""
    import ray

    began = time.monotonic()
    each, workers = worker_resources(config), config.resources.workers
    page = Page(f"pre-flight of {config.name}: {workers} × {_resources(each)}")
    problem = capacity_problem(config, each)
    if problem:
        page.refusals.append(problem)
    submitted = os.environ.get(VARIABLE)
    mine = Versions.from_json(submitted) if submitted else versions_here()
    page.facts.append(("versions", mine.of() + (" (where it was submitted)" if submitted else "")))
    if config.resources.device == "cpu" and ray.cluster_resources().get("GPU"):
        gpus = ray.cluster_resources()["GPU"]
        page.warnings.append(
            f"resources.device=cpu on a cluster with {gpus:g} GPUs; for those set "
            "resources.device=cuda"
        )
    if not problem:
        workers = workers_now(config, each)
    wait = config.resources.start_timeout or 900.0 if full and growth() else PLACE_S
    with _placed(each, 0 if problem else workers, wait) as (group, where):
        if not problem:
            page.facts.append(("ranks", _where(where, workers)))
        here = nodes()
        reports = look_at(here, config, mine.requires)
        _judge(page, here, reports, config, each, mine, set(where))
        if full and group is not None and workers > 1 and not page.refusals:
            _sweep(page, group, each, workers, config.resources.device == "cuda")
    page.seconds = time.monotonic() - began
    return page


@contextmanager
def _placed(each: dict[str, float], workers: int, wait: float):
    """A place for every rank, as training will ask for it: (group, address of each), or none."""
    from ray.util.placement_group import placement_group, placement_group_table
    from ray.util.placement_group import remove_placement_group as remove

    if workers == 0:
        yield None, []
        return
    group = placement_group([dict(each) for _ in range(workers)], strategy="PACK")
    try:
        if not group.wait(wait):
            yield None, []
            return
        homes = placement_group_table(group)["bundles_to_node_id"]
        address = {node.id: node.address for node in nodes()}
        yield group, [address.get(homes[i], "?") for i in sorted(homes)]
    finally:
        remove(group)


def _where(placed: list[str], workers: int) -> str:
    if placed:
        return ranks_line(sorted(placed))
    return (
        f"{workers}, not placed yet: the cluster is busy or has machines to start; what is not "
        "there could not be looked at"
    )


def _judge(
    page: Page,
    here: list[Node],
    reports: dict[str, NodeReport | str],
    config: Config,
    each: dict[str, float],
    mine: Versions,
    ranks: set[str],
) -> None:
    """Fill the page with the reports, and with what follows from them."""
    outs, datas = {}, {}
    page.facts.insert(
        0, ("nodes", f"{len(here)}, room for {sum(fits(n.total, each) for n in here)} workers")
    )
    for node in here:
        report = reports[node.id]
        name = f"{node.address}{' (head)' if node.head else ''}"
        # others than the driver's and the ranks' machines do nothing in this run
        used = node.head or node.address in ranks or (not ranks and fits(node.total, each) > 0)
        if isinstance(report, str):
            page.nodes.append(NodeLine(name, "?", _resources(node.total), "?", "?", "?", "?"))
            (page.refusals if used else page.warnings).append(f"node {name}: {report}")
            continue
        wrong = disagreements(mine, report.versions, f"node {name}")
        page.nodes.append(
            NodeLine(
                name,
                report.host,
                _resources(node.total),
                size_text(report.memory),
                f"{size_text(report.tmp_free)} free",
                f"{report.skew:+.3f} s" if abs(report.skew) > report.skew_error else "agrees",
                "other" if wrong else ", ".join(differences(mine, report.versions)) or "agree",
            )
        )
        if not used:
            continue
        outs[node.address], datas[node.address] = report.out, report.data
        page.refusals += wrong
        for key, reach in (("out", report.out), ("data", report.data)):
            if reach.problem:
                where = config.out if key == "out" else config.data.shards or config.data.root
                page.refusals.append(f"node {name}: {key} {where}: {reach.problem}")
        _judge_clock_and_disk(page, name, report)
    page.facts.append(("out", f"{config.out} {reach_line(outs)}" if outs else config.out))
    if any(reach.version or reach.note for reach in datas.values()):
        page.facts.append(("data", reach_line(datas)))
    seen = {reach.version for reach in datas.values() if not reach.problem}
    if len(seen) > 1:
        page.refusals.append(
            "data: the nodes do not see the same shards; set data.shards to s3://BUCKET/PREFIX or "
            "to a folder that all nodes share"
        )


def _judge_clock_and_disk(page: Page, name: str, report: NodeReport) -> None:
    off = abs(report.skew) - report.skew_error
    if off > SKEW_WARN:
        text = f"node {name}: its clock is {report.skew:+.1f} s off; set it (chrony, NTP)"
        (page.refusals if off > SKEW_REFUSE else page.warnings).append(text)
    if report.tmp_free < DISK_WARN or report.tmp_share > FULL_SHARE:
        text = (
            f"node {name}: {size_text(report.tmp_free)} free on the disk of Ray's files; make "
            "room, or start Ray with a --temp-dir on another disk"
        )
        (page.refusals if report.tmp_free < DISK_REFUSE else page.warnings).append(text)


def _sweep(page: Page, group: Any, each: dict[str, float], workers: int, gpu: bool) -> None:
    """All-reduce among one actor for each rank, onto the page."""
    sums, problem = sweep(group, each, workers, gpu)
    for sum_ in sums:
        rate = bus_bandwidth(sum_, workers) / 1e9
        page.sums.append((size_text(sum_.size), time_text(sum_.seconds), f"{rate:.3g} GB/s"))
    if problem:
        page.refusals.append(
            f"the ranks cannot sum over the network ({problem}): open all ports between the nodes, "
            "and name the interface with GLOO_SOCKET_IFNAME or NCCL_SOCKET_IFNAME"
        )


def _resources(have: dict[str, float]) -> str:
    """``8 CPU, 1 GPU``"""
    shown = {k: v for k, v in have.items() if k in ("CPU", "GPU")}
    return ", ".join(f"{v:g} {k}" for k, v in sorted(shown.items())) or "nothing for workers"
