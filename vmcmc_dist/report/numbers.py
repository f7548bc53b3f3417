"""The table of numbers: what every evaluation found, and under which conditions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vmcmc_dist.evaluation.tasks import TASKS
from vmcmc_dist.report.run import Record, Run
from vmcmc_dist.report.wording import rounded

UNBIASED_FROM = 50_000
"""Samples from which a Fréchet distance is compared with published ones."""

BIASED = re.compile(r"(^|_)(fid|fd|is)(_|$)")
LOWER = re.compile(r"(^|_)(fid|fd|kid|mse|kl|nll|bpd)(_|$)")
HIGHER = re.compile(
    r"(^|_)(is|psnr|ssim|auroc|aupr|precision|recall|density|coverage|accuracy|ess|diversity)(_|$)"
)
SPREAD = re.compile(r"(^|_)(std|se)(_|$)")
SIDES = ("refined", "proposals", "real")


@dataclass(frozen=True)
class Number:
    """One figure of one record, ready to be shown.

    Attributes:
        text, full: rounded, and as it was written.
        biased: depends on how few samples it was made of.
        best: the best among the runs beside it.
    """

    text: str
    full: str
    biased: bool = False
    best: bool = False


@dataclass(frozen=True)
class Row:
    """A figure by name, its better direction (↓, ↑ or nothing), and its numbers.

    One a run; of a single run one a side, or one alone.
    """

    figure: str
    direction: str
    numbers: list[Number | None]


@dataclass(frozen=True)
class TaskTable:
    """The newest record of a task in each run."""

    task: str
    records: list[Record | None]
    rows: list[Row]
    sides: tuple[str, ...] = ()

    @property
    def has_note(self) -> bool:
        """Whether any of the records carries a caveat."""
        return any(record and record.get("note") for record in self.records)


def task_tables(runs: Sequence[Run]) -> list[TaskTable]:
    """A table for each task that any run has a record of: a row a figure, a column a run."""
    tasks = dict.fromkeys(_task(record) for run in runs for record in run.evaluations)
    order = [*(t for t in TASKS if t in tasks), *(t for t in tasks if t not in TASKS)]
    return [_table(task, runs) for task in order]


def _table(task: str, runs: Sequence[Run]) -> TaskTable:
    records = [
        next((r for r in reversed(run.evaluations) if _task(r) == task), None) for run in runs
    ]
    figures = [figures_of(record or {}) for record in records]
    if len(runs) == 1 and records[0] is not None:
        return _table_of_one(task, records[0], figures[0])
    names = side_by_side([name for values in figures for name in values])
    same_n = len({record.get("n") for record in records if record}) == 1
    rows = []
    for name in names:
        values = [row.get(name) for row in figures]
        best = _best(name, values) if same_n else None
        numbers = [
            number(name, row[name], record, best is not None and row[name] == best)
            if record and name in row
            else None
            for row, record in zip(figures, records, strict=True)
        ]
        rows.append(Row(name, direction(name), numbers))
    return TaskTable(task, records, rows)


def _table_of_one(task: str, record: Record, figures: Record) -> TaskTable:
    """What is compared (refined, proposals, real) stands in columns."""
    stems: dict[str, dict[str, str]] = {}
    for name in figures:
        stem, side = stem_and_side(name)
        stems.setdefault(stem, {})[side] = name
    compared = {stem: sides for stem, sides in stems.items() if len(sides.keys() & {*SIDES}) > 1}
    columns = tuple(side for side in SIDES if any(side in sides for sides in compared.values()))

    def cell(name: str | None) -> Number | None:
        return None if name is None else number(name, figures[name], record)

    rows = [
        Row(stem, direction(stem), [cell(sides.get(side)) for side in columns])
        for stem, sides in compared.items()
    ]
    in_rows = {name for sides in compared.values() for side, name in sides.items() if side}
    rows += [Row(name, direction(name), [cell(name)]) for name in figures if name not in in_rows]
    return TaskTable(task, [record], rows, columns)


def side_by_side(names: Sequence[str]) -> list[str]:
    """Names once each, in order, but with those together that differ in :data:`SIDES` alone."""
    stems: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        stems.setdefault(stem_and_side(name)[0], []).append(name)
    return [name for together in stems.values() for name in together]


def stem_and_side(name: str) -> tuple[str, str]:
    """``fd_classifier_refined`` → (``fd_classifier``, ``refined``); without a side, ``""``."""
    stem, _, side = name.rpartition("_")
    return (stem, side) if stem and side in SIDES else (name, "")


def every_number(runs: Sequence[Run]) -> list[tuple[Run, Record, str, Number]]:
    """(run, record, figure, number) of all records, newest first."""
    return [
        (run, record, name, number(name, value, record))
        for run in runs
        for record in reversed(run.evaluations)
        for name, value in figures_of(record).items()
    ]


def number(name: str, value: Any, record: Record, best: bool = False) -> Number:
    """A figure with its marks."""
    n = record.get("n")
    few = isinstance(n, int) and n < UNBIASED_FROM
    biased = few and isinstance(value, float) and bool(BIASED.search(name))
    return Number(rounded(value), str(value), biased, best)


def direction(name: str) -> str:
    """↓ where lower is better, ↑ where higher, nothing where neither or unknown."""
    if SPREAD.search(name):
        return ""
    if LOWER.search(name):
        return "↓"
    return "↑" if HIGHER.search(name) else ""


def conditions(record: Record) -> list[tuple[str, str, str]]:
    """(what, rounded, in full) of what a record's numbers depend on, as far as it says."""
    ema = record.get("ema")
    known = [
        ("n", record.get("n")),
        ("seed", record.get("seed")),
        ("steps", record.get("steps")),
        ("temperature", record.get("temperature")),
        ("weights", None if ema is None else "EMA" if ema else "as trained"),
        ("checkpoint", record.get("images")),
        ("commit", record.get("commit")),
    ]
    return [
        (what, str(value)[:8] if what == "commit" else rounded(value), str(value))
        for what, value in known
        if value is not None
    ]


def _task(record: Record) -> str:
    return str(record.get("task", "evaluation"))


def figures_of(record: Record) -> dict[str, Any]:
    """What a record found, by name."""
    figures = record.get("figures")
    return figures if isinstance(figures, dict) else {}


def _best(name: str, values: Sequence[Any]) -> Any:
    """The best of several runs' values; None for one alone, or where better has no meaning."""
    real = [v for v in values if isinstance(v, (int, float)) and not isinstance(v, bool)]
    if len(real) < 2 or "real" in name.split("_") or min(real) == max(real):
        return None
    return {"↓": min(real), "↑": max(real)}.get(direction(name))
