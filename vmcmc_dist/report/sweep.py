"""What a report reads of a sweep folder; whatever is not there yet is empty, never an error."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vmcmc_dist.config import flatten
from vmcmc_dist.errors import DataError
from vmcmc_dist.report.numbers import direction
from vmcmc_dist.report.run import Record, read_mapping, tolerant_lines

PLAN, BASE, TRIALS, PROOF = "sweep.yaml", "config.yaml", "trials.jsonl", "proof.json"
OUTCOMES = ("done", "stopped", "running", "diverged", "failed")
"""Statuses of trials, as the page lists them."""


@dataclass(frozen=True)
class Metric:
    """A figure that the sweep searches by."""

    name: str
    mode: str

    def better(self, a: float, b: float) -> bool:
        """Whether ``a`` is better than ``b``."""
        return a < b if self.mode == "min" else a > b


@dataclass(frozen=True)
class Trial:
    """One trial, as its last line has it.

    Attributes:
        settings: dotted key → value, as the trial had it in the end.
        figures: name → finite number.
        history: (images, figures) of each line that has figures, by images.
        folder: its run folder, if it is there and lies inside the sweep's.
        order: place among the trials by when they ended; running ones come last.
    """

    id: str
    status: str
    settings: dict[str, Any]
    images: int
    figures: dict[str, float]
    history: list[tuple[int, dict[str, float]]]
    seconds: float | None
    start_seconds: float | None
    failures: int
    reason: str
    folder: Path | None
    order: int

    @property
    def lost(self) -> bool:
        """Diverged: worse than every trial with a figure."""
        return self.status == "diverged"


@dataclass(frozen=True)
class Sweep:
    """A sweep folder, read.

    Attributes:
        plan: sweep.yaml.
        base: dotted key → value of the config that every trial starts from.
        proof: proof.json, the best and the default trained again; {} if that was not done.
        trials: in the order of their ids.
        notes: what could not be read, in words.
    """

    path: Path
    name: str
    plan: Record
    base: dict[str, Any]
    metrics: list[Metric]
    trials: list[Trial]
    proof: Record = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def judged(self, metric: Metric) -> list[Trial]:
        """The trials that have the metric and did not diverge, best first."""
        have = [t for t in self.trials if metric.name in t.figures and not t.lost]
        sign = 1 if metric.mode == "min" else -1
        return sorted(have, key=lambda trial: sign * trial.figures[metric.name])

    def finalists(self, metric: Metric) -> list[Trial]:
        """Those of them that ended at the full length (all, if none did), best first.

        A trial that was stopped early saw fewer images, and its figure is no rival's.
        """
        judged = self.judged(metric)
        longest = max((trial.images for trial in judged), default=0)
        full = [t for t in judged if t.status == "done" and t.images >= 0.99 * longest]
        return full or judged


def is_sweep(path: str | Path) -> bool:
    """Whether the folder is of a sweep."""
    return (Path(path) / PLAN).is_file() or (Path(path) / TRIALS).is_file()


def read_sweep(path: str | Path) -> Sweep:
    """Read a sweep folder.

    Raises:
        DataError: no sweep, or a damaged sweep.yaml, config.yaml or proof.json.
    """
    path = Path(path)
    if not is_sweep(path):
        raise DataError(
            f"{path} is no sweep: it has neither {PLAN} nor {TRIALS}; give the folder that "
            "`vmcmc tune` made"
        )
    notes: list[str] = []
    plan = read_mapping(path / PLAN)
    lines = [line for line in tolerant_lines(path / TRIALS, notes) if "trial" in line]
    by_trial: dict[str, list[Record]] = {}
    for line in lines:
        by_trial.setdefault(str(line["trial"]), []).append(line)
    last = {
        str(line["trial"]): (line.get("status") == "running", index)
        for index, line in enumerate(lines)
    }
    order = {trial: place for place, trial in enumerate(sorted(last, key=lambda t: last[t]))}
    trials = [_trial(path, t, own, order[t]) for t, own in sorted(by_trial.items())]
    return Sweep(
        path=path,
        name=str(plan.get("name") or path.resolve().name),
        plan=plan,
        base=flatten(read_mapping(path / BASE)),
        metrics=_metrics(plan, trials),
        trials=trials,
        proof=read_mapping(path / PROOF),
        notes=notes,
    )


def _metrics(plan: Record, trials: list[Trial]) -> list[Metric]:
    """The plan's; without a plan all figures whose better direction is known by name."""
    named, modes = plan.get("metric"), plan.get("mode", "min")
    if named is None:
        found = dict.fromkeys(name for trial in trials for name in trial.figures)
        known = {"↓": "min", "↑": "max"}
        return [Metric(n, known[direction(n)]) for n in found if direction(n)][:1]
    names = [str(name) for name in (named if isinstance(named, list) else [named])]
    modes = [str(mode) for mode in (modes if isinstance(modes, list) else [modes] * len(names))]
    modes += ["min"] * (len(names) - len(modes))
    return [Metric(n, "max" if m == "max" else "min") for n, m in zip(names, modes, strict=False)]


def _trial(home: Path, name: str, lines: list[Record], order: int) -> Trial:
    last = lines[-1]
    history: dict[int, dict[str, float]] = {}
    for line in lines:
        figures = _numbers(line.get("figures"))
        if figures:
            images = int(_number(line.get("images")) or 0)
            history[images] = history.get(images, {}) | figures
    settings = last.get("settings")
    status = str(last.get("status", "running"))
    return Trial(
        id=name,
        status=status if status in OUTCOMES else "failed",
        settings={str(k): v for k, v in settings.items()} if isinstance(settings, dict) else {},
        images=int(_number(last.get("images")) or 0),
        figures=_numbers(last.get("figures")),
        history=sorted(history.items()),
        seconds=_number(last.get("seconds")),
        start_seconds=_number(last.get("start_seconds")),
        failures=int(_number(last.get("failures")) or 0),
        reason=str(last.get("reason") or ""),
        folder=_inside(home, last.get("folder")),
        order=order,
    )


def _inside(home: Path, folder: Any) -> Path | None:
    """The run folder of a trial; paths that lead out of the sweep are not followed."""
    if not folder:
        return None
    path = home / str(folder)
    inside = path.resolve().is_relative_to(home.resolve())
    return path if inside and path.is_dir() else None


def _number(value: Any) -> float | None:
    fine = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value if fine and math.isfinite(value) else None


def _numbers(figures: Any) -> dict[str, float]:
    if not isinstance(figures, dict):
        return {}
    numbers = {str(name): _number(value) for name, value in figures.items()}
    return {name: value for name, value in numbers.items() if value is not None}
