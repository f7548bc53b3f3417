"""The axes of a sweep: its dials and its metrics, each with a range and a scale."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from vmcmc_dist.report.sweep import Metric, Sweep
from vmcmc_dist.report.wording import rounded

WIDE = 15.0
"""Values above zero that span more than this factor get a logarithmic axis."""


@dataclass(frozen=True)
class Axis:
    """How a value is placed on a line.

    Attributes:
        scale: ``linear``, ``log`` or ``choice``.
        low, high: ends of the first two; 0 and the last index of a choice.
        choices: texts of a choice, in order.
        whole: integers.
        mode: ``min`` or ``max`` of a metric, empty for a dial.
        base: the value that the config has without the sweep, placed as :meth:`number` does.
    """

    name: str
    scale: str
    low: float
    high: float
    choices: tuple[str, ...] = ()
    whole: bool = False
    mode: str = ""
    base: float | None = None

    def number(self, value: Any) -> float | None:
        """Where on the axis: the value itself, or the index of a choice; None if it has none."""
        if self.scale == "choice":
            return float(self.choices.index(text(value))) if text(value) in self.choices else None
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return None
        fine = math.isfinite(value) and (self.scale != "log" or value > 0)
        return float(value) if fine else None


def dial_axes(sweep: Sweep) -> list[Axis]:
    """An axis for each dial: its range in the plan, widened to the values that trials had.

    Settings that no trial varies are left out, unless the plan's space names them.
    """
    space = sweep.plan.get("space")
    space = space if isinstance(space, dict) else {}
    values: dict[str, list[Any]] = {str(key): [] for key in space}
    for trial in sweep.trials:
        for key, value in trial.settings.items():
            values.setdefault(key, []).append(value)
    axes = [
        _dial(key, space.get(key), seen)
        for key, seen in values.items()
        if key in space or len({text(value) for value in seen}) > 1
    ]
    return [replace(axis, base=axis.number(sweep.base.get(axis.name))) for axis in axes]


def metric_axis(metric: Metric, values: Sequence[float]) -> Axis:
    """From the lowest to the highest value; logarithmic where they span a wide range."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    scale = "log" if low > 0 and high / low > WIDE else "linear"
    return Axis(metric.name, scale, low, high, mode=metric.mode)


def _dial(key: str, spec: Any, seen: Sequence[Any]) -> Axis:
    spec = spec if isinstance(spec, dict) else {"choice": spec} if isinstance(spec, list) else {}
    if isinstance(spec.get("choice"), list):
        choices = dict.fromkeys(map(text, [*spec["choice"], *seen]))
        return Axis(key, "choice", 0, max(0, len(choices) - 1), tuple(choices))
    kind = next((k for k in ("log", "int", "uniform") if isinstance(spec.get(k), list)), None)
    bounds = [_as_number(v) for v in spec[kind]] if kind else []
    numbers = [_as_number(value) for value in seen]
    known = [n for n in [*bounds, *numbers] if n is not None]
    if not known or None in numbers:
        choices = dict.fromkeys(map(text, seen))
        return Axis(key, "choice", 0, max(0, len(choices) - 1), tuple(choices))
    low, high = min(known), max(known)
    whole = kind == "int" or all(isinstance(value, int) for value in seen)
    if kind is None:
        log = low > 0 and high / low > WIDE
    else:
        log = low > 0 and (kind == "log" or spec.get("log") is True)
    return Axis(key, "log" if log else "linear", low, high, whole=whole)


def _as_number(value: Any) -> float | None:
    """Numbers, and texts that YAML did not read as such (``1e-4``)."""
    if isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def text(value: Any) -> str:
    """A setting as the page shows it."""
    return value if isinstance(value, str) else rounded(value)
