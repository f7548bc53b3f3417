"""What the scaling benchmark found, cell by cell, and its table."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from vmcmc_dist.bench.scaling_model import Collective, Link, hidden_seconds, talk_seconds
from vmcmc_dist.config import Config
from vmcmc_dist.engine.scaling_worker import CHAINS, FLAGS, Steps
from vmcmc_dist.models import build_energy, build_vae

APART, OVERLAPPED = "apart", "0, overlapped"
KINDS = ("weak", "strong")


@dataclass(frozen=True)
class Cell:
    """Some workers at one stage; medians over rounds, of means over steps and workers.

    Attributes:
        label: ZeRO stage, :data:`OVERLAPPED`, or :data:`APART` (side by side, not talking).
        seconds: of a step, one entry a round; ``median`` of them.
        waiting: seconds of a step in which a worker waited for the last one to come to a
            collective; ``transfer``: in which it stood still for one after that.
        calls: a step's collectives, by phase: ``energy``, ``vae``, ``flags``, ``chains``, ``rest``.
        phases: seconds of each in a step.
    """

    label: str
    kind: str
    workers: int
    seconds: list[float]
    waiting: float
    transfer: float
    calls: dict[str, list[Collective]]
    phases: dict[str, float]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def bytes(self) -> dict[str, int]:
        """Of the whole tensors in a step's collectives, by phase."""
        return {phase: sum(call.bytes for call in calls) for phase, calls in self.calls.items()}

    @property
    def share(self) -> float:
        """Of a step, spent in communication."""
        return (self.waiting + self.transfer) / self.median


def cell(label: str, kind: str, workers: int, rounds: Sequence[list[Steps]]) -> Cell:
    """From each round's steps of each worker."""
    found = [one_round(members) for members in rounds]
    number = len(rounds[0][0].seconds)
    first = rounds[-1][0]
    calls: dict[str, list[Collective]] = {CHAINS: [], FLAGS: [], "energy": [], "vae": []}
    for call in first.calls[: len(first.calls) // number]:
        calls.setdefault(call.phase, []).append(Collective(call.name, call.bytes))
    return Cell(
        label,
        kind,
        workers,
        [statistics.mean(s for m in members for s in m.seconds) for members in rounds],
        statistics.median(f[0] for f in found),
        statistics.median(f[1] for f in found),
        calls,
        {
            phase: statistics.median(m[0].phases.get(phase, 0.0) / number for m in rounds)
            for phase in first.phases
        },
    )


def one_round(members: list[Steps]) -> tuple[float, float]:
    """(waiting, transfer), seconds a step and worker.

    The n-th call of every worker is the same collective. The machine has one clock, so the last
    worker's arrival parts waiting from the transfer.
    """
    scale = 1 / (len(members) * len(members[0].seconds))
    waiting = transfer = 0.0
    for calls in zip(*(m.calls for m in members), strict=True):
        last = max(call.start for call in calls)
        for call in calls:
            early, blocked = call.waiting(last), call.blocked()
            waiting += early * scale
            transfer += (blocked - early) * scale
    return waiting, transfer


def parameters_of(config: Config, shape: tuple[int, ...]) -> dict[str, int]:
    """Weights of each net."""
    nets = {"energy": build_energy(config.energy, shape), "vae": build_vae(config.vae, shape)}
    return {name: sum(p.numel() for p in net.parameters()) for name, net in nets.items()}


@dataclass(frozen=True)
class ScalingBench:
    """All cells of one run and the links between workers. ``str()`` is a markdown table."""

    machine: str
    cores: int
    config: Config
    parameters: dict[str, int]
    rounds: int
    cells: list[Cell]
    links: dict[int, Link]

    def find(self, label: str, kind: str, workers: int) -> Cell:
        for item in self.cells:
            if (item.label, item.kind, item.workers) == (label, kind, workers):
                return item
        raise KeyError(f"{label}, {kind}, {workers} workers was not measured")

    def predicted(self, item: Cell) -> float:
        """Seconds of a step by the model: computing side by side, and each call over the link.

        The work that ZeRO itself adds is not in it.
        """
        beside, link = self.find(APART, item.kind, item.workers), self.links[item.workers]
        talk = {p: talk_seconds(calls, item.workers, link) for p, calls in item.calls.items()}
        hidden = 0.0
        if item.label == OVERLAPPED:
            hidden = hidden_seconds(talk["energy"], beside.phases["vae"])
        return beside.median + sum(talk.values()) - hidden

    def __str__(self) -> str:
        train, steps = self.config.train, self.config.langevin.steps
        alone = self.find(APART, "weak", 1)
        lines = [
            f"{self.machine}; one core a worker, shared where there are more workers than cores "
            f"({self.cores}); {self.parameters['energy'] / 1e6:.2f} + "
            f"{self.parameters['vae'] / 1e6:.2f} million weights, {train.precision}, batch "
            f"{train.batch_size}, T = {steps}, {self.rounds} interleaved rounds, medians; "
            f"one worker alone {1e3 * alone.median:.0f} ms",
            "",
            "| scaling | workers | ZeRO | step ms | × 1 worker | of what the cores give "
            "| side by side, mute: ms | talk, share of the step: waiting + transfer | model: ms "
            "| a step's MB: energy, VAE | flags, chains |",
            "|---|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|",
        ]
        for item in self.cells:
            if item.label != APART:
                lines.append(self._row(item, alone.median))
        for n, link in self.links.items():
            lines.append(
                f"\nall-reduce among {n}: {1e3 * link.latency:.2f} ms + "
                f"bytes at {link.bandwidth / 1e9:.2f} GB/s (busbw)"
            )
        return "\n".join(lines)

    def _row(self, item: Cell, alone: float) -> str:
        shared = " (share cores)" if item.workers > self.cores else ""
        work = item.workers if item.kind == "weak" else 1
        speedup = work * alone / item.median
        beside = self.find(APART, item.kind, item.workers).median
        predicted = self.predicted(item)
        return (
            f"| {item.kind} | {item.workers}{shared} | {item.label} | {1e3 * item.median:.0f} "
            f"| {speedup:.2f} | {speedup / min(item.workers, self.cores):.0%} "
            f"| {1e3 * beside:.0f} ({beside / item.median:.0%}) "
            f"| {item.share:.1%}: {item.waiting / item.median:.1%} + "
            f"{item.transfer / item.median:.1%} "
            f"| {1e3 * predicted:.0f} ({predicted / item.median - 1:+.0%}) "
            f"| {item.bytes['energy'] / 1e6:.2f}, {item.bytes['vae'] / 1e6:.2f} "
            f"| {item.bytes[FLAGS]} B, {item.bytes[CHAINS]} B |"
        )
