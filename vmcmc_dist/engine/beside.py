"""Evaluation beside training: a checkpoint is judged in another process while the run goes on.

    beside = Beside(config, folder, checkpoints, images=0)
    beside.start(images)                    # after a checkpoint was written
    for record in beside.collect(): ...     # what has been found since; never waits
    for record in beside.finish(images): ...

Nothing that happens there ends the training: a failure is a record with ``failed``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch

from vmcmc_dist.config import Config, fill
from vmcmc_dist.engine.checkpoint import CheckpointFolder
from vmcmc_dist.engine.ray_map import RayCall
from vmcmc_dist.engine.run_folder import RunFolder, complete_lines, describe_commit
from vmcmc_dist.errors import ResourceError, UserError
from vmcmc_dist.evaluation.evaluate import evaluate
from vmcmc_dist.evaluation.records import Record, Records
from vmcmc_dist.evaluation.tasks import task_module
from vmcmc_dist.trained import load

TASK = "synthesis"
NICENESS = 10


class Call(Protocol):
    """An evaluation under way."""

    def running(self) -> bool: ...
    def result(self) -> Any: ...
    def end(self) -> None: ...


class Beside:
    """At most one evaluation at a time; the checkpoint that it reads is held.

    ``beat`` is called again and again while the last one is waited for.
    """

    def __init__(
        self,
        config: Config,
        folder: RunFolder,
        checkpoints: CheckpointFolder,
        images: int,
        beat: Callable[[], None] = lambda: None,
    ):
        self.config, self.folder, self.checkpoints = config, folder, checkpoints
        self.beat = beat
        self.settings = config.evaluation
        self.seen = images  # the last checkpoint that was evaluated, or passed over
        self.call: Call | None = None
        self.images = self._last_evaluated() if self.settings.every_images else 0

    def _last_evaluated(self) -> int:
        lines = complete_lines(self.folder.metrics) if self.folder.metrics.exists() else []
        return max((r["images"] for r in lines if r["kind"] == "evaluation"), default=0)

    def start(self, images: int) -> list[Record]:
        """Evaluate the checkpoint at ``images`` if one is due; if one is running, say so.

        Returns what has been found where ``evaluation.where=here``, else nothing.
        """
        every = self.settings.every_images
        if not every or images // every == self.seen // every:
            return []
        if self.call is not None and self.call.running():
            self._log(f"{images:,} skipped, the one at {self.images:,} is still running")
            self.seen = images
        elif self.call is None:
            self._start(images)
        return self.collect() if self.settings.where == "here" else []

    def _start(self, images: int) -> None:
        what = {
            "run": str(self.folder.path),
            "images": images,
            "device": self.config.resources.device,
            "threads": self.settings.threads,
            "settings": {
                "n": self.settings.n,
                "steps": self.settings.steps,
                "features": self.settings.features,
            },
        }
        self.seen = images
        if not self.checkpoints.hold(images):
            self._log(f"{images:,} skipped, it was followed by others and is gone")
            return
        self.images = images
        if self.settings.where == "here":
            self._log(f"{images:,} started")
            self.call = HereCall(what)
            return
        if self.config.launcher == "ray":
            self.call = RayCall(evaluate_checkpoint, what)
        else:
            self.call = ProcessCall(what, self.folder)
        self._log(f"{images:,} started")

    def collect(self) -> list[Record]:
        """The line of metrics of an evaluation that has ended since, if one has."""
        if self.call is None or self.call.running():
            return []
        call, self.call = self.call, None
        self.checkpoints.let_go()
        line: Record = {"kind": "evaluation", "task": TASK, "images": self.images, "figures": {}}
        try:
            call.result()
            line["figures"] = self._figures()
            self._log(f"{self.images:,} done")
        except UserError as error:
            line["failed"] = str(error)
            self._log(f"{self.images:,} FAILED: {error}")
        return [line]

    def _figures(self) -> dict[str, float]:
        """The numbers of the newest record of this checkpoint."""
        for record in reversed(Records(self.folder.path).all()):
            if (record["task"], record["images"]) == (TASK, self.images):
                return {
                    name: value
                    for name, value in record["figures"].items()
                    if isinstance(value, (int, float)) and not isinstance(value, bool)
                }
        raise ResourceError("it left no record")

    def finish(self, images: int) -> list[Record]:
        """Wait for the one that is running, then evaluate the last checkpoint too.

        A request to stop ends the wait, and the evaluation.
        """
        if not self.settings.every_images:
            return []
        found = self._wait()
        if self.images != images and not self.folder.stop.exists():
            self._start(images)
            found += self._wait()
        return found

    def _wait(self) -> list[Record]:
        while self.call is not None and self.call.running():
            if self.folder.stop.exists():
                self.close()
                return []
            self.beat()
            time.sleep(0.1)
        return self.collect()

    def close(self) -> None:
        """End what is running."""
        if self.call is not None:
            self.call.end()
            self._log(f"{self.images:,} ended with the run, before it was done")
        self.call = None
        self.checkpoints.let_go()

    def _log(self, text: str) -> None:
        print(f"evaluation of the checkpoint at {text}", flush=True)


class HereCall:
    """:func:`judge_checkpoint` in this process, done when this is made."""

    def __init__(self, what: dict[str, Any]):
        self.error: UserError | None = None
        try:
            judge_checkpoint(what)
        except UserError as error:
            self.error = error

    def running(self) -> bool:
        return False

    def result(self) -> None:
        if self.error is not None:
            raise self.error

    def end(self) -> None:
        """Nothing is left to end."""


class ProcessCall:
    """:func:`evaluate_checkpoint` in a Python of its own, which ends with this process."""

    def __init__(self, what: dict[str, Any], folder: RunFolder):
        workers = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "TORCHELASTIC_RUN_ID")
        environment = {k: v for k, v in os.environ.items() if k not in workers}
        environment["OMP_NUM_THREADS"] = str(what["threads"])
        self.errors = folder.path / "evaluation" / ".errors"
        self.errors.parent.mkdir(parents=True, exist_ok=True)
        with self.errors.open("w") as errors, folder.log.open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "vmcmc_dist.engine.beside", json.dumps(what)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=errors,
                env=environment,
                start_new_session=True,
            )

    def running(self) -> bool:
        return self.process.poll() is None

    def result(self) -> None:
        """ResourceError with the last line that it said, if it failed."""
        if self.process.wait() != 0:
            said = self.errors.read_text().strip().splitlines()
            raise ResourceError(said[-1] if said else f"status {self.process.returncode}")

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


def evaluate_checkpoint(what: dict[str, Any]) -> None:
    """:func:`judge_checkpoint` in a process of its own, at low priority."""
    os.nice(max(0, NICENESS - os.nice(0)))
    torch.set_num_threads(what["threads"])
    judge_checkpoint(what)


def judge_checkpoint(what: dict[str, Any]) -> None:
    """Judge one checkpoint by its averaged weights; the record goes where all records go."""
    overrides = [f"{key}={value}" for key, value in what["settings"].items()]
    settings = fill(task_module(TASK).Settings, overrides)
    model = load(what["run"], checkpoint=str(what["images"]), ema=True, device=what["device"])
    evaluate(Path(what["run"]), model, TASK, settings, ema=True, commit=describe_commit())


def end_with(parent: int) -> None:
    """End this process when ``parent`` is gone; a later run would find its lock otherwise."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()


if __name__ == "__main__":
    end_with(os.getppid())
    try:
        evaluate_checkpoint(json.loads(sys.argv[1]))
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
