"""A worker of the scaling benchmark: a process with real trainers, run when it is told to."""

from __future__ import annotations

import os
import statistics
import time
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from vmcmc_dist.config import config_from_dict
from vmcmc_dist.data.manifest import Manifest
from vmcmc_dist.engine.context import Restart, WorkerContext
from vmcmc_dist.engine.learner import DeepSpeedLearner
from vmcmc_dist.engine.measured_group import Call, Watch, join_measured
from vmcmc_dist.engine.run_folder import RunFolder
from vmcmc_dist.engine.trainer import Trainer
from vmcmc_dist.errors import DivergenceError
from vmcmc_dist.langevin import keep_freed_memory

CHAINS, FLAGS, REST = "chains", "flags", "rest"
"""Phases of a step beside ``energy`` and ``vae``: from its start to the end of the chains, the
agreement of all workers after them, and the averages and figures at its end."""


@dataclass
class Place:
    """Who a worker is, and the core that it shares with nobody if there are enough."""

    rank: int
    world_size: int
    port: int
    core: int
    log: str


@dataclass
class Steps:
    """Some steps of one worker: seconds of each, seconds by phase and collectives of all."""

    seconds: list[float]
    phases: dict[str, float]
    calls: list[Call]


class WatchedLearner:
    """A learner that says when its net is at work."""

    def __init__(self, learner: DeepSpeedLearner, name: str, watch: Watch):
        self.learner, self.name, self.watch = learner, name, watch

    def __call__(self, *inputs: Tensor | None) -> Any:
        self.watch.enter(self.name)
        return self.learner(*inputs)

    def backward(self, loss: Tensor) -> None:
        self.watch.enter(self.name)
        self.learner.backward(loss)

    def step(self) -> Tensor | None:
        self.watch.enter(self.name)
        norm = self.learner.step()
        self.watch.enter(REST)
        return norm

    def __getattr__(self, name: str) -> Any:
        return getattr(self.learner, name)


def work(pipe: Connection, place: Place, variants: dict[str, dict], manifest: Manifest) -> None:
    """Build a trainer for each variant (name → config), then obey until told to end.

    Commands: ("steps", variant, number) → :class:`Steps`; ("send", sizes, times) → seconds of an
    all-reduce of each size in bytes, the median; ("end",).
    """
    descriptor = os.open(place.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {place.core})
    torch.set_num_threads(1)
    keep_freed_memory()
    os.environ |= {"RANK": str(place.rank), "LOCAL_RANK": str(place.rank)}
    os.environ |= {"WORLD_SIZE": str(place.world_size), "GLOO_SOCKET_IFNAME": "lo"}
    store = dist.TCPStore("127.0.0.1", place.port, timeout=timedelta(seconds=120))
    watch = join_measured(store, place.rank, place.world_size)
    context = WorkerContext(place.rank, place.world_size, torch.device("cpu"))
    trainers = {}
    for name, values in variants.items():
        config = config_from_dict(values)
        RunFolder.of(config).create()
        trainers[name] = watched(Trainer(config, context, manifest, Restart()), watch)
    pipe.send("ready")
    while True:
        match pipe.recv():
            case ("steps", name, number):
                pipe.send(steps(trainers[name], watch, number))
            case ("send", sizes, times):
                pipe.send([send(size, times) for size in sizes])
                watch.take()
            case ("end",):
                break
    for trainer in trainers.values():
        trainer.close()
    dist.destroy_process_group()


def watched(trainer: Trainer, watch: Watch) -> Trainer:
    """The trainer, telling ``watch`` what it does."""
    trainer.energy = WatchedLearner(trainer.energy, "energy", watch)  # type: ignore[assignment]
    trainer.vae = WatchedLearner(trainer.vae, "vae", watch)  # type: ignore[assignment]
    agree = trainer.plan.agree

    def agree_aloud(error: DivergenceError | None) -> None:
        watch.enter(FLAGS)
        agree(error)

    trainer.plan.agree = agree_aloud
    return trainer


def steps(trainer: Trainer, watch: Watch, number: int) -> Steps:
    """Time ``number`` iterations, one by one."""
    seconds = []
    watch.take()
    for _ in range(number):
        start = time.monotonic()
        watch.enter(CHAINS)
        trainer.meter.add(trainer.iterate())
        watch.enter("")
        seconds.append(time.monotonic() - start)
    phases, calls = watch.take()
    phases.pop("", None)
    return Steps(seconds, phases, calls)


def send(size: int, times: int) -> float:
    """Median seconds of an all-reduce of ``size`` bytes, all workers having come to it."""
    tensor, seconds = torch.zeros(max(1, size // 4)), []
    for _ in range(times):
        dist.barrier()
        start = time.monotonic()
        dist.all_reduce(tensor)
        seconds.append(time.monotonic() - start)
    return statistics.median(seconds)
