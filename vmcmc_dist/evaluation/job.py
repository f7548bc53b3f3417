"""One task on one trained run: what it is given, where it writes, how it goes on after a kill."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from vmcmc_dist.settings import setting
from vmcmc_dist.trained import Trained

Progress = Callable[[str, int, int], None]


def silent(what: str, done: int, total: int) -> None:
    """Progress that nobody looks at."""


@dataclass
class TaskSettings:
    """What every task can be told; each task adds its own."""

    n: int = setting(1000, "samples", unit="samples", ge=1)
    steps: int = setting(0, "Langevin steps; 0 = sampling.steps of the run, else as trained", ge=0)
    temperature: float | None = setting(None, "of the chain; null = as trained", ge=0)
    seed: int = setting(0, "of codes, chains and choices", ge=0)
    batch_size: int = setting(250, "samples at a time", unit="samples", ge=1)


S = TypeVar("S", bound=TaskSettings)


@dataclass
class Result:
    """What a task found: figures that go into a record, and pictures.

    ``figures`` are numbers, texts and lists of numbers by name; finite, units in the name or
    in the task's docstring. ``note`` is a caveat that is printed with them.
    """

    figures: dict[str, Any]
    pictures: list[Path] = field(default_factory=list)
    note: str = ""


@dataclass
class Job(Generic[S]):
    """A task's view of the run.

        def run(job: Job[MySettings]) -> Result:
            x = job.model.sample(job.settings.n, steps=job.steps, seed=job.settings.seed)

    Attributes:
        model: the trained pair, at the checkpoint asked for.
        folder: RUN/evaluation/TASK, which exists; pictures and files go there.
        identity: what the figures depend on; parts of another identity are never used.
    """

    model: Trained
    folder: Path
    settings: S
    identity: dict[str, Any]
    progress: Progress = silent

    @property
    def steps(self) -> int:
        """Langevin steps of this task's chains."""
        return self.model.chain_config(self.settings.steps).steps

    def part(self, name: str, compute: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """``compute()``, or what it gave before this evaluation was interrupted.

        Tensors keep their type. Long tasks cut their work into parts that depend on the job's
        identity and the part's name alone; the parts go when the task is done.
        """
        path = self.parts / f"{name}.safetensors"
        if path.exists():
            try:
                return load_file(path)
            except SafetensorError:  # torn by a kill: made anew
                path.unlink()
        tensors = compute()
        self.parts.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        save_file({k: t.detach().cpu().contiguous().clone() for k, t in tensors.items()}, partial)
        partial.replace(path)
        return tensors

    @property
    def parts(self) -> Path:
        """Where parts are kept, by the job's identity."""
        text = json.dumps(self.identity, sort_keys=True)
        return self.folder / f".parts-{hashlib.sha256(text.encode()).hexdigest()[:16]}"

    def drop_parts(self) -> None:
        """Forget all parts."""
        shutil.rmtree(self.parts, ignore_errors=True)


def settings_dict(settings: TaskSettings) -> dict[str, Any]:
    """The settings as plain values, for the record."""
    return asdict(settings)
