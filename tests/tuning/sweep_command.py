"""``vmcmc tune`` as the user runs it, and what it leaves behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from vmcmc_dist.engine.checkpoint import CheckpointFolder, load_checkpoint
from vmcmc_dist.engine.run_folder import complete_lines
from vmcmc_dist.tuning.folder import Event, SweepFolder

MARK = f"VMCMC_TEST_OF={os.getpid()}-tuning"


class Command:
    """``vmcmc tune`` of a sweep file, in a folder of its own."""

    def __init__(self, file: Path, name: str):
        self.file, self.name = file, name
        self.folder = SweepFolder(file.parent / "runs" / name)

    def start(self, *settings: str) -> subprocess.Popen:
        words = [
            sys.executable, "-m", "vmcmc_dist", "tune", str(self.file), f"name={self.name}",
            f"out={self.folder.path.parent}", *settings,
        ]  # fmt: skip
        environment = os.environ | {"VMCMC_TEST_OF": MARK.split("=")[1]}
        return subprocess.Popen(
            words,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env=environment,
        )

    def __call__(self, *settings: str, timeout: float = 280) -> tuple[int, str, str]:
        return ended(self.start(*settings), timeout)

    def wait_for(self, what: Callable[[list[Event]], bool], process: subprocess.Popen) -> None:
        until = time.monotonic() + 150
        while time.monotonic() < until and process.poll() is None:
            if what(self.folder.events()):
                return
            time.sleep(0.02)
        raise AssertionError(f"never seen: {ended(process, 1)}, {self.folder.events()}")

    def records(self, number: str) -> list[dict[str, Any]]:
        """A trial's metrics, without the entries that depend on the clock."""
        records = complete_lines(self.folder.trial(number).metrics)
        return [{k: v for k, v in r.items() if k != "time"} for r in records]

    def tensors(self, number: str) -> dict[str, Any]:
        latest = CheckpointFolder(self.folder.trial(number).checkpoints).latest()
        assert latest is not None, number
        return load_checkpoint(latest).tensors


def ended(process: subprocess.Popen, timeout: float) -> tuple[int, str, str]:
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise AssertionError(f"still running after {timeout} s: {process.communicate()}") from None
    return process.returncode, out, err


def trial_processes(process: subprocess.Popen) -> list[psutil.Process]:
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            if "TrainingTrial" in child.name() or "TrainingTrial" in " ".join(child.cmdline()):
                found.append(child)
        except psutil.NoSuchProcess:
            continue
    return found


def same(one: dict, other: dict) -> bool:
    return all(
        tensor.equal(other[part][name]) for part, ts in one.items() for name, tensor in ts.items()
    )


def ours(process: Path) -> bool:
    try:
        environment = (process / "environ").read_bytes()
        return MARK.encode() in environment and b"ray" in (process / "cmdline").read_bytes()
    except OSError:
        return False
