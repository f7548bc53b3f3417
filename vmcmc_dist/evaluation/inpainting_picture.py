"""PSNR of every way of inpainting under every mask, as numbers in a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

BLUE, GREY = "#0072B2", "#555555"


def save_table(
    path: Path, figures: Mapping[str, Any], ways: Sequence[str], masks: Sequence[str], caption: str
) -> Path:
    """``psnr_WAY_MASK`` in dB: a row per mask, a column per way, the best of a row in bold blue."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.2 + 1.15 * len(ways), 1.3 + 0.3 * len(masks)), dpi=110)
    FigureCanvasAgg(figure)
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set_axis_off()
    axis.set_xlim(-1.1, len(ways))
    axis.set_ylim(len(masks) + 0.9, -1.6)
    axis.text(-1.0, -1.2, "PSNR on hidden pixels [dB]; higher is closer", fontsize=11)
    for column, way in enumerate(ways):
        axis.text(column + 0.9, -0.4, way.replace("_", "\n"), ha="right", va="center", fontsize=9)
    for row, mask in enumerate(masks):
        values = [figures[f"psnr_{way}_{mask}"] for way in ways]
        axis.text(-1.0, row + 0.4, mask.replace("_", " "), va="center", fontsize=9)
        for column, value in enumerate(values):
            best = value == max(values)
            axis.text(
                column + 0.9, row + 0.4, f"{value:.2f}", ha="right", va="center", fontsize=9,
                weight="bold" if best else "normal", color=BLUE if best else "black",
            )  # fmt: skip
    axis.text(-1.0, len(masks) + 0.5, caption, fontsize=8, color=GREY)
    figure.savefig(path, metadata={"Software": None})
    return path
