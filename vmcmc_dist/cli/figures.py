"""A record of an evaluation, as a table on the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

ROWS = ("refined", "proposals", "real")


def show_record(record: dict[str, Any], new: bool, run: str | Path) -> None:
    """The figures, what they depend on, the caveat, and where the pictures are."""
    from rich import box
    from rich import print as show
    from rich.markup import escape
    from rich.table import Table

    figures = record["figures"]
    slim: dict[str, Any] = {"box": box.SIMPLE_HEAD, "pad_edge": False, "padding": (0, 1, 0, 0)}
    print(f"{record['task']}, trained on {record['images']:,} images")
    stems, net = compared(figures), f"_{figures.get('features', '')}"
    if stems:
        table = Table("", *(escape(stem.removesuffix(net)) for stem in stems), **slim)
        for row in ROWS:
            if any(f"{stem}_{row}" in figures for stem in stems):
                table.add_row(row, *(number(figures.get(f"{stem}_{row}")) for stem in stems))
        show(table)
    rest = {
        name: value
        for name, value in figures.items()
        if not any(name == f"{stem}_{row}" for stem in stems for row in ROWS)
    }
    if rest or not stems:
        table = Table("figure", "value", **slim)
        for name, value in rest.items():
            table.add_row(escape(name), escape(number(value)))
        show(table)
    weights = "averaged weights" if record["ema"] else "weights as trained"
    print(
        f"n={record['n']:,} · {record['steps']} Langevin steps · temperature "
        f"{record['temperature']:g} · seed {record['seed']} · {weights} · "
        + (f"{record['seconds']:.0f} s" if new else "finished before (--again makes it anew)")
    )
    if record["note"]:
        print(record["note"])
    for picture in record["pictures"]:
        print(Path(run) / picture)


def compared(figures: dict[str, Any]) -> list[str]:
    """Names of the numbers (no spreads) that are there for two or more of :data:`ROWS`."""
    found: dict[str, int] = {}
    for name, value in figures.items():
        stem, _, row = name.rpartition("_")
        if row in ROWS and isinstance(value, (int, float)) and "_std_" not in name:
            found[stem] = found.get(stem, 0) + 1
    return [stem for stem, count in found.items() if count > 1]


def number(value: Any) -> str:
    """Four significant digits; lists in brackets, at most 12 values of them."""
    if isinstance(value, list):
        shown = ", ".join(number(v) for v in value[:12])
        return f"[{shown}{', …' if len(value) > 12 else ''}]"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return "" if value is None else str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
