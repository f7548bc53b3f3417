"""The page of a sweep: what was tried, what it gave, which dials decide it."""

from __future__ import annotations

import shlex
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import yaml

from vmcmc_dist.report import wording
from vmcmc_dist.report.dials import Axis, dial_axes, metric_axis, text
from vmcmc_dist.report.html import Page, template
from vmcmc_dist.report.importance import LEAST, Compared, Importance, compare, importances
from vmcmc_dist.report.pictures import Picture, PictureBook, Progress
from vmcmc_dist.report.run import Run, read_run
from vmcmc_dist.report.sweep import OUTCOMES, Sweep, Trial

PICTURE = 720
"""Most pixels of the width of a trial's picture: several stand side by side."""

NAMED = 10
"""Most trials that are named where many failed alike."""


@dataclass(frozen=True)
class Cell:
    """A value in a table: as shown, in full, and what it is sorted by (None: last)."""

    text: str
    full: str
    key: float | None


@dataclass(frozen=True)
class Shown:
    """A trial whose last grid is shown."""

    trial: Trial
    picture: Picture
    images: int


def render(sweep: Sweep, *, best: int, width: int, progress: Progress) -> Page:
    """The page of a sweep that was read.

    Args:
        best: trials whose pictures are shown.
    """
    notes = list(sweep.notes)
    dials = dial_axes(sweep)
    metrics = [metric_axis(m, values_of(sweep, m.name)) for m in sweep.metrics]
    compared = [compare(sweep, metric) for metric in sweep.metrics]
    found = [importances(c, m, dials) for c, m in zip(compared, sweep.metrics, strict=True)]
    front = pareto_front(sweep)
    ranked = ranking(sweep)
    runs = [run for run in (run_of(trial, notes) for trial in chosen(sweep, front, best)) if run]
    total = sum(bool(run.grids) for _, run in runs)
    book = PictureBook(min(width, PICTURE), notes, lambda done: progress(done, total))
    shown = []
    for trial, run in runs:
        picture = book.read(run.grids[-1][1]) if run.grids else None
        if picture is not None:
            shown.append(Shown(trial, picture, run.grids[-1][0]))
    html = template("sweep.html").render(
        sweep=sweep,
        title=sweep.name,
        made=datetime.now().astimezone().isoformat(sep=" ", timespec="minutes"),
        facts=headline(sweep),
        dials=dials,
        metrics=metrics,
        ranked=ranked,
        winner=next(iter(sweep.finalists(sweep.metrics[0])), None) if sweep.metrics else None,
        rows=[table_row(sweep, trial, dials) for trial in ranked],
        front=front,
        shown=shown,
        compared=compared,
        importances=found,
        least=LEAST,
        show=axis_text,
        outcomes={s: sum(t.status == s for t in sweep.trials) for s in OUTCOMES},
        lost=endings(sweep),
        retried=[trial for trial in sweep.trials if trial.failures],
        proof=proof_rows(sweep),
        curves=any(len(trial.history) > 1 for trial in sweep.trials),
        plan=yaml.safe_dump(sweep.plan, sort_keys=False, allow_unicode=True) if sweep.plan else "",
        commands=commands(sweep),
        data=data_of(sweep, dials, metrics, compared, found, front, ranked),
        notes=notes,
        text=text,
    )
    return Page(html, notes)


def values_of(sweep: Sweep, name: str) -> list[float]:
    """Every value that a trial that did not diverge had of a metric, at any time."""
    return [
        figures[name]
        for trial in sweep.trials
        if not trial.lost
        for figures in [trial.figures, *(figures for _, figures in trial.history)]
        if name in figures
    ]


def chosen(sweep: Sweep, front: Sequence[Trial], best: int) -> list[Trial]:
    """The trials to look at: the best, or with several metrics those on the front."""
    if not sweep.metrics:
        return []
    return list(front or sweep.finalists(sweep.metrics[0]))[:best]


def run_of(trial: Trial, notes: list[str]) -> tuple[Trial, Run] | None:
    """A trial with its run folder, if it has one."""
    if trial.folder is None or not (trial.folder / "config.yaml").is_file():
        return None
    run = read_run(trial.folder)
    notes += run.notes
    return trial, run


def ranking(sweep: Sweep) -> list[Trial]:
    """All trials, best first: full ones, those stopped early, running, diverged, failed."""
    if not sweep.metrics:
        return list(sweep.trials)
    full = sweep.finalists(sweep.metrics[0])
    rest = [t for t in sweep.judged(sweep.metrics[0]) if t not in full]
    others = [t for t in sweep.trials if t not in full and t not in rest]
    return [*full, *rest, *sorted(others, key=lambda t: OUTCOMES.index(t.status))]


def pareto_front(sweep: Sweep) -> list[Trial]:
    """Of several metrics the trials of full length that no other beats in all; by the first."""
    if len(sweep.metrics) < 2:
        return []
    full = [set(t.id for t in sweep.finalists(metric)) for metric in sweep.metrics]
    rivals = [t for t in sweep.finalists(sweep.metrics[0]) if all(t.id in ids for ids in full)]
    return [t for t in rivals if not any(dominates(sweep, other, t) for other in rivals)]


def dominates(sweep: Sweep, a: Trial, b: Trial) -> bool:
    """Whether ``a`` is better in one metric and worse in none."""
    pairs = [(m, a.figures[m.name], b.figures[m.name]) for m in sweep.metrics]
    return any(m.better(x, y) for m, x, y in pairs) and not any(m.better(y, x) for m, x, y in pairs)


def headline(sweep: Sweep) -> list[tuple[str, str, str]]:
    """(what, short, in full) of the state of a sweep."""
    ended = [trial for trial in sweep.trials if trial.status != "running"]
    planned = sweep.plan.get("trials")
    of = f" of {planned:,}" if isinstance(planned, int) and planned != len(ended) else ""
    facts = [("trials ended", f"{len(ended):,}{of}", f"{len(sweep.trials):,} begun")]
    for metric in sweep.metrics:
        best = next(iter(sweep.finalists(metric)), None)
        if best is not None:
            value = best.figures[metric.name]
            label = f"best {metric.name} {'↓' if metric.mode == 'min' else '↑'}"
            facts.append((label, wording.rounded(value), f"{value}, trial {best.id}"))
            facts.append(("by trial", best.id, f"{best.images:,} images"))
    images = sum(trial.images for trial in sweep.trials)
    facts.append(("images, all trials", wording.compact(images), f"{images:,}"))
    seconds = [trial.seconds for trial in sweep.trials if trial.seconds]
    if seconds:
        middle = statistics.median(seconds)
        facts.append(("a trial takes", wording.duration(middle), f"median; {middle:.1f} s"))
        facts.append(("trial time", wording.duration(sum(seconds)), "sum over trials"))
    starts = [t.start_seconds for t in sweep.trials if t.start_seconds is not None]
    if starts:
        middle = statistics.median(starts)
        facts.append(("start to first step", f"{middle:.1f} s", "median over trials"))
    for key in ("search", "scheduler"):
        if isinstance(sweep.plan.get(key), str):
            facts.append((key, sweep.plan[key], "as sweep.yaml says"))
    return facts


def table_row(sweep: Sweep, trial: Trial, dials: Sequence[Axis]) -> list[Cell]:
    """The cells of a trial: its metrics, images, time, and dials."""
    cells = [cell(trial.figures.get(metric.name)) for metric in sweep.metrics]
    cells.append(cell(trial.images))
    took = trial.seconds
    cells.append(Cell("–" if took is None else wording.duration(took), f"{took} s", took))
    for axis in dials:
        value = trial.settings.get(axis.name)
        cells.append(Cell(text(value), str(value), axis.number(value)))
    return cells


def cell(value: float | None) -> Cell:
    """A number of the table."""
    return Cell(wording.rounded(value), str(value), value)


def axis_text(axis: Axis, value: float) -> str:
    """A number of an axis as a text: the choice it stands for, or the number."""
    if axis.scale == "choice":
        return axis.choices[round(value)]
    return wording.rounded(round(value) if axis.whole else value)


def proof_rows(sweep: Sweep) -> list[tuple[str, list[Cell]]]:
    """(metric, its cells for default, best and their difference) of the trainings that prove it."""
    metrics = sweep.proof.get("metrics")
    rows = []
    for name, sides in (metrics if isinstance(metrics, dict) else {}).items():
        found = [sides.get(side) or {} for side in ("default", "best", "difference")]
        rows.append((name, [Cell(plus_minus(s), f"{s.get('values')}", None) for s in found]))
    return rows


def plus_minus(summary: dict[str, Any]) -> str:
    """``12.3 ± 0.4``; – where there is none."""
    spread = "" if summary.get("sd") is None else f" ± {wording.rounded(summary['sd'])}"
    return wording.rounded(summary.get("mean")) + spread


@dataclass(frozen=True)
class Ending:
    """Trials that ended alike before their time."""

    status: str
    reason: str
    trials: list[Trial]

    @property
    def names(self) -> str:
        """The ids, the first few where there are many."""
        ids = [trial.id for trial in self.trials]
        more = f" and {len(ids) - NAMED:,} more" if len(ids) > NAMED else ""
        return ", ".join(ids[:NAMED]) + more


def endings(sweep: Sweep) -> list[Ending]:
    """How trials ended that did not reach their end, the gravest first, then the most frequent."""
    groups: dict[tuple[str, str], list[Trial]] = {}
    for trial in sweep.trials:
        if trial.status in ("failed", "diverged", "stopped"):
            reason = " ".join(trial.reason.split()) or "no reason is given"
            groups.setdefault((trial.status, reason), []).append(trial)
    found = [Ending(status, reason, trials) for (status, reason), trials in groups.items()]
    order = ("failed", "diverged", "stopped")
    return sorted(found, key=lambda e: (order.index(e.status), -len(e.trials)))


def commands(sweep: Sweep) -> list[str]:
    """The commands that train the best trial again, and make this page again."""
    lines = []
    if (sweep.path / "best.yaml").is_file():
        lines.append(shlex.join(["vmcmc", "train", str(sweep.path / "best.yaml")]))
    return [*lines, shlex.join(["vmcmc", "report", str(sweep.path)])]


def data_of(
    sweep: Sweep,
    dials: Sequence[Axis],
    metrics: Sequence[Axis],
    compared: Sequence[Compared],
    found: Sequence[Sequence[Importance]],
    front: Sequence[Trial],
    ranked: Sequence[Trial],
) -> dict[str, Any]:
    """What the page's script draws."""
    names = [metric.name for metric in metrics]
    spent = {}
    images, minutes = 0, 0.0
    for trial in sorted(sweep.trials, key=lambda t: t.order):
        images += trial.images
        minutes += (trial.seconds or 0) / 60
        spent[trial.id] = {"images": images, "minutes": round(minutes, 3)}
    full = {t.id for metric in sweep.metrics for t in sweep.finalists(metric)}
    return {
        "dials": [asdict(axis) for axis in dials],
        "metrics": [asdict(axis) for axis in metrics],
        "compared": [
            {trial.id: value for trial, value in zip(of.trials, of.values, strict=True)}
            for of in compared
        ],
        "medians": [{one.axis.name: one.medians for one in of} for of in found],
        "front": [trial.id for trial in front],
        "trials": [
            {
                "id": trial.id,
                "status": trial.status,
                "full": trial.id in full,
                "order": trial.order + 1,
                "images": trial.images,
                "spent": spent[trial.id],
                "values": [trial.figures.get(name) for name in names],
                "dials": [axis.number(trial.settings.get(axis.name)) for axis in dials],
                "history": [
                    [at, [figures.get(name) for name in names]] for at, figures in trial.history
                ],
            }
            for trial in ranked
        ],
    }
