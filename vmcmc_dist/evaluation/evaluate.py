"""One task on one run, from its lock to its record.

model = vmcmc_dist.load("runs/faces")
settings = synthesis.Settings(n=500)
record, new = evaluate("runs/faces", model, "synthesis", settings, ema=True)
record["figures"]["fd_classifier_refined"]
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vmcmc_dist.evaluation.job import Job, Progress, TaskSettings, settings_dict, silent
from vmcmc_dist.evaluation.real import data_checksum, held_out_name
from vmcmc_dist.evaluation.records import Record, Records, digest, weights_sha256
from vmcmc_dist.evaluation.tasks import task_module
from vmcmc_dist.trained import Trained

Spread = Callable[[Job], None]
"""Lets other processes make parts of a job, and returns when they are done."""


def identity_of(model: Trained, task: str, settings: TaskSettings, ema: bool) -> dict[str, Any]:
    """What a task's figures depend on, beside the code."""
    return {
        "task": task,
        "images": model.images,
        "weights": weights_sha256(model),
        "ema": ema,
        "settings": settings_dict(settings),
        "data": data_checksum(model.config.data),
    }


def evaluate(
    run: str | Path,
    model: Trained,
    task: str,
    settings: TaskSettings,
    *,
    ema: bool,
    again: bool = False,
    commit: str | None = None,
    spread: Spread | None = None,
    progress: Progress = silent,
) -> tuple[Record, bool]:
    """The record of a task, and whether it was made now (or found: it was finished before).

    An interrupted evaluation goes on from the parts that it had finished, with ``again`` too.

    Args:
        ema: whether ``model`` holds the averaged weights; goes into the record.
        again: make it anew, whatever was finished.
        commit: of the code; goes into the record.
        spread: shares the work with other processes.

    Raises:
        UserError: another process is at it, or the task cannot be done.
    """
    records = Records(run)
    identity = identity_of(model, task, settings, ema)
    with records.locked(task) as folder:
        job = Job(model, folder, settings, identity, progress)
        if not again and (found := records.finished(identity)) is not None:
            return found, False
        started = time.monotonic()
        if spread is not None:
            spread(job)
        result = task_module(task).run(job)
        chain = model.chain_config(settings.steps, settings.temperature)
        record = {
            "task": task,
            "images": model.images,
            "figures": result.figures,
            "pictures": [
                str(p.resolve().relative_to(Path(run).resolve())) for p in result.pictures
            ],
            "note": result.note,
            "n": settings.n,
            "seed": settings.seed,
            "steps": chain.steps,
            "temperature": chain.temperature,
            "ema": ema,
            "settings": identity["settings"],
            "held_out": held_out_name(model.config.data),
            "data_checksum": identity["data"],
            "weights": identity["weights"],
            "identity": digest(identity),
            "commit": commit,
            "seconds": round(time.monotonic() - started, 2),
            "finished": time.time(),
        }
        records.append(record)
        job.drop_parts()
    return record, True
