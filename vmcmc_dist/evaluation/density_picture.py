"""The picture of a 2-D run: p_data, p_θ, p_α side by side, and the divergences over training.

divergences, logs = measure(...)
save_density_picture("densities.png", logs, history, title="toy2d · rings")
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from vmcmc_dist.errors import DataError
from vmcmc_dist.evaluation.quadrature import Divergences, Grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANELS = {"data": "data  $p_{data}$", "model": "energy model  $p_θ$", "sampler": "VAE  $p_α$"}

# Okabe–Ito colours, told apart by line and marker as well
TRACES = {
    "data_model": ("KL($p_{data}$ ‖ $p_θ$)", "#0072B2", "-", "o"),
    "model_sampler": ("KL($p_θ$ ‖ $p_α$)", "#D55E00", "--", "s"),
    "revised_model": ("KL($M_θp_α$ ‖ $p_θ$)", "#009E73", "-.", "^"),
    "data_sampler": ("KL($p_{data}$ ‖ $p_α$)", "#6A3D9A", ":", "D"),
}
FLOOR = 1e-3  # nats: what quadrature with particles resolves


def save_density_picture(
    path: str | Path,
    log_densities: Mapping[str, Tensor],
    history: Sequence[Divergences],
    *,
    grid: Grid | None = None,
    title: str = "",
    target: float | None = 0.05,
) -> Path:
    """PNG of exp of ``log_densities`` (data, model, sampler: [n, n]) above the KLs of ``history``.

    The three densities share one colour scale, in 1/area. KLs in nats on a log axis; ``target``
    draws the line that KL(p_data ‖ p_θ) should end below. DataError: a density or all records
    are missing.
    """
    missing = [name for name in PANELS if name not in log_densities]
    if missing or not history:
        lacking = ", ".join(missing) or "records of divergences"
        raise DataError(f"a density picture needs {lacking}: pass what quadrature.measure returns")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.5, 7.2), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    rows: Any = figure.subfigures(2, 1, height_ratios=[3.6, 3.2])
    _draw_densities(rows[0], log_densities, grid or Grid(), history[-1])
    _draw_traces(rows[1].subplots(), history, target)
    if title:
        figure.suptitle(title, fontsize=14, x=0.012, ha="left")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})
    return path


def _draw_densities(figure: Any, logs: Mapping[str, Tensor], grid: Grid, last: Divergences) -> None:
    density = {name: logs[name].exp().numpy() for name in PANELS}
    brightest = float(np.quantile(density["data"][density["data"] > 1e-6], 0.995))
    axes = figure.subplots(1, len(PANELS), sharex=True, sharey=True)
    e = grid.extent
    below = {
        "data": "exact",
        "model": f"KL($p_{{data}}$ ‖ $p_θ$) = {last.data_model:.3f} nats",
        "sampler": f"KL($p_{{data}}$ ‖ $p_α$) = {last.data_sampler:.3f} nats",
    }
    for axis, (name, label) in zip(axes, PANELS.items(), strict=True):
        image = axis.imshow(
            density[name].T, origin="lower", extent=(-e, e, -e, e), cmap="cividis",
            vmin=0, vmax=brightest, interpolation="nearest",
        )  # fmt: skip
        axis.set_title(label, fontsize=12)
        axis.set_xlabel(below[name], fontsize=10)
        axis.tick_params(labelsize=8)
    figure.colorbar(image, ax=list(axes), shrink=0.85, pad=0.01, label="density", extend="max")


def _draw_traces(axis: Axes, history: Sequence[Divergences], target: float | None) -> None:
    images = [record.images for record in history]
    for name, (label, colour, line, marker) in TRACES.items():
        values = [max(getattr(record, name), FLOOR) for record in history]
        spacing = max(1, len(images) // 12)
        axis.plot(
            images, values, color=colour, linestyle=line, marker=marker, markevery=spacing,
            markersize=4.5, linewidth=1.8, label=f"{label}   {getattr(history[-1], name):.3f}",
        )  # fmt: skip
    if target is not None:
        axis.axhline(target, color="#555555", linewidth=0.9)
        axis.annotate(
            f"target {target:g}", (1.005, target), xycoords=("axes fraction", "data"),
            fontsize=8.5, color="#555555", va="center",
        )  # fmt: skip
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:g}k" if value else "0")
    axis.set_xlabel("images seen")
    axis.set_ylabel("nats")
    axis.grid(True, which="major", color="#e3e5e8", linewidth=0.7)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(
        title="divergence (last value)", loc="upper left", bbox_to_anchor=(1.0, 1.0),
        frameon=False, fontsize=9.5, title_fontsize=9.5,
    )  # fmt: skip
