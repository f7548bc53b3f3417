"""Pictures of the out-of-distribution task: what the sets look like, and how they score."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from vmcmc_dist.evaluation.pictures import save_chain_strips

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#555555"
LABELS = {
    "held_out": "held-out data",
    "training": "training data",
    "uniform": "uniform noise",
    "gaussian": "Gaussian noise",
    "shuffled": "shuffled pixels",
    "constant": "constant images",
    "upside_down": "upside down",
    "rotated": "rotated by 90°",
    "inverted": "inverted",
}
TITLES = {"auroc": "AUROC", "aupr_in": "AUPR in", "aupr_out": "AUPR out"}
PANELS = {"energy": "energy U (low = data)", "elbo": "VAE's bound on log p(x)  [nats]"}
STYLES = {"energy": (BLUE, "-", "o"), "elbo": (ORANGE, "--", "s"), "typicality": (GREEN, ":", "^")}


def save_set_examples(path: Path, sets: Mapping[str, Tensor], rows: int = 6) -> Path:
    """A column of examples of each set, the same row from the same held-out image."""
    rows = min(rows, *(len(x) for x in sets.values()))
    return save_chain_strips(
        path,
        [x[:rows] for x in sets.values()],
        [label(name) for name in sets],
        title="The sets",
    )


def save_ood_picture(
    path: Path,
    scores: Mapping[str, Mapping[str, Tensor]],
    figures: Mapping[str, Any],
    caption: str,
) -> Path:
    """One row per set: histograms of both scores beside the held-out data's, and the AUROCs."""
    others = [name for name in scores if name != "held_out"]
    figure = new_figure(10.5, 1.0 + 0.95 * len(others))
    axes = figure.subplots(len(others), 2, squeeze=False)
    for column, (kind, title) in enumerate(PANELS.items()):
        inside = scores["held_out"][kind].numpy()
        for row, name in enumerate(others):
            outside = scores[name][kind].numpy()
            _draw_pair(axes[row, column], inside, outside)
            text = f"AUROC {figures[f'auroc_{kind}_{name}']:.3f}"
            if kind == "energy":
                text += f"\ntwo-sided {figures[f'auroc_typicality_{name}']:.3f}"
            axes[row, column].annotate(
                text, (1.01, 0.5), xycoords="axes fraction", va="center", fontsize=8.5
            )
        axes[0, column].set_title(title, fontsize=11)
    for row, name in enumerate(others):
        axes[row, 0].set_ylabel(
            label(name), rotation=0, ha="right", va="center", fontsize=10, color=ORANGE
        )
    figure.suptitle(
        "Filled: held-out data.  Line: the set named at the left.", fontsize=11, color=GREY
    )
    figure.supxlabel(
        f"{caption}\nvalues beyond the axis are in its first and last bin; heights: share of a set",
        fontsize=8.5, color=GREY,
    )  # fmt: skip
    return _save(figure, path)


def _draw_pair(axis: Any, inside: np.ndarray, outside: np.ndarray, bins: int = 50) -> None:
    """Both sets in common bins over the middle 99 % of each."""
    low = min(np.quantile(inside, 0.005), np.quantile(outside, 0.005))
    high = max(np.quantile(inside, 0.995), np.quantile(outside, 0.995))
    if high <= low:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, bins + 1)
    for values, style in (
        (inside, {"histtype": "stepfilled", "color": BLUE, "alpha": 0.45}),
        (outside, {"histtype": "step", "color": ORANGE, "linewidth": 1.6}),
    ):
        weights = np.full(len(values), 1 / len(values))
        axis.hist(np.clip(values, low, high), bins=edges, weights=weights, **style)
    axis.set_yticks([])
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right", "left"]].set_visible(False)


def save_ood_table(path: Path, figures: Mapping[str, Any], caption: str) -> Path:
    """AUROC and both AUPRs of every score against every set; what is below chance in orange."""
    names = [key[len("auroc_energy_") :] for key in figures if key.startswith("auroc_energy_")]
    names = [name for name in names if not name.endswith("_by_checkpoint")]
    columns = [(kind, metric) for kind in STYLES for metric in TITLES]
    values = [[figures[f"{metric}_{kind}_{name}"] for kind, metric in columns] for name in names]
    figure = new_figure(11, 1.3 + 0.3 * len(names))
    axis = figure.subplots()
    axis.set_axis_off()
    table = axis.table(
        [[f"{value:.3f}" for value in row] for row in values],
        rowLabels=[label(name) for name in names],
        colLabels=[f"{kind}\n{TITLES[metric]}" for kind, metric in columns],
        bbox=[0, 0, 1, 1],
    )
    table.auto_set_font_size(False)
    table.set_fontsize(9)
    for (row, column), cell in table.get_celld().items():
        cell.set_edgecolor("#d6dae0")
        if row == 0:
            cell.set_height(2 * cell.get_height())
        elif column >= 0 and columns[column][1] == "auroc":
            cell.set_facecolor("#eef3f8")
            if values[row - 1][column] < 0.5:
                cell.set_text_props(color=ORANGE, weight="bold")
    figure.supxlabel(
        f"{caption} · AUPR in: the data are the positives, out: the other set; orange: below "
        "chance (AUROC 0.5)",
        fontsize=8.5, color=GREY,
    )  # fmt: skip
    return _save(figure, path)


def save_checkpoint_curves(path: Path, by_checkpoint: Mapping[int, Mapping[str, float]]) -> Path:
    """AUROC of every score against images seen, one panel per set."""
    first = next(iter(by_checkpoint.values()))
    prefix = "auroc_energy_"
    names = [key[len(prefix) :] for key in first if key.startswith(prefix)]
    columns = 4
    rows = -(-len(names) // columns)
    figure = new_figure(11, 0.8 + 2.1 * rows)
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).flatten()
    images = list(by_checkpoint)
    for axis, name in zip(axes, names, strict=False):
        for kind, (colour, line, marker) in STYLES.items():
            values = [found[f"auroc_{kind}_{name}"] for found in by_checkpoint.values()]
            axis.plot(images, values, color=colour, linestyle=line, marker=marker, label=kind)
        axis.axhline(0.5, color=GREY, linewidth=0.8)
        axis.set_title(label(name), fontsize=10)
        axis.set_ylim(-0.03, 1.03)
        axis.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:g}k")
        axis.tick_params(labelsize=8, labelbottom=True)
    for axis in axes[len(names) :]:
        axis.set_visible(False)
    axes[0].legend(fontsize=8, loc="lower left")
    figure.supxlabel("images seen", fontsize=10)
    figure.supylabel("AUROC", fontsize=10)
    return _save(figure, path)


def label(name: str) -> str:
    """A set's name for the reader."""
    return LABELS.get(name, name.replace("_", " "))


def new_figure(width: float, height: float) -> Any:
    """A figure of that many inches, drawn without a display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Any, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})
    return path
