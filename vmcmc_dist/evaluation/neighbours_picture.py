"""Distances to the nearest training image, of samples and of held-out data, as histograms."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from torch import Tensor

BLUE, ORANGE = "#0072B2", "#D55E00"


def save_distances(
    path: Path, spaces: Mapping[str, tuple[Tensor, Tensor]], caption: str, bins: int = 50
) -> Path:
    """One panel per space, from (samples' distances [N], held-out data's [M])."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.0 * len(spaces), 3.4), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(spaces), squeeze=False)[0]
    for axis, (space, (samples, held_out)) in zip(panels, spaces.items(), strict=True):
        edges = np.linspace(0, float(max(samples.max(), held_out.max())) * 1.02 + 1e-9, bins + 1)
        for values, label, style in (
            (held_out, "held-out data", {"histtype": "stepfilled", "color": BLUE, "alpha": 0.45}),
            (samples, "samples", {"histtype": "step", "color": ORANGE, "linewidth": 1.8}),
        ):
            weights = np.full(len(values), 1 / len(values))
            axis.hist(values.numpy(), bins=edges, weights=weights, label=label, **style)
        axis.set_xlabel(f"L2 distance to the nearest training image · {space}")
        axis.set_ylabel("share of images")
        axis.legend(frameon=False)
    figure.suptitle(caption, fontsize=9, color="#555555")
    figure.savefig(path, metadata={"Software": None})
    return path
