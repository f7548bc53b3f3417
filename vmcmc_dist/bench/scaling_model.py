"""What a step takes on N workers, from what it takes on one and what a link carries.

    T(N) = compute + Σ over collectives of (latency + w(kind, N) · bytes / bus bandwidth) − hidden

The bus bandwidth is NCCL's "busbw": what a link carries while each byte of the result crosses it
w times; w = 2(N−1)/N for an all-reduce, (N−1)/N for its halves (reduce-scatter, all-gather), 1 for
what goes from one to all or from all to one. Source: nccl-tests, doc/PERFORMANCE.md. Hidden is
what an overlapped reduction and the other net's computing have in common.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

HALVES = ("allgather", "reduce_scatter", "all_gather", "alltoall")


@dataclass(frozen=True)
class Link:
    """Between N workers: seconds before the first byte, and bytes a second (busbw) after it."""

    latency: float
    bandwidth: float


@dataclass(frozen=True)
class Collective:
    """One call: its kind (``allreduce``, ``allgather_base``, …) and the whole tensor's bytes."""

    kind: str
    bytes: int


def wire_share(kind: str, workers: int) -> float:
    """w: how often a byte of the whole tensor crosses the busiest link."""
    if workers == 1:
        return 0.0
    if kind.startswith("allreduce"):
        return 2 * (workers - 1) / workers
    if kind.startswith(HALVES):
        return (workers - 1) / workers
    return 1.0


def collective_seconds(call: Collective, workers: int, link: Link) -> float:
    """latency + w · bytes / bandwidth; nothing on one worker."""
    if workers == 1:
        return 0.0
    return link.latency + wire_share(call.kind, workers) * call.bytes / link.bandwidth


def talk_seconds(calls: Iterable[Collective], workers: int, link: Link) -> float:
    """Of all the calls, one after the other."""
    return sum(collective_seconds(call, workers, link) for call in calls)


def hidden_seconds(energy_talk: float, vae_compute: float) -> float:
    """What overlapping hides: the energy's reduction goes on while the VAE computes."""
    return min(energy_talk, vae_compute)


def gradient_calls(stage: int, parameters: int, element: int = 4) -> list[Collective]:
    """The collectives of one net's step at a ZeRO stage, as they need be at least.

    0: gradients all-reduced. 1, 2: gradients reduce-scattered, weights gathered. 3: the weights are
    gathered for the forward, again for the backward pass, and once for the sampler's copy.
    """
    size = element * parameters
    if stage == 0:
        return [Collective("allreduce", size)]
    gathers = 1 if stage < 3 else 3
    return [Collective("reduce_scatter", size)] + [Collective("allgather", size)] * gathers


def fit_link(sizes: Iterable[int], seconds: Iterable[float], workers: int) -> Link:
    """The link between ``workers``, from all-reduces of ``sizes`` bytes: the smallest one is all
    latency, the bandwidth is the largest one's.
    """
    rows = sorted(zip(sizes, seconds, strict=True))
    (_, latency), (size, longest) = rows[0], rows[-1]
    rest = max(longest - latency, 1e-9)
    return Link(latency, wire_share("allreduce", workers) * size / rest)


def cluster_link(
    workers: int,
    *,
    per_node: int,
    inside: float,
    outside: float,
    hop_inside: float,
    hop_outside: float,
) -> Link:
    """A cluster of nodes of ``per_node`` workers each.

    Args:
        inside, outside: busbw in bytes a second within a node, and among nodes.
        hop_inside, hop_outside: seconds that a message takes. A tree's depth of hops goes up and
            down again: 2 (log₂ nodes · hop_outside + log₂ per_node · hop_inside).
    """
    local = min(workers, per_node)
    nodes = math.ceil(workers / per_node)
    latency = 2 * (math.log2(nodes) * hop_outside + math.log2(max(local, 1)) * hop_inside)
    return Link(latency, inside if nodes == 1 else min(inside, outside))
