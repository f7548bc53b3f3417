"""What evaluations found: ``RUN/evaluation/records.jsonl``, one record a line, and who may write.

Each record holds its task, its figures and everything that they depend on. Two evaluations with
the same *identity* (task, weights, settings, data) give the same figures.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors.torch import save

from vmcmc_dist.errors import DataError, ResourceError
from vmcmc_dist.trained import Trained

Record = dict[str, Any]


class Records:
    """The records of one run.

    records = Records("runs/faces")
    found = records.finished(identity)
    records.append({"task": "synthesis", "identity": digest(identity), …})
    """

    def __init__(self, run: str | Path):
        self.folder = Path(run) / "evaluation"
        self.path = self.folder / "records.jsonl"

    def all(self) -> list[Record]:
        """Oldest first; a torn last line (a kill while writing) is left out."""
        if not self.path.exists():
            return []
        text = self.path.read_text()
        try:
            return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines() if line]
        except ValueError as error:
            raise DataError(
                f"{self.path} is damaged ({error}); delete the line or the file"
            ) from None

    def finished(self, identity: dict[str, Any]) -> Record | None:
        """The newest record of exactly this evaluation."""
        wanted = digest(identity)
        return next((r for r in reversed(self.all()) if r.get("identity") == wanted), None)

    def append(self, record: Record) -> None:
        """One more record, whole and on the disk when this returns, also beside other writers.

        Raises:
            DataError: a figure that is not finite. ResourceError: no room.
        """
        _check_finite(record["figures"], record["task"])
        line = json.dumps(record, allow_nan=False) + "\n"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self.path.open("a+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                _end_torn_line(file)
                file.write(line.encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise ResourceError(
                f"{self.path} cannot be written ({error.strerror or error})"
            ) from None

    @contextmanager
    def locked(self, task: str) -> Iterator[Path]:
        """Hold a task of this run for this process; yields the task's folder.

        Raises:
            ResourceError: another process evaluates it, or the folder cannot be written.
        """
        folder = self.folder / task
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = (folder / ".lock").open("w")
        except OSError as error:
            raise ResourceError(f"{folder} cannot be written ({error.strerror or error})") from None
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise ResourceError(
                    f"another process evaluates {task} of {self.folder.parent}; wait for it"
                ) from None
            yield folder


def digest(identity: dict[str, Any]) -> str:
    """sha256 of an identity."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def weights_sha256(model: Trained) -> str:
    """sha256 of both nets' weights: what was evaluated, whatever its folder is called."""
    total = hashlib.sha256()
    for net in (model.energy_net, model.vae):
        tensors = {k: v.detach().cpu().contiguous().clone() for k, v in net.state_dict().items()}
        total.update(save(dict(sorted(tensors.items()))))
    return total.hexdigest()


def _end_torn_line(file: Any) -> None:
    """A line that a kill left without its end would swallow the next one: it is cut off."""
    file.seek(0)
    content = file.read()
    if content and not content.endswith(b"\n"):
        file.truncate(content.rfind(b"\n") + 1)


def _check_finite(value: Any, where: str) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            _check_finite(item, f"{where}: {key}")
    elif isinstance(value, (list, tuple)):
        for item in value:
            _check_finite(item, where)
    elif isinstance(value, float) and not math.isfinite(value):
        raise DataError(f"{where} is {value}: no finite number came out, so there is no record")
