"""What streaming costs over plain decoding: from local disk, from S3, and from the local cache."""

from __future__ import annotations

import math
import statistics
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

from vmcmc_dist.bench.clock import median_ratio, this_machine
from vmcmc_dist.bench.cores import split_cores
from vmcmc_dist.bench.jpegs import SIZES, Jpegs, jpegs_of
from vmcmc_dist.bench.readers import Readings, Variant, measure
from vmcmc_dist.bench.shard_set import write_shards
from vmcmc_dist.bench.store import Store, serving

BASE = "decoding from memory"
LOCAL, REMOTE, CACHED = "local disk", "S3", "S3, cache warm"
TARGETS = {LOCAL: 0.10, REMOTE: 0.20}
PATIENCE_S = 600  # readers are stopped between their turns, which is no stall of the store


@dataclass(frozen=True)
class StreamRow:
    """One source at one size and number of threads; overhead = 1 − its rate / the base's rate."""

    size: str
    workers: int
    source: str
    images_s: float
    overhead: float
    cpu_overhead: float
    first_s: float
    cpu_s: float
    memory_mb: float
    server_cores: float | None


@dataclass(frozen=True)
class StreamBench:
    """All rows of one run. ``str()`` is a markdown table."""

    machine: str
    latency_s: float
    rounds: int
    seconds: float
    sets: list[str]
    rows: list[StreamRow]
    reader_cores: int

    def _where(self) -> str:
        if not self.reader_cores:
            return "on the same cores"
        plural = "s" if self.reader_cores > 1 else ""
        return f"on one core; each reader, all its threads, on {self.reader_cores} other{plural}"

    def __str__(self) -> str:
        late = f"{1000 * self.latency_s:g} ms"
        lines = [
            f"{self.machine}; medians of {self.rounds} interleaved rounds of {self.seconds:g} s; "
            f"S3: a server on loopback with {late} of added latency, in a process of its own, "
            + self._where(),
            *self.sets,
            "",
            "| images | threads | source | images/s | overhead | CPU/image | first batch | memory "
            "| server |",
            "|---|---:|---|---:|---:|---:|---:|---:|---:|",
        ]
        for r in self.rows:
            target = f" (target {TARGETS[r.source]:.0%})" if r.source in TARGETS else ""
            over = "" if r.source == BASE else f"{r.overhead:+.1%}{target}"
            first = "" if r.source == BASE else f"{1000 * r.first_s:.0f} ms"
            server = "" if r.server_cores is None else f"{r.server_cores:.2f} cores"
            lines.append(
                f"| {r.size} | {r.workers} | {r.source} | {r.images_s:,.0f} | {over} "
                f"| {1000 * r.cpu_s:.0f} µs ({r.cpu_overhead:+.0%}) | {first} "
                f"| {r.memory_mb:.0f} MiB | {server} |"
            )
        return "\n".join(lines)


def bench_stream(
    sizes: Sequence[tuple[int, int]] = SIZES,
    *,
    roots: Sequence[Path] = (),
    workers: Sequence[int] = (1, 2),
    batch: int = 64,
    mebibytes: int = 96,
    rounds: int = 5,
    seconds: float = 2.0,
    starts: int = 3,
    latency_s: float = 0.02,
    settings: dict[str, Any] | None = None,
    progress: Callable[[str], None] | None = None,
) -> StreamBench:
    """Time the stream of a training run against the decoder alone, on the same bytes.

    For each size, ``mebibytes`` of JPEGs are written as 16 shards into a temporary folder. Every
    source is read by a process of its own, in turns; ``settings`` are keys of data.* for ours.

    The server has a core of its own, which no reader uses, nor the plain decoding: what the store
    works is no cost of reading, and what a reader's own threads work is. The warm cache is filled
    before it is measured.
    """
    readers_on, server_on = split_cores()
    rows: list[StreamRow] = []
    sets = []
    for width, height in sizes:
        images = jpegs_of(width, height, roots)
        with tempfile.TemporaryDirectory(prefix="vmcmc-stream-") as name, ExitStack() as stack:
            folder = Path(name)
            number = write_set(folder, images, mebibytes)
            sets.append(f"{images}, {number:,} in all")
            store = stack.enter_context(serving(folder, latency_s, server_on))
            for threads in workers:
                if progress is not None:
                    progress(f"{images.name}, {threads} decode thread{'s' if threads > 1 else ''}")
                common = {
                    "workers": threads,
                    "size": (width, height),
                    "batch": batch,
                    "cores": readers_on,
                }
                epoch = number // batch + 1
                variants = _variants(folder, store, common, settings or {}, epoch)
                found = measure(
                    variants,
                    rounds=rounds,
                    seconds=seconds,
                    starts=starts,
                    log=folder / "log.txt",
                    beside=store.cpu,
                )
                rows += [
                    _row(images.name, threads, variant.name, readings, found[0])
                    for variant, readings in zip(variants, found, strict=True)
                ]
    return StreamBench(machine(), latency_s, rounds, seconds, sets, rows, len(readers_on))


def write_set(folder: Path, images: Jpegs, mebibytes: int, shards: int = 16) -> int:
    """Write the images as shards/ and as files/, the same bytes; returns their number."""
    number = max(512, min(30_000, int(mebibytes * 2**20 / images.mean_bytes)))
    write_shards(folder / "shards", images.files, number, shards)
    (folder / "files").mkdir()
    for i in range(number):
        (folder / "files" / f"{i:08d}.jpg").write_bytes(images.files[i % len(images.files)])
    return number


def _variants(
    folder: Path, store: Store, common: dict[str, Any], settings: dict[str, Any], epoch: int
) -> list[Variant]:
    """What is measured; ``epoch`` batches are a whole one."""
    local, remote = str(folder / "shards"), "s3://bench/shards"
    patient = {"stall_s": PATIENCE_S, **settings}
    cached = {**patient, "block_cache": str(folder / "cache")}
    away = {"environment": store.environment(), "data": remote, **common}
    return [
        Variant(BASE, "memory", data=str(folder / "files"), **common),
        Variant(LOCAL, "ours", data=local, settings=settings, **common),
        Variant(REMOTE, "ours", settings=patient, **away),
        Variant(CACHED, "ours", settings=cached, warm=epoch, **away),
    ]


def _row(size: str, threads: int, name: str, of: Readings, base: Readings) -> StreamRow:
    medians, of_base = of.medians(), base.medians()
    return StreamRow(
        size,
        threads,
        name,
        overhead=1 - median_ratio(of.images_s, base.images_s),
        # a pass may be over before the process's CPU clock has moved
        cpu_overhead=medians["cpu_s"] / of_base["cpu_s"] - 1 if of_base["cpu_s"] else math.nan,
        server_cores=statistics.median(of.beside) if name in (REMOTE, CACHED) else None,
        **medians,
    )


def machine() -> str:
    """The processor and its cores."""
    found = this_machine(torch.device("cpu"))
    return f"{found.processor}, {psutil.cpu_count()} cores"
