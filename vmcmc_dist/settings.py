"""One config field: its default, what it means, its unit and the range it must lie in.

    @dataclass
    class OptimizerConfig:
        lr: float = setting(1e-4, "learning rate of Adam", gt=0)

``--help``, the range checks and the documentation are all made from this metadata.
"""

from __future__ import annotations

import dataclasses
from typing import Any

_BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


def setting(
    default: Any,
    help: str,
    *,
    unit: str = "",
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
) -> Any:
    """A dataclass field with ``help``, ``unit`` and bounds (ge ≥, gt >, le ≤, lt <) as metadata."""
    bounds = {"ge": ge, "gt": gt, "le": le, "lt": lt}
    metadata = {
        "help": help,
        "unit": unit,
        "bounds": {name: bound for name, bound in bounds.items() if bound is not None},
    }
    if isinstance(default, (list, dict, set)):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def bounds_text(field: dataclasses.Field) -> str:
    """The range of a field as text, e.g. ``≥ 0, < 1``."""
    bounds = field.metadata.get("bounds", {})
    return ", ".join(f"{_BOUNDS[name]} {bound:g}" for name, bound in bounds.items())


def out_of_range(field: dataclasses.Field, value: Any) -> str | None:
    """Why ``value`` is outside the field's range, or ``None`` if it is inside."""
    if value is None or isinstance(value, (bool, str)):
        return None
    checks = {
        "ge": lambda v, b: v >= b,
        "gt": lambda v, b: v > b,
        "le": lambda v, b: v <= b,
        "lt": lambda v, b: v < b,
    }
    values = value if isinstance(value, (list, tuple)) else [value]
    for name, bound in field.metadata.get("bounds", {}).items():
        for item in values:
            if isinstance(item, (int, float)) and not checks[name](item, bound):
                return f"must be {bounds_text(field)}, got {item!r}"
    return None
