"""Readers of images, each in a process of its own, measured in turns.

A reader that is not measured is stopped (SIGSTOP, its own processes too): it neither takes the
cores from the one that is, nor fills its queues for the next turn, so each turn goes on in the
steady state in which the last one ended.
"""

from __future__ import annotations

import json
import os
import re
import signal
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

import vmcmc_dist
from vmcmc_dist.bench.cores import pin
from vmcmc_dist.errors import ResourceError

SCRIPT = Path(__file__).with_name("reader_process.py")
MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1),
}
"""What is freed is kept, in the processes of all readers, as it is where we train
(langevin.keep_freed_memory)."""
SKIPPED = 6
"""Batches of each turn that are read before its clock starts."""


@dataclass(frozen=True)
class Variant:
    """A reader to be measured: its name in the table, and what its process is told.

    cores  it may run on, all its threads and processes; empty = all
    warm   batches read before the first turn
    """

    name: str
    reader: str
    workers: int
    data: str
    size: tuple[int, int]
    batch: int = 64
    decoder: str = "fast"
    settings: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    python: str = sys.executable
    cores: frozenset[int] = frozenset()
    warm: int = 4

    def config(self) -> str:
        return json.dumps(
            {
                "reader": self.reader,
                "workers": self.workers,
                "data": self.data,
                "size": self.size,
                "batch": self.batch,
                "decoder": self.decoder,
                "settings": dict(self.settings),
            }
        )


@dataclass
class Readings:
    """What was measured of one variant, turn by turn; the tables show medians.

    first_s     seconds from opening the data set to its first batch, imports before that
    images_s    images per second of the wall clock
    cpu_s       CPU seconds per 1000 images, all processes of the reader
    memory_mb   MiB of memory of all its processes over that after its imports
    beside      cores that a process beside it (an S3 server) was busy with meanwhile
    """

    first_s: list[float] = field(default_factory=list)
    images_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    memory_mb: list[float] = field(default_factory=list)
    beside: list[float] = field(default_factory=list)

    def medians(self) -> dict[str, float]:
        return {
            "images_s": statistics.median(self.images_s),
            "first_s": statistics.median(self.first_s),
            "cpu_s": statistics.median(self.cpu_s),
            "memory_mb": max(self.memory_mb),
        }


class Reader:
    """The process of one variant. Raises ResourceError if it fails, with its own last words."""

    def __init__(self, variant: Variant, log: Path) -> None:
        self.variant, self.log = variant, log
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "WDS_SECURE": "1",
            "PYTHONPATH": "",
            "PYTHONUNBUFFERED": "1",
            **variant.environment,
        }
        if variant.python == sys.executable:
            environment["PYTHONPATH"] = str(Path(vmcmc_dist.__file__).parents[1])
        with open(log, "ab") as errors:
            self.process = subprocess.Popen(
                [variant.python, str(SCRIPT), variant.config()],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment | MEMORY,
                text=True,
                start_new_session=True,
            )
        pin(self.process.pid, variant.cores)
        self._ps = psutil.Process(self.process.pid)
        self._reply()
        self._imported = self._own()

    def open(self) -> float:
        """Seconds to the first batch, uint8 [B, 3, H, W]."""
        found = self._ask(do="open")
        width, height = self.variant.size
        wanted = [self.variant.batch, 3, height, width]
        if self.variant.reader != "memory" and found["shape"] != wanted:
            raise ResourceError(f"{self.variant.name}: batches of {found['shape']}, not {wanted}")
        return found["seconds"]

    def read(self, batches: int, beside: Callable[[], float]) -> tuple[float, float, float]:
        """Images per second over that many batches, CPU seconds per 1000 images, cores beside."""
        self._ask(do="read", batches=SKIPPED)
        before, others = self._cpu(), beside()
        found = self._ask(do="read", batches=batches)
        spent, of_others = self._cpu() - before, beside() - others
        seconds, images = found["seconds"], found["images"]
        return images / seconds, 1000 * spent / images, of_others / seconds

    def memory(self) -> float:
        """MiB over those of the interpreter with its imports."""
        return (self._own() - self._imported) / 2**20

    def stop(self) -> None:
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        """End the process and its children."""
        self.go_on()
        members = self._members()
        if self.process.stdin is not None:
            self.process.stdin.close()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            pass
        for member in members:
            try:
                member.kill()
            except psutil.NoSuchProcess:
                continue
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()

    def _ask(self, **order: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(order) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise self._failed() from None
        return self._reply()

    def _reply(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise self._failed()
        return json.loads(line)

    def _failed(self) -> ResourceError:
        self.process.wait()
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return ResourceError(f"{self.variant.name}: its process ended: {' / '.join(lines[-3:])}")

    def _members(self) -> list[psutil.Process]:
        try:
            return [self._ps, *self._ps.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def _signal(self, number: int) -> None:
        for member in self._members():
            try:
                member.send_signal(number)
            except psutil.NoSuchProcess:
                continue

    def _cpu(self) -> float:
        """CPU seconds of all its processes, those that ended included."""
        total = 0.0
        for member in self._members():
            try:
                times = member.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += times.user + times.system
            total += times.children_user + times.children_system
        return total

    def _own(self) -> int:
        """Bytes of memory, of all its processes: PSS of what is anonymous or shared memory. Files
        mapped (libraries above all) are the page cache's, and shared with other processes.
        """
        total = 0
        for member in self._members():
            try:
                rollup = Path(f"/proc/{member.pid}/smaps_rollup").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue
            parts = re.findall(r"^Pss_(?:Anon|Shmem):\s+(\d+) kB", rollup, re.M)
            total += 1024 * sum(map(int, parts))
        return total


def measure(
    variants: Sequence[Variant],
    *,
    rounds: int,
    seconds: float,
    starts: int,
    log: Path,
    beside: Callable[[], float] = lambda: 0.0,
) -> list[Readings]:
    """All variants in turns: ``starts`` opens each, then ``rounds`` rounds of ``seconds`` each.

    ``beside`` tells the CPU seconds of a process beside them. Raises ResourceError if a reader
    fails.
    """
    readings = [Readings() for _ in variants]
    with ExitStack() as stack:
        readers: list[Reader] = []
        for start in range(starts):
            for variant, found in zip(variants, readings, strict=True):
                reader = Reader(variant, log)
                stack.callback(reader.close)
                found.first_s.append(reader.open())
                if start < starts - 1:
                    reader.close()
                else:
                    reader.stop()
                    readers.append(reader)
        rates = [_turn(reader, None, reader.variant.warm, beside) for reader in readers]
        for _ in range(rounds):
            for i, (reader, found) in enumerate(zip(readers, readings, strict=True)):
                batches = max(4, round(seconds * rates[i] / reader.variant.batch))
                rates[i] = _turn(reader, found, batches, beside)
    return readings


def _turn(
    reader: Reader, readings: Readings | None, batches: int, beside: Callable[[], float]
) -> float:
    """Let one reader go on for so many batches; returns its images per second."""
    reader.go_on()
    rate, cpu, others = reader.read(batches, beside)
    if readings is not None:
        readings.images_s.append(rate)
        readings.cpu_s.append(cpu)
        readings.memory_mb.append(reader.memory())
        readings.beside.append(others)
    reader.stop()
    return rate
