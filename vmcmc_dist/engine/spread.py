"""An evaluation's parts, made by several processes: Ray's, or those that torchrun started.

A task that can be shared has ``share(job, rank, workers)``, which makes every ``workers``-th of
its parts. The parts lie in the run folder, which all processes see; the first process then runs
the task, finds them, and puts them together in their order: the same figures for any number.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import torch

from vmcmc_dist.config import Config
from vmcmc_dist.engine.ray_map import ray_map
from vmcmc_dist.engine.resources import cpu_count
from vmcmc_dist.errors import ConfigError
from vmcmc_dist.evaluation.evaluate import Spread, identity_of
from vmcmc_dist.evaluation.job import Job, TaskSettings, settings_dict
from vmcmc_dist.evaluation.records import Records
from vmcmc_dist.evaluation.tasks import task_module
from vmcmc_dist.trained import Trained, load


def torchrun_rank() -> tuple[int, int]:
    """(rank, world size) under torchrun, else (0, 1)."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return 0, 1
    return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])


def spread_over(run: str | Path, task: str, ema: bool, workers: int) -> Spread | None:
    """How the work of a task is shared; ``None`` for one process.

    ConfigError: workers asked for under torchrun, which brings its own.
    """
    rank, world_size = torchrun_rank()
    if world_size > 1 and workers > 1:
        raise ConfigError("torchrun has started the workers already: leave --workers out")
    if max(world_size, workers) == 1 or not hasattr(task_module(task), "share"):
        return None
    if world_size > 1:
        return lambda job: share_under_torchrun(job, rank, world_size)
    return lambda job: share_under_ray(run, job, ema, workers)


def follow(
    run: str | Path, model: Trained, task: str, settings: TaskSettings, ema: bool, again: bool
) -> None:
    """A process other than torchrun's first: makes its share; the first one puts them together."""
    rank, world_size = torchrun_rank()
    if not hasattr(task_module(task), "share"):
        return
    identity = identity_of(model, task, settings, ema)
    records = Records(run)
    if again or records.finished(identity) is None:
        job = Job(model, records.folder / task, settings, identity)
        share_under_torchrun(job, rank, world_size)


def share_under_ray(run: str | Path, job: Job, ema: bool, workers: int) -> None:
    """Each worker loads the model and makes its share of the parts."""
    gpu = torch.cuda.is_available()
    threads = max(1, cpu_count() // workers)
    call = {
        "run": str(Path(run).absolute()),
        "checkpoint": str(job.model.images),
        "ema": ema,
        "folder": str(job.folder.absolute()),
        "task": job.identity["task"],
        "settings": settings_dict(job.settings),
        "identity": job.identity,
        "threads": threads,
    }
    calls = [(call, rank, workers) for rank in range(workers)]
    config: Config = job.model.config
    ray_map(make_share, calls, config, cpus=0 if gpu else 1, gpus=1 if gpu else 0)


def make_share(call: dict[str, Any], rank: int, workers: int) -> None:
    """What one worker of Ray does."""
    torch.set_num_threads(call["threads"])
    module = task_module(call["task"])
    model = load(call["run"], checkpoint=call["checkpoint"], ema=call["ema"])
    settings = module.Settings(**call["settings"])
    module.share(Job(model, Path(call["folder"]), settings, call["identity"]), rank, workers)


def share_under_torchrun(job: Job, rank: int, workers: int) -> None:
    """This process's share; the first then waits for all the others.

    (torchrun ends all processes if one dies, so the wait ends.)
    """
    job.parts.mkdir(parents=True, exist_ok=True)
    task_module(job.identity["task"]).share(job, rank, workers)
    (job.parts / f".made-{rank}-of-{workers}").touch()
    others = [job.parts / f".made-{other}-of-{workers}" for other in range(workers)]
    while rank == 0 and not all(path.exists() for path in others):
        time.sleep(0.1)
