"""Worker processes of the scaling benchmark, as the one who conducts them sees them."""

from __future__ import annotations

import multiprocessing
import os
import statistics
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch.distributed as dist

from vmcmc_dist.config import Config, to_dict
from vmcmc_dist.data.manifest import Manifest
from vmcmc_dist.engine.scaling_worker import Place, Steps, work
from vmcmc_dist.errors import ResourceError

SWEEP = (4, 1 << 20, 1 << 23)
"""Bytes of the all-reduces that measure the link."""


def cores() -> list[int]:
    """Numbers of the cores that this process may use."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]


class Group:
    """Worker processes, each on a core of its own where there are enough.

    Args:
        variants: name → config; every worker builds a trainer for each.
        apart: every worker is alone in a process group of its own.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        size: int,
        variants: dict[str, Config],
        manifest: Manifest,
        apart: bool = False,
    ):
        self.name, self.size, self.log = name, size, folder / "log.txt"
        self.pipes: list[Connection] = []
        self.processes: list[Any] = []
        self.stores = [
            dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
            for _ in range(size if apart else 1)
        ]
        # One server imports torch and DeepSpeed once; workers are forked from it.
        server = multiprocessing.get_context("forkserver")
        server.set_forkserver_preload(["vmcmc_dist.engine.scaling_worker"])
        for member in range(size):
            place = Place(
                rank=0 if apart else member,
                world_size=1 if apart else size,
                port=self.stores[member if apart else 0].port,
                core=cores()[member % len(cores())],
                log=str(self.log),
            )
            out = f"{folder}/{name}-{member if apart else 0}"
            own = {key: to_dict(config) | {"out": out} for key, config in variants.items()}
            ours, theirs = server.Pipe()
            process = server.Process(target=work, args=(theirs, place, own, manifest), daemon=True)
            process.start()
            theirs.close()
            self.pipes.append(ours)
            self.processes.append(process)

    def wait_until_ready(self) -> None:
        for member in range(self.size):
            self._answer(member)

    def steps(self, variant: str, number: int, members: int | None = None) -> list[Steps]:
        """``number`` steps of a variant on the first ``members`` (all of them if not given)."""
        return self._ask(("steps", variant, number), members or self.size)

    def link(self, times: int) -> list[float]:
        """Seconds of an all-reduce of each size of the sweep, mean over workers."""
        found = self._ask(("send", SWEEP, times), self.size)
        return [statistics.mean(column) for column in zip(*found, strict=True)]

    def close(self) -> None:
        for pipe in self.pipes:
            pipe.close()
        for process in self.processes:
            process.kill()
            process.join()

    def _ask(self, what: tuple, members: int) -> list[Any]:
        for pipe in self.pipes[:members]:
            pipe.send(what)
        return [self._answer(member) for member in range(members)]

    def _answer(self, member: int) -> Any:
        try:
            return self.pipes[member].recv()
        except EOFError:
            said = [line for line in self.log.read_text().splitlines() if line.strip()]
            raise ResourceError(
                f"worker {member} of {self.name} died: {said[-1] if said else 'it said nothing'}"
            ) from None
