"""What a pre-flight found, as one page of text."""

from __future__ import annotations

from dataclasses import dataclass, field

from vmcmc_dist.engine.reach import Reach


@dataclass
class NodeLine:
    """A row of the table of nodes."""

    address: str
    host: str
    resources: str
    memory: str
    disk: str
    clock: str
    versions: str


@dataclass
class Page:
    """The findings; ``refusals`` are what a run cannot live with.

    Attributes:
        facts: (name, text), one line each.
        nodes: rows of the table.
        sums: rows (size, time, rate) of the all-reduce.
        warnings: what works, but should be known.
    """

    title: str
    facts: list[tuple[str, str]] = field(default_factory=list)
    nodes: list[NodeLine] = field(default_factory=list)
    sums: list[tuple[str, str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def text(self) -> str:
        lines = [self.title]
        lines += [f"  {name:<11}{text}" for name, text in self.facts]
        if self.nodes:
            head = NodeLine("node", "host", "has", "memory", "disk", "clock", "versions")
            lines += _table([tuple(vars(row).values()) for row in (head, *self.nodes)])
        if self.sums:
            lines += _table([("all-reduce", "time", "bus"), *self.sums])
        lines += [f"  ! {warning}" for warning in self.warnings]
        lines += [f"  ✗ {refusal}" for refusal in self.refusals]
        verdict = "refused" if self.refusals else "ready"
        return "\n".join([*lines, f"  {verdict} after {self.seconds:.1f} s"])


def reach_line(found: dict[str, Reach]) -> str:
    """``from all 3 nodes, read 31–80 MB/s``, of address → what it reached."""
    good = {node: reach for node, reach in found.items() if not reach.problem}
    parts = [f"from {'all ' if len(good) == len(found) else ''}{len(good)} of {len(found)} nodes"]
    if len(good) == len(found):
        parts = [f"from {'all ' if len(found) > 1 else ''}{_count(len(found), 'node')}"]
    for what in ("write", "read"):
        rates = [getattr(reach, what) for reach in good.values() if getattr(reach, what)]
        if rates:
            low, high = min(rates) / 1e6, max(rates) / 1e6
            span = f"{low:,.0f}" if round(low) == round(high) else f"{low:,.0f}–{high:,.0f}"
            parts.append(f"{what} {span} MB/s")
    parts += sorted({reach.note for reach in good.values() if reach.note})
    return ", ".join(parts)


def ranks_line(placed: list[str]) -> str:
    """``0–3 on 10.0.0.3, 4–7 on 10.0.0.4`` of each rank's address."""
    groups: list[tuple[str, int, int]] = []
    for rank, address in enumerate(placed):
        if groups and groups[-1][0] == address:
            groups[-1] = (address, groups[-1][1], rank)
        else:
            groups.append((address, rank, rank))
    shown = [f"{a if a == b else f'{a}–{b}'} on {where}" for where, a, b in groups]
    return ", ".join(shown)


def size_text(size: float) -> str:
    units = ["B", "KiB", "MiB", "GiB", "TiB"]
    while size >= 1024 and len(units) > 1:
        size, units = size / 1024, units[1:]
    return f"{size:,.0f} {units[0]}" if units[0] == "B" or size >= 10 else f"{size:.3g} {units[0]}"


def time_text(seconds: float) -> str:
    return f"{seconds * 1e3:,.2f} ms" if seconds < 1 else f"{seconds:,.2f} s"


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append("  " + "  ".join(cells).rstrip())
    return lines


def _count(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
