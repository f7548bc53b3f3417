"""A training run as a job on the cluster: submit it, wait for what it writes, compare it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.hosts.cluster import Cluster, wait_until
from tests.hosts.network import Host
from vmcmc_dist.engine.checkpoint import CheckpointFolder, load_checkpoint
from vmcmc_dist.engine.run_folder import RunFolder, complete_lines

FIGURES = Path("build") / "survival.jsonl"


class Job:
    """One run folder, and the jobs that trained it."""

    def __init__(self, cluster: Cluster, config: Path, name: str, *settings: str):
        self.cluster, self.name = cluster, name
        self.words = ["train", str(config), f"out={config.parent}", f"name={name}", *settings]
        self.folder = RunFolder(config.parent / name)
        self.checkpoints = CheckpointFolder(self.folder.checkpoints)
        self.id = ""

    def submit(self, *more: str) -> None:
        self.id = self.cluster.submit(*self.words, *more)

    def run_here(self) -> None:
        """The run in one process on this machine, without Ray."""
        words = [*self.words, "launcher=local", "resources.workers=1", "resources.min_workers=0"]
        done = subprocess.run(
            [sys.executable, "-m", "vmcmc_dist", *words],
            capture_output=True,
            text=True,
            timeout=300,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def wait_for_success(self, timeout: float = 240) -> None:
        status = self.cluster.wait(self.id, timeout)
        assert status == "SUCCEEDED", self.told()

    def told(self) -> str:
        """What the user saw, and the end of the log."""
        log = self.folder.log.read_text()[-6000:] if self.folder.log.exists() else ""
        return self.cluster.logs(self.id) + log

    def images(self) -> int:
        """Of the latest checkpoint."""
        latest = self.checkpoints.latest()
        return 0 if latest is None else int(latest.name)

    def wait_for_images(self, images: int, timeout: float = 120) -> None:
        """Until there is a checkpoint at ``images`` or more."""

        def there() -> bool:
            assert self.cluster.status(self.id) in ("PENDING", "RUNNING"), self.told()
            return self.images() >= images

        wait_until(there, timeout, f"checkpoint at {images}", pause=0.1)

    def events(self, *kinds: str) -> list[dict[str, Any]]:
        """Starts and ends of groups of workers."""
        path = self.folder.path / "groups.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        events = [json.loads(line) for line in lines]
        return [event for event in events if not kinds or event["event"] in kinds]

    def hosts(self) -> list[Host]:
        """The hosts that a worker runs on now."""
        return [host for host in self.cluster.hosts if host.processes("ray::", "TrainWorker")]

    def again_after(self, what: str, fault: float, timeout: float = 300) -> float:
        """Seconds from the fault (``time.time()``) until a later group has made a checkpoint.

        Written down under ``what`` in build/survival.jsonl.
        """
        starts = len([event for event in self.events("start") if event["time"] < fault])

        def trains() -> bool:
            assert self.cluster.status(self.id) in ("PENDING", "RUNNING", "SUCCEEDED"), self.told()
            later = self.events("start")[starts:]
            latest = self.checkpoints.latest()
            return bool(later and latest and latest.stat().st_mtime > later[-1]["time"])

        wait_until(trains, timeout, "training again", pause=0.1)
        latest = self.checkpoints.latest()
        assert latest is not None
        seconds = time.time() - fault
        FIGURES.parent.mkdir(exist_ok=True)
        with FIGURES.open("a") as file:
            file.write(json.dumps({"what": what, "seconds": round(seconds, 1)}) + "\n")
        return seconds

    def metrics(self) -> list[dict[str, Any]]:
        """The records, without the entries that depend on the clock."""
        records = complete_lines(self.folder.metrics)
        for record in records:
            record.pop("time", None)
        return records

    def assert_same(self, other: Job) -> None:
        """The same records, each once, and the same weights to the last bit."""
        assert self.metrics() == other.metrics()
        latest, others = self.checkpoints.latest(), other.checkpoints.latest()
        assert latest is not None and others is not None and latest.name == others.name
        one, two = load_checkpoint(latest).tensors, load_checkpoint(others).tensors
        for part, tensors in one.items():
            assert all(tensor.equal(two[part][name]) for name, tensor in tensors.items()), part

    def assert_each_record_once(self) -> None:
        """Images of the records of training: strictly increasing, no interval left out."""
        images = [r["images"] for r in self.metrics() if r["kind"] == "train"]
        assert all(b > a for a, b in zip(images, images[1:], strict=False)), images
        assert images == list(range(images[0], images[-1] + 1, images[0])), images
