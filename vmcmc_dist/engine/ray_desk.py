"""What a run's driver and its first worker tell each other where they are on different machines.

The driver shows progress from the run's metrics and asks for a stop by a file beside them. The
first worker writes those metrics and looks for that file. A run on S3 has a local folder on each
machine; so there the driver keeps a :class:`Desk` on its own, and the worker calls at it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, BinaryIO

from vmcmc_dist.engine.run_folder import RunFolder

PATIENCE = 10.0
"""Seconds that one call may take."""


class Desk:
    """The driver's side, an actor: it works in the driver's folder."""

    def __init__(self, folder: RunFolder):
        self.folder = folder

    def call(self, start: int, lines: bytes, begun: bool) -> tuple[bool, int]:
        """Metrics from byte ``start`` on, and whether the first step is done.

        Returns whether a stop is wanted, and how many bytes of metrics are here now.
        """
        if begun and not self.folder.first_step.exists():
            self.folder.first_step.touch()
        path = self.folder.metrics
        there = path.stat().st_size if path.exists() else 0
        if start == 0 and lines:
            partial = path.with_name(f".{path.name}.partial")
            partial.write_bytes(lines)
            partial.replace(path)
            there = len(lines)
        elif lines and there == start:
            with path.open("ab") as file:
                file.write(lines)
            there += len(lines)
        return self.folder.stop.exists(), there


@dataclass
class DeskAt:
    """A desk, and the node that it is on; travels to the workers."""

    actor: Any
    node: str

    @classmethod
    def open(cls, folder: RunFolder) -> DeskAt:
        """On this machine; gone with this process."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        node = ray.get_runtime_context().get_node_id()
        here = NodeAffinitySchedulingStrategy(node, soft=False)
        actor = ray.remote(num_cpus=0, num_gpus=0)(Desk).options(scheduling_strategy=here)
        return cls(actor.remote(folder), node)


class Errand:
    """The worker's side: what is new since the last call."""

    def __init__(self, desk: DeskAt, folder: RunFolder):
        self.desk, self.folder = desk, folder
        self._file: BinaryIO | None = None  # kept open, so that its inode cannot come back
        self._sent = 0
        folder.path.mkdir(parents=True, exist_ok=True)
        for left in (folder.stop, folder.first_step):  # of an earlier run on this machine
            left.unlink(missing_ok=True)

    @classmethod
    def of(cls, desk: DeskAt | None, folder: RunFolder) -> Errand | None:
        """None where there is no desk, or it is on this machine, in the same folder."""
        import ray

        here = ray.get_runtime_context().get_node_id()
        return None if desk is None or desk.node == here else cls(desk, folder)

    def run(self) -> None:
        """One call. Raises what Ray raises if the driver's machine does not answer."""
        import ray

        start, lines = self._news()
        begun = self.folder.first_step.exists()
        answer = self.desk.actor.call.remote(start, lines, begun)
        stop, there = ray.get(answer, timeout=PATIENCE)
        self._sent = there if there == start + len(lines) else 0  # else all of it once more
        if stop:
            self.folder.stop.touch()

    def _news(self) -> tuple[int, bytes]:
        """Whole lines past what was sent; all of them if records were dropped (a new file)."""
        path = self.folder.metrics
        if not path.exists():
            return 0, b""
        if self._file is None or not os.path.samestat(os.fstat(self._file.fileno()), path.stat()):
            self.close()
            self._file, self._sent = path.open("rb"), 0
        self._file.seek(self._sent)
        text = self._file.read()
        return self._sent, text[: text.rfind(b"\n") + 1]

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
