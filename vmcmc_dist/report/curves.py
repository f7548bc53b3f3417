"""The points of the curves: figures of metrics.jsonl over images seen and over minutes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vmcmc_dist.engine.progress import rollback_text
from vmcmc_dist.report.numbers import stem_and_side
from vmcmc_dist.report.panels import TABS, UNDRAWN, Panel
from vmcmc_dist.report.run import Record, Run

POINTS = 600
"""Most points of one line; a longer one keeps the extremes of each stretch."""


@dataclass(frozen=True)
class Line:
    """One line of a panel: a figure of a run over images seen and over minutes."""

    run: int
    label: str
    images: list[float]
    minutes: list[float]
    values: list[float | None]

    @property
    def last(self) -> float | None:
        """The last value there is."""
        return next((value for value in reversed(self.values) if value is not None), None)


@dataclass(frozen=True)
class Drawn:
    """A panel with its lines; at least one."""

    panel: Panel
    lines: list[Line]


Points = list[tuple[float, float, Record]]
"""(images, minutes, figure → value) of a run's records."""


def curve_tabs(runs: Sequence[Run]) -> dict[str, list[Drawn]]:
    """Tab → panels that have at least one value.

    One run: a panel's lines are its figures. Several: one figure a panel, a line a run.
    """
    points = [list(_points(run)) for run in runs]
    found = dict.fromkeys(name for rows in points for _, _, row in rows for name in row)
    known = {key for panels in TABS.values() for panel in panels for key in panel.keys}
    tabs = {tab: list(panels) for tab, panels in TABS.items()}
    stems: dict[str, dict[str, str]] = {}
    for name in found:
        if name not in known:
            stem, side = stem_and_side(name)
            stems.setdefault(stem, {})[name] = side or stem.rpartition(" · ")[2]
    for stem, keys in stems.items():
        tab = "Evaluation" if " · " in stem else "Other"
        tabs[tab].append(Panel(stem.replace("_", " "), "", "", keys))
    drawn: dict[str, list[Drawn]] = {}
    for tab, panels in tabs.items():
        if len(runs) > 1:
            panels = [part for panel in panels for part in _split(panel)]
        filled = [Drawn(panel, list(_lines(panel, points, runs))) for panel in panels]
        if any(one.lines for one in filled):
            drawn[tab] = [one for one in filled if one.lines]
    return drawn


def events(runs: Sequence[Run]) -> list[Record]:
    """What happened to the runs, to be marked: the head start's end and each roll-back."""
    found = []
    for index, run in enumerate(runs):
        clock = Clock(run)
        happened = [
            ("roll-back", record["from_images"], rollback_text(record))
            for record in run.of_kind("rollback")
        ]
        head_start = run.config.get("vae.head_start_images")
        if isinstance(head_start, (int, float)) and 0 < head_start < run.images:
            text = "the VAE’s head start ends, the energy begins to learn"
            happened.insert(0, ("head start", head_start, text))
        for what, images, text in happened:
            minutes = clock.minutes(images)
            found.append(
                {"run": index, "what": what, "images": images, "minutes": minutes, "text": text}
            )
    return found


class Clock:
    """Minutes of training at a number of images, between the records that tell the time."""

    def __init__(self, run: Run):
        timed = [r for r in run.of_kind("train") if "seconds" in r.get("time", {})]
        self.images = np.array([0, *(record["images"] for record in timed)])
        self.seconds = np.array([0.0, *(record["time"]["seconds"] for record in timed)])

    def minutes(self, images: float) -> float:
        return float(np.interp(images, self.images, self.seconds)) / 60


def thin(values: Sequence[float | None], most: int = POINTS) -> list[int]:
    """Indices of at most ``most`` points: the first, the last, and each stretch's extremes.

    Gaps (``None``) stay in view: a stretch that has one keeps it.
    """
    if len(values) <= most:
        return list(range(len(values)))
    array = np.array([math.nan if value is None else value for value in values])
    kept = {0, len(values) - 1}
    for stretch in np.array_split(np.arange(len(values)), (most - 2) // 3):
        part = array[stretch]
        gaps = np.isnan(part)
        if gaps.any():
            kept.add(int(stretch[gaps.argmax()]))
        if not gaps.all():
            kept |= {int(stretch[np.nanargmin(part)]), int(stretch[np.nanargmax(part)])}
    return sorted(kept)


def _points(run: Run) -> Iterator[tuple[float, float, Record]]:
    clock = Clock(run)
    for record in sorted([*run.metrics, *_evaluated_later(run)], key=lambda r: r["images"]):
        row = _figures(record)
        row = {key: value for key, value in row.items() if value is None or _is_number(value)}
        yield record["images"], clock.minutes(record["images"]), row


def _evaluated_later(run: Run) -> list[Record]:
    """Records of ``vmcmc evaluate`` at checkpoints that training did not evaluate.

    Of each task those with the newest one's settings, where they are of two checkpoints or more.
    """
    known = {(r.get("task"), r["images"]) for r in run.of_kind("evaluation")}
    newest = {r.get("task"): r for r in run.evaluations}
    alike: dict[Any, dict[int, Record]] = {}
    for record in run.evaluations:
        task, images = record.get("task"), record.get("images")
        same = all(record.get(k) == newest[task].get(k) for k in ("settings", "ema", "steps"))
        if same and isinstance(images, int) and (task, images) not in known:
            alike.setdefault(task, {})[images] = record | {"kind": "evaluation"}
    return [
        record
        for task, found in alike.items()
        if len(found) > 1 or any(task == other for other, _ in known)
        for record in found.values()
    ]


def _figures(record: Record) -> Record:
    """Everything in a record that may be drawn, by the name its panel knows it under."""
    kind = record.get("kind")
    if kind == "rollback":
        return {}
    if kind == "evaluation":
        task = record.get("task", "evaluation")
        figures = record.get("figures", {}).items()
        return {f"{task} · {name}": value for name, value in figures if name not in UNDRAWN}
    row = {k: v for k, v in (record | record.get("time", {})).items() if k not in UNDRAWN}
    if kind == "sample":  # the spread among batches, of the train records, has the same name
        row.pop("spread", None)
    return row


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _split(panel: Panel) -> Iterator[Panel]:
    for key, label in panel.keys.items():
        title = panel.title if len(panel.keys) == 1 else f"{panel.title}: {label}"
        yield replace(panel, title=title, keys={key: label})


def _lines(panel: Panel, points: Sequence[Points], runs: Sequence[Run]) -> Iterator[Line]:
    for index, rows in enumerate(points):
        for key, label in panel.keys.items():
            own = [(x, t, _finite(row[key])) for x, t, row in rows if key in row]
            values = [value for _, _, value in own]
            if all(value is None for value in values):
                continue
            kept = thin(values)
            yield Line(
                run=index,
                label=label if len(runs) == 1 else runs[index].name,
                images=[own[i][0] for i in kept],
                minutes=[_short(own[i][1]) for i in kept],
                values=[values[i] for i in kept],
            )


def _finite(value: float | None) -> float | None:
    return _short(value) if value is not None and math.isfinite(value) else None


def _short(value: float) -> float:
    """Seven significant digits: more than a screen shows, half the bytes."""
    return float(f"{value:.7g}")
