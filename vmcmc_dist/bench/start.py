"""How long a reader of very many shards takes to start, and the memory it needs for that."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import vmcmc_dist
from vmcmc_dist.bench.shuffle import made_up_manifest
from vmcmc_dist.data.manifest import write_manifest
from vmcmc_dist.errors import ResourceError

SCRIPT = Path(__file__).with_name("start_process.py")
TARGET_SECONDS = 2.0
TARGET_MIB = 100.0


@dataclass(frozen=True)
class Start:
    """One reader: seconds to open the manifest, to make the stream, and to plan its first batch;
    memory (peak over the imported interpreter, MiB); blocks in the table, and its bytes.
    """

    sample_bytes: int
    blocks: int
    table_bytes: int
    open_s: float
    stream_s: float
    plan_s: float
    memory_mib: float

    @property
    def seconds(self) -> float:
        return self.open_s + self.stream_s + self.plan_s


@dataclass(frozen=True)
class StartBench:
    """Starts at several sample sizes. ``str()`` is a markdown table."""

    shards: int
    samples: int
    rank: int
    world_size: int
    rows: list[Start]

    def __str__(self) -> str:
        lines = [
            f"{self.shards:,} shards of {self.samples:,} samples, reader {self.rank} of "
            f"{self.world_size}; targets {TARGET_SECONDS:g} s and {TARGET_MIB:g} MiB; peak memory "
            "over the imported interpreter's",
            "",
            "| sample | blocks | index.npy | open manifest | make stream | first window planned "
            "| all | memory |",
            "|---:|---:|---:|---:|---:|---:|---:|---:|",
        ]
        for r in self.rows:
            lines.append(
                f"| {r.sample_bytes / 1024:g} KiB | {r.blocks:,} | {r.table_bytes / 2**20:.1f} MiB "
                f"| {r.open_s:.2f} s | {r.stream_s:.2f} s | {r.plan_s:.2f} s "
                f"| {r.seconds:.2f} s | {r.memory_mib:.0f} MiB |"
            )
        return "\n".join(lines)


def bench_start(
    *,
    shards: int = 10_000,
    samples: int = 1000,
    sample_kib: Sequence[int] = (4, 32, 72),
    rank: int = 17,
    world_size: int = 256,
    local_batch: int = 64,
    rounds: int = 3,
) -> StartBench:
    """Start one reader of ``world_size`` on a made-up data set, each time in a new process.

    manifest.json and index.npy are written to a temporary folder; no tar is needed, for nothing is
    read. Times are medians of ``rounds``, memory is the most of them.
    """
    rows = []
    for kib in sample_kib:
        with tempfile.TemporaryDirectory(prefix="vmcmc-start-") as folder:
            manifest = made_up_manifest(shards, samples, kib << 10)
            write_manifest(manifest, folder)
            blocks, table = len(manifest.blocks), (Path(folder) / "index.npy").stat().st_size
            order = {"base": folder, "rank": rank, "world": world_size, "batch": local_batch}
            runs = [_run(order) for _ in range(rounds)]
        times = {
            k: statistics.median(run[k] for run in runs) for k in ("open_s", "stream_s", "plan_s")
        }
        memory = max(run["memory_mib"] for run in runs)
        rows.append(Start(kib << 10, blocks, table, **times, memory_mib=memory))
    return StartBench(shards, samples, rank, world_size, rows)


def _run(order: dict[str, object]) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), json.dumps(order)],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(Path(vmcmc_dist.__file__).parents[1]), "OMP_NUM_THREADS": "1"},
    )
    if done.returncode:
        raise ResourceError(f"the reader's process ended: {done.stderr.strip()[-500:]}")
    return json.loads(done.stdout.splitlines()[-1])
