"""Fair timing on a machine that others use, too: one thread, CPU seconds, interleaved medians."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class Machine:
    """Where a measurement was made."""

    processor: str
    cores: int
    threads: int
    torch: str
    clock: str

    def __str__(self) -> str:
        return (
            f"{self.processor}, {self.cores} cores; {self.threads} thread"
            f"{'s' if self.threads > 1 else ''}, torch {self.torch}, {self.clock}"
        )


def this_machine(device: torch.device) -> Machine:
    """Processor (or GPU), its cores, torch's threads and version, and the clock used."""
    if device.type == "cuda":
        name, clock = torch.cuda.get_device_name(device), "wall seconds, synchronised"
    else:
        capability = torch.backends.cpu.get_cpu_capability()
        name, clock = f"{_cpu_name()} ({capability})", "CPU seconds"
    return Machine(name, os.cpu_count() or 1, torch.get_num_threads(), torch.__version__, clock)


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """``torch.set_num_threads`` inside the block only."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.process_time() / torch.get_num_threads()


def interleaved_seconds(
    variants: Mapping[str, Callable[[], object]], *, rounds: int, now: Callable[[], float]
) -> dict[str, list[float]]:
    """Seconds by ``now`` of each variant in each of ``rounds`` rounds of all, after one to warm
    up.
    """
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for round_ in range(rounds + 1):
        for name, run in variants.items():
            start = now()
            run()
            if round_:
                seconds[name].append(now() - start)
    return seconds


def median_ratio(over: list[float], under: list[float]) -> float:
    """Median over rounds of over/under, each ratio taken within one round."""
    return statistics.median(a / b for a, b in zip(over, under, strict=True))


def interleaved_medians(
    variants: Mapping[str, Callable[[], object]], *, rounds: int, device: torch.device
) -> dict[str, float]:
    """Median seconds of each variant over ``rounds`` rounds of all, after one to warm up.

    CPU: process time over threads, so other processes count little. GPU: synchronised wall time.
    """
    seconds = interleaved_seconds(variants, rounds=rounds, now=lambda: _now(device))
    return {name: statistics.median(values) for name, values in seconds.items()}
