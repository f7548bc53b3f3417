"""Our stream beside the readers that others use, on the same images and the same decoders."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vmcmc_dist.bench.clock import median_ratio
from vmcmc_dist.bench.jpegs import SIZES, jpegs_of
from vmcmc_dist.bench.readers import SCRIPT, Readings, Variant, measure
from vmcmc_dist.bench.stream import machine, write_set
from vmcmc_dist.errors import ResourceError

OURS = "vmcmc_dist"
PACKAGES = ("mosaicml-streaming==0.13.0", "torch==2.14.1", "torchvision==0.29.1", "simplejpeg")
"""Of MosaicML Streaming's own environment; simplejpeg in our version."""

PEERS = (
    (OURS, "ours", "fast"),
    ("webdataset", "webdataset", "fast"),
    ("webdataset", "webdataset", "pillow"),
    ("MosaicML Streaming", "mosaic", "fast"),
    ("MosaicML Streaming", "mosaic", "pillow"),
    ("PyTorch DataLoader, folder", "folder", "fast"),
    ("PyTorch DataLoader, folder", "folder", "pillow"),
)
"""Name, reader, decoder."""


@dataclass(frozen=True)
class PeerRow:
    """One reader at one size and number of workers; ``ours_ahead`` = our rate / its rate."""

    size: str
    workers: int
    name: str
    decoder: str
    images_s: float
    ours_ahead: float
    first_s: float
    cpu_s: float
    memory_mb: float


@dataclass(frozen=True)
class PeersBench:
    """All readers. ``str()`` is a markdown table that names who is ahead."""

    machine: str
    batch: int
    rounds: int
    seconds: float
    sets: list[str]
    left_out: list[str]
    rows: list[PeerRow]

    def __str__(self) -> str:
        lines = [
            f"{self.machine}; batches of {self.batch} uint8, shuffled; medians of {self.rounds} "
            f"interleaved rounds of {self.seconds:g} s",
            "workers: decode threads of ours (one process), DataLoader processes of the others; "
            "first batch: from opening the data set, imports before that, files in the page cache; "
            "memory: of all processes, over the interpreter with its imports, mapped files aside",
            *self.sets,
            *self.left_out,
            "",
            "| images | workers | reader | decoder | images/s | ours is | CPU/image | first batch "
            "| memory |",
            "|---|---:|---|---|---:|---:|---:|---:|---:|",
        ]
        for r in self.rows:
            ahead = "" if r.name == OURS else f"{r.ours_ahead:.2f}×"
            lines.append(
                f"| {r.size} | {r.workers} | {r.name} | {r.decoder} | {r.images_s:,.0f} | {ahead} "
                f"| {1000 * r.cpu_s:.0f} µs | {1000 * r.first_s:.0f} ms | {r.memory_mb:.0f} MiB |"
            )
        return "\n".join([*lines, "", *self.verdicts()])

    def verdicts(self) -> list[str]:
        """A line for each size and number of workers: whether ours is ahead in each respect."""
        lines = []
        for size, workers in dict.fromkeys((r.size, r.workers) for r in self.rows):
            here = [r for r in self.rows if (r.size, r.workers) == (size, workers)]
            ours = next(r for r in here if r.name == OURS)
            said = []
            for what, better in (
                ("images/s", lambda r, o: r.images_s > o.images_s),
                ("first batch", lambda r, o: r.first_s < o.first_s),
                ("memory", lambda r, o: r.memory_mb < o.memory_mb),
            ):
                ahead = [f"{r.name} ({r.decoder})" for r in here if better(r, ours)]
                said.append(f"{what}: " + (", ".join(ahead) + " ahead" if ahead else "ours ahead"))
            lines.append(f"{size}, {workers} worker{'s' if workers > 1 else ''}: {'; '.join(said)}")
        return lines


def bench_peers(
    sizes: Sequence[tuple[int, int]] = SIZES,
    *,
    roots: Sequence[Path] = (),
    workers: Sequence[int] = (1, 2),
    batch: int = 64,
    mebibytes: int = 96,
    rounds: int = 5,
    seconds: float = 2.0,
    starts: int = 3,
    mosaic_venv: Path | None = None,
    peers: Sequence[tuple[str, str, str]] = PEERS,
    settings: dict[str, Any] | None = None,
    progress: Callable[[str], None] | None = None,
) -> PeersBench:
    """Read the same JPEG bytes by each of ``peers`` (ours first), in turns.

    Ours reads as a training run does: shuffled, exactly once, resumable, checksums checked;
    ``settings`` are keys of data.*. MosaicML Streaming is left out without ``mosaic_venv``, an
    environment that :func:`make_venv` made.
    """
    peers = [p for p in peers if p[1] != "mosaic" or mosaic_venv is not None]
    rows: list[PeerRow] = []
    sets = []
    for width, height in sizes:
        images = jpegs_of(width, height, roots)
        with tempfile.TemporaryDirectory(prefix="vmcmc-peers-") as name:
            folder = Path(name)
            number = write_set(folder, images, mebibytes)
            sets.append(f"{images}, {number:,} in all")
            if mosaic_venv is not None:
                _write_mds(mosaic_venv, folder, int(mebibytes * 2**20 / 16))
            for count in workers:
                if progress is not None:
                    progress(f"{images.name}, {count} worker{'s' if count > 1 else ''}")
                variants = [
                    _variant(
                        peer, folder, (width, height), count, batch, mosaic_venv, settings or {}
                    )
                    for peer in peers
                ]
                found = measure(
                    variants,
                    rounds=rounds,
                    seconds=seconds,
                    starts=starts,
                    log=folder / "log.txt",
                )
                rows += [
                    _row(images.name, count, peer, readings, found[0])
                    for peer, readings in zip(peers, found, strict=True)
                ]
    left_out = [] if mosaic_venv else ["MosaicML Streaming: left out; give --peers-venv FOLDER"]
    return PeersBench(machine(), batch, rounds, seconds, sets, left_out, rows)


def _variant(
    peer: tuple[str, str, str],
    folder: Path,
    size: tuple[int, int],
    workers: int,
    batch: int,
    mosaic_venv: Path | None,
    settings: dict[str, Any],
) -> Variant:
    name, reader, decoder = peer
    part = {"folder": "files", "mosaic": "mds"}.get(reader, "shards")
    return Variant(
        f"{name} ({decoder})",
        reader,
        workers,
        str(folder / part),
        size,
        batch,
        decoder,
        settings if reader == "ours" else {},
        python=str(python_of(mosaic_venv))
        if reader == "mosaic" and mosaic_venv
        else sys.executable,
    )


def _row(
    size: str, workers: int, peer: tuple[str, str, str], of: Readings, ours: Readings
) -> PeerRow:
    ahead = median_ratio(ours.images_s, of.images_s)
    return PeerRow(size, workers, peer[0], peer[2], ours_ahead=ahead, **of.medians())


def python_of(folder: Path) -> Path:
    """The interpreter of a virtual environment."""
    return folder / "bin" / "python"


def make_venv(folder: Path, say: Callable[[str], None]) -> Path:
    """MosaicML Streaming's environment: made once, by pip, of PACKAGES; gigabytes, minutes.

    It is apart from ours because it asks for other versions of torch and numpy.
    Raises ResourceError if pip fails.
    """
    from importlib.metadata import version

    done = folder / "ready.json"
    wanted = [p if "==" in p else f"{p}=={version(p)}" for p in PACKAGES]
    if done.is_file() and json.loads(done.read_text()) == wanted:
        return folder
    say(f"making {folder}: {' '.join(wanted)}; this takes minutes")
    venv.create(folder, with_pip=True)
    run = subprocess.run(
        [str(python_of(folder)), "-m", "pip", "install", "--disable-pip-version-check", *wanted],
        capture_output=True,
        text=True,
    )
    if run.returncode:
        raise ResourceError(f"{folder}: pip failed: {run.stderr.strip()[-500:]}")
    done.write_text(json.dumps(wanted))
    return folder


def _write_mds(mosaic_venv: Path, folder: Path, shard_bytes: int) -> None:
    order = {"source": str(folder / "files"), "out": str(folder / "mds")}
    run = subprocess.run(
        [
            str(python_of(mosaic_venv)),
            str(SCRIPT),
            json.dumps({"write_mds": {**order, "shard_bytes": shard_bytes}}),
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": ""},
    )
    if run.returncode:
        raise ResourceError(f"MosaicML Streaming cannot write: {run.stderr.strip()[-500:]}")
