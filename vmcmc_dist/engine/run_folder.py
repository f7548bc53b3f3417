"""The folder of one run: what is written, under which name, and how it is read back.

runs/NAME/
    config.yaml         the resolved config
    environment.json    versions, commit, hardware, command
    metrics.jsonl       one record a line
    samples/            grids: proposals left, refined samples right
    checkpoints/        the last k and the best
    tensorboard/        events
    evaluation/         records.jsonl: figures of the tasks; TASK/: their pictures and files
    log.txt             everything that Ray, DeepSpeed and torch have to say
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmcmc_dist.data.config import cache_dir
from vmcmc_dist.errors import ResourceError

if TYPE_CHECKING:
    from vmcmc_dist.config import Config

PACKAGES = ("torch", "ray", "deepspeed", "webdataset", "s3fs", "omegaconf", "numpy", "pillow")


class RunFolder:
    """Paths of a run, its metrics file, and its environment record."""

    def __init__(self, path: str | Path, url: str | None = None):
        self.path, self.url = Path(path), url
        self.config = self.path / "config.yaml"
        self.environment = self.path / "environment.json"
        self.metrics = self.path / "metrics.jsonl"
        self.samples = self.path / "samples"
        self.checkpoints = self.path / "checkpoints"
        self.tensorboard = self.path / "tensorboard"
        self.log = self.path / "log.txt"
        self.stop = self.path / ".stop"
        self.first_step = self.path / ".first_step"

    @classmethod
    def of(cls, config: Config) -> RunFolder:
        """The folder of a run; of one on S3 the local folder that it works in."""
        if not config.out.startswith("s3://"):
            return cls(f"{config.out}/{config.name}")
        url = f"{config.out.rstrip('/')}/{config.name}"
        scratch = config.store.scratch
        base = Path(scratch).expanduser() if scratch else cache_dir() / "runs"
        return cls(base / hashlib.sha256(url.encode()).hexdigest()[:16] / config.name, url)

    @property
    def place(self) -> str:
        """Where the user finds the run: a URL, or the path."""
        return self.url or str(self.path)

    def create(self) -> None:
        """Make the folder; :class:`ResourceError` if it cannot be written."""
        try:
            self.samples.mkdir(parents=True, exist_ok=True)
            with self.log.open("a"):
                pass
        except OSError as error:
            raise ResourceError(
                f"the run folder {self.path} cannot be written ({error.strerror or error}); "
                "set out=… to a folder of yours"
            ) from None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run for this process; :class:`ResourceError` if another one trains it.

        The lock goes with the process, however that ends.
        """
        with (self.path / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise ResourceError(
                    f"another process is training {self.place}; wait for it, stop it, or give "
                    "this run another name=…"
                ) from None
            yield

    def append(self, record: dict[str, Any]) -> None:
        """One more line of metrics, on the disk when this returns."""
        try:
            with self.metrics.open("a") as file:
                file.write(json.dumps(record, allow_nan=False) + "\n")
                file.flush()
        except OSError as error:
            raise ResourceError(
                f"{self.metrics} cannot be written ({error.strerror or error}). The run is safe "
                "up to its last checkpoint; make room and run the same command again."
            ) from None

    def truncate_metrics(self, images: int) -> None:
        """Drop records past ``images``: they are about to be made again."""
        if not self.metrics.exists():
            return
        kept = [line for line in complete_lines(self.metrics) if line["images"] <= images]
        partial = self.metrics.with_suffix(".partial")
        partial.write_text("".join(json.dumps(line) + "\n" for line in kept))
        os.replace(partial, self.metrics)

    def write_environment(self, record: dict[str, Any]) -> None:
        self.environment.write_text(json.dumps(record, indent=1) + "\n")


def complete_lines(path: Path) -> list[dict[str, Any]]:
    """The JSON records of a metrics file; a torn last line (a kill while writing) is left out."""
    text = path.read_text()
    complete = text[: text.rfind("\n") + 1]
    return [json.loads(line) for line in complete.splitlines() if line]


def describe_environment() -> dict[str, Any]:
    """Versions, commit, hardware and command of this process."""
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "command": " ".join(sys.argv),
        "commit": describe_commit(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "cpu": _cpu_name(),
        "cpus": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "gpus": gpus,
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def describe_commit() -> str | None:
    """Commit of the source tree, with "+" if it has changes; ``None`` outside a checkout."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        commit = subprocess.run(
            [*git, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()
        dirty = subprocess.run(
            [*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, timeout=10
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + ("+" if dirty else "")


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        return platform.processor()
    return platform.processor()
