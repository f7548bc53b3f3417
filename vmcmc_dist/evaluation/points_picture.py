"""Points on the plane, panel beside panel."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

POINT, EXTENT = "#0072B2", 4.2  # Okabe–Ito blue; the densities lie within about [−4, 4]²


def save_points(path: str | Path, points: Mapping[str, Tensor], title: str = "") -> Path:
    """PNG of sets of points [n, 2] by label, all on the same axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.5 * len(points), 4.3), dpi=110, layout="compressed")
    FigureCanvasAgg(figure)
    axes: Any = figure.subplots(1, len(points), sharex=True, sharey=True, squeeze=False)
    for axis, (label, x) in zip(axes[0], points.items(), strict=True):
        size = max(0.5, min(6.0, 4000 / max(1, len(x))))
        axis.scatter(x[:, 0], x[:, 1], s=size, color=POINT, alpha=0.6, linewidths=0)
        axis.set_title(f"{label} ({len(x):,} points)", fontsize=11)
        axis.set_xlim(-EXTENT, EXTENT)
        axis.set_ylim(-EXTENT, EXTENT)
        axis.set_aspect("equal")
        axis.set_xlabel("$x_1$")
    axes[0][0].set_ylabel("$x_2$")
    if title:
        figure.suptitle(title, fontsize=11)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})
    return path
