"""Numbers as a page shows them: rounded, with the full value kept for the hover."""

from __future__ import annotations

import math
from typing import Any


def rounded(value: Any) -> str:
    """Four significant digits: ``12,345``, ``3.834``, ``0.02834``, ``2.5e−05``; texts as they are.

    Lists are shown by their range.
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "–"
    if isinstance(value, int):
        return f"{value:,}".replace("-", "−")
    if isinstance(value, float):
        if not math.isfinite(value):
            return str(value)
        text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
        return text.replace("-", "−")
    if isinstance(value, (list, tuple)):
        numbers = [v for v in value if isinstance(v, (int, float))]
        if numbers and len(numbers) == len(value):
            return f"{len(numbers)} values, {rounded(min(numbers))} … {rounded(max(numbers))}"
        return f"{len(value)} values"
    return str(value)


def duration(seconds: float) -> str:
    """``45 s``, ``10.0 min``, ``3 h 12 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    if minutes < 90:
        return f"{minutes:.1f} min"
    hours, rest = divmod(round(minutes), 60)
    return f"{hours} h {rest:02d} min"


def size(count: int) -> str:
    """Bytes: ``812 kB``, ``3.4 MB``."""
    return f"{count / 1e3:.0f} kB" if count < 1e6 else f"{count / 1e6:.1f} MB"


def compact(images: int) -> str:
    """``812``, ``60 k``, ``1.2 M``."""
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if images >= size:
            return f"{images / size:.3g} {unit}"
    return str(images)


def short_commit(commit: Any) -> str:
    """The first eight digits, and the ``+`` of a changed tree."""
    text = str(commit)
    return text[:8] + ("+" if text.endswith("+") and len(text) > 8 else "")
