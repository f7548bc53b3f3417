"""The page itself: everything a report shows, put into one HTML file that asks for nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from vmcmc_dist.errors import DataError
from vmcmc_dist.evaluation.tasks import TASKS
from vmcmc_dist.report import numbers, sweep_page, wording
from vmcmc_dist.report.cost import cost_rows
from vmcmc_dist.report.curves import Clock, Drawn, Line, curve_tabs, events
from vmcmc_dist.report.html import Page, Report, template, write
from vmcmc_dist.report.origin import commands, config_rows, resume
from vmcmc_dist.report.pictures import (
    Picture,
    PictureBook,
    Progress,
    drawn_pictures,
    frames,
    task_pictures,
)
from vmcmc_dist.report.run import Record, Run, read_runs
from vmcmc_dist.report.sweep import is_sweep, read_sweep

STYLE_OF = {"refined": 0, "proposals": 1, "data": 2, "real": 2}
"""Lines of a panel that look the same wherever they are; others by their place."""


def silent(done: int, total: int) -> None:
    """Progress that nobody looks at."""


def write_report(
    folders: Sequence[str | Path],
    out: str | Path,
    *,
    price: float | None = None,
    grids: int = 40,
    width: int = 1440,
    best: int = 8,
    progress: Progress = silent,
) -> Report:
    """Write one self-contained HTML page of one run, several runs, or one sweep.

        write_report(["runs/faces", "runs/faces-mala"], "report.html")

    Args:
        price: USD an hour of all the hardware of a run; adds the cost.
        grids: most sample grids of each run, spread evenly over training.
        width: pixels to which wider pictures are scaled down.
        best: trials of a sweep whose pictures are shown.
        progress: called as (pictures read, pictures in all).

    Raises:
        DataError: a folder that is no run and no sweep, one whose config.yaml, environment.json
            or sweep.yaml is damaged, or a sweep beside anything else.
        ResourceError: ``out`` cannot be written.
    """
    sweeps = [folder for folder in folders if is_sweep(folder)]
    if sweeps and len(folders) > 1:
        raise DataError(
            f"{sweeps[0]} is a sweep: it has a page of its own; give it alone, or give runs "
            "(its trials/NUMBER are runs too)"
        )
    if sweeps:
        page = sweep_page.render(read_sweep(sweeps[0]), best=best, width=width, progress=progress)
    else:
        runs = read_runs(folders)
        page = render(runs, price=price, grids=grids, width=width, progress=progress)
    return write(page, out)


def render(
    runs: Sequence[Run], *, price: float | None, grids: int, width: int, progress: Progress
) -> Page:
    """The page of runs that were read."""
    notes = [note for run in runs for note in run.notes]
    of_tasks = [task_pictures(run) for run in runs]
    drawn = [drawn_pictures(run) for run in runs]
    total = sum(min(grids, len(run.grids)) for run in runs) + sum(map(len, drawn))
    total += sum(len(pictures) for tasks in of_tasks for pictures in tasks.values())
    book = PictureBook(width, notes, lambda done: progress(done, total))
    samples = [frames(run, book, grids, Clock(run).minutes) for run in runs]
    tabs = curve_tabs(runs)
    drawn_panels = [one for panels in tabs.values() for one in panels]
    styles = [styles_of(one.lines, len(runs)) for one in drawn_panels]
    places = iter(range(len(drawn_panels)))
    happened = events(runs)
    html = template("page.html").render(
        runs=runs,
        one=len(runs) == 1,
        title=" · ".join(run.name for run in runs),
        made=datetime.now().astimezone().isoformat(sep=" ", timespec="minutes"),
        facts=[headline(run) for run in runs],
        samples=samples,
        stops=sorted({frame.images for kept in samples for frame in kept}),
        of_images=any(run.config.get("data.source") != "toy2d" for run in runs),
        drawn=[[p for p in map(book.read, paths) if p is not None] for paths in drawn],
        tabs=[(tab, [(next(places), one) for one in panels]) for tab, panels in tabs.items()],
        styles=styles,
        events=happened,
        data={
            "panels": list(map(panel_data, drawn_panels, styles)),
            "events": happened,
        },
        tables=numbers.task_tables(runs),
        every_number=numbers.every_number(runs),
        gallery=gallery(of_tasks, book),
        tasks=TASKS,
        difference=config_rows(runs, differing=True),
        config=config_rows(runs, differing=False),
        cost=cost_rows(runs, price),
        priced=price is not None,
        commands=[commands(run) for run in runs],
        resume=[resume(run) for run in runs],
        notes=notes,
        width=width,
    )
    return Page(html, notes)


def headline(run: Run) -> list[tuple[str, str, str]]:
    """(what, short, in full) of a run's state, for the top of the page."""
    train, sample, density = (run.of_kind(kind) for kind in ("train", "sample", "density"))
    facts = [("images seen", wording.compact(run.images), f"{run.images:,}")]
    if run.seconds:
        facts.append(("training", wording.duration(run.seconds), f"{run.seconds:.1f} s"))
    if train and "regime" in train[-1]:
        facts.append(("regime", str(train[-1]["regime"]), "of the last log interval"))
    if sample and isinstance(sample[-1].get("fd_thumbnail"), float):
        last = sample[-1]
        proposals = wording.rounded(last.get("fd_thumbnail_proposals"))
        facts.append(
            (
                "thumbnail distance",
                wording.rounded(last["fd_thumbnail"]),
                f"refined {last['fd_thumbnail']}, proposals {proposals}; compare within a run only",
            )
        )
    if density and isinstance(density[-1].get("kl_data_model"), float):
        kl = density[-1]["kl_data_model"]
        facts.append(("KL(p_data ‖ p_θ)", f"{wording.rounded(kl)} nats", str(kl)))
    judged = next((r for r in reversed(run.evaluations) if r.get("task") == "synthesis"), {})
    for name, value in numbers.figures_of(judged).items():
        stem, side = numbers.stem_and_side(name)
        if side == "refined" and stem.startswith(("fd_", "fid")):
            found = numbers.number(name, value, judged)
            biased = (" †", ", biased: fewer than 50,000 samples") if found.biased else ("", "")
            full = f"{found.full}, refined, n {judged.get('n')}{biased[1]}"
            facts.append((stem, found.text + biased[0], full))
    commit = run.environment.get("commit")
    if commit:
        facts.append(("commit", wording.short_commit(commit), str(commit)))
    return facts


def panel_data(drawn: Drawn, styles: Sequence[int]) -> dict[str, Any]:
    """What the page's script draws of a panel."""
    lines = [
        asdict(line) | {"style": style} for line, style in zip(drawn.lines, styles, strict=True)
    ]
    return {"log": drawn.panel.log, "lines": lines}


def styles_of(lines: Sequence[Line], runs: int) -> list[int]:
    """Style (colour, dash and marker) of each line: by run if there are several, else by name."""
    if runs > 1:
        return [line.run for line in lines]
    taken = {STYLE_OF[line.label] for line in lines if line.label in STYLE_OF}
    free = iter(style for style in range(2 * len(lines) + len(STYLE_OF)) if style not in taken)
    return [STYLE_OF[line.label] if line.label in STYLE_OF else next(free) for line in lines]


@dataclass(frozen=True)
class Hanging:
    """Pictures of a task that one record names ({}: none does)."""

    record: Record
    pictures: list[tuple[str, Picture]]


def gallery(
    of_tasks: Sequence[dict[str, list[tuple[Path, Record]]]], book: PictureBook
) -> dict[str, list[list[Hanging]]]:
    """Task → for each run its pictures, those of one record together."""
    names = dict.fromkeys(task for tasks in of_tasks for task in tasks)
    shown: dict[str, list[list[Hanging]]] = {}
    for task in [*(t for t in TASKS if t in names), *(t for t in names if t not in TASKS)]:
        shown[task] = []
        for tasks in of_tasks:
            groups: dict[int, Hanging] = {}
            for path, record in tasks.get(task, []):
                picture = book.read(path)
                if picture is not None:
                    name = path.stem.replace("_", " ").replace("-", " ")
                    group = groups.setdefault(id(record), Hanging(record, []))
                    group.pictures.append((name, picture))
            shown[task].append(list(groups.values()))
    return {task: columns for task, columns in shown.items() if any(columns)}
