"""Pictures of chains: strips with energies, and curves over the chain's length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from vmcmc_dist.errors import DataError
from vmcmc_dist.evaluation.ood_picture import BLUE, GREEN, GREY, ORANGE, new_figure
from vmcmc_dist.evaluation.pictures import to_bytes

CELL = 0.95  # inches


def save_strips(
    path: Path,
    states: Sequence[Tensor],
    energies: Sequence[Tensor],
    steps: Sequence[int],
    *,
    title: str,
    caption: str,
) -> Path:
    """One row per chain, one column per kept state [N, C, H, W] after ``steps``; U under each."""
    if not len(states) == len(energies) == len(steps) > 0:
        raise DataError(f"{len(states)} states, {len(energies)} energies, {len(steps)} steps")
    rows, columns = len(states[0]), len(states)
    figure = new_figure(CELL * columns + 0.4, (CELL + 0.2) * rows + 1.1)
    axes = figure.subplots(rows, columns, squeeze=False)
    for column, (x, u, step) in enumerate(zip(states, energies, steps, strict=True)):
        pixels = to_bytes(x)
        for row in range(rows):
            axis = axes[row, column]
            axis.imshow(pixels[row], interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
            axis.spines[:].set_visible(False)
            axis.set_xlabel(f"{u[row].item():.3g}", fontsize=8, labelpad=1.5)
        count = f"step {step:,}" if column else "proposal"
        axes[0, column].set_title(f"{count}\nmean U {u.mean().item():.3g}", fontsize=8.5)
    figure.suptitle(title, fontsize=12)
    figure.supxlabel(
        f"{caption} · under each image its energy U (low = data)", fontsize=8.5, color=GREY
    )
    return _save(figure, path)


def save_length_curves(path: Path, figures: Mapping[str, Any], distance: str, caption: str) -> Path:
    """Fréchet distance, energy and spread against the chain's length, with the levels of data."""
    lengths, training = figures["lengths"], figures["training_length"]
    figure = new_figure(11, 4.2)
    axes = figure.subplots(1, 3)
    panels = (
        (distance, "Fréchet distance (" + distance.removeprefix("fd_") + ")", BLUE),
        ("energy", "mean energy U (band: ± 1 std)", ORANGE),
        ("spread", "spread among samples (std, pixels in [−1, 1])", GREEN),
    )
    levels = {distance: f"{distance}_held_out", "energy": "energy_data", "spread": "spread_data"}
    for axis, (name, title, colour) in zip(axes, panels, strict=True):
        values = figures[name]
        axis.plot(lengths, values, color=colour, marker="o", markersize=4, label="after the chain")
        if name == "energy":
            low, high = (
                [u + sign * s for u, s in zip(values, figures["energy_std"], strict=True)]
                for sign in (-1, 1)
            )
            axis.fill_between(lengths, low, high, color=colour, alpha=0.2, linewidth=0)
        axis.axhline(values[0], color=GREY, linestyle="--", linewidth=1.2, label="proposals")
        axis.axhline(
            figures[levels[name]], color="black", linestyle=":", linewidth=1.6,
            label="held-out data",
        )  # fmt: skip
        axis.axvline(training, color=GREY, linewidth=0.8)
        axis.annotate(
            " training length", (training, 0.99), xycoords=("data", "axes fraction"),
            fontsize=8, color=GREY, va="top",
        )  # fmt: skip
        axis.set_xscale("symlog", linthresh=max(1, training), linscale=0.5)
        axis.set_xlim(0, lengths[-1] * 1.15)
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("Langevin steps")
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
    if min(figures[distance]) > 0 and max(figures[distance]) > 20 * min(figures[distance]):
        axes[0].set_yscale("log")
        axes[0].yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes[1].legend(fontsize=8, frameon=False, loc="lower left")
    figure.supxlabel(f"{caption} · {figures['n']} chains", fontsize=8.5, color=GREY)
    return _save(figure, path)


def _save(figure: Any, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})
    return path
