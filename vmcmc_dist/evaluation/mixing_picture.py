"""Pictures of the mixing task: autocorrelations, energy histograms, transitions between classes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from vmcmc_dist.evaluation.autocorrelation import integrated_time
from vmcmc_dist.evaluation.histograms import common_edges, shares
from vmcmc_dist.evaluation.modes import Jumps
from vmcmc_dist.evaluation.ood_picture import BLUE, GREEN, GREY, ORANGE, new_figure
from vmcmc_dist.trained import Trained

LINES = ["-", "--", "-.", ":"]
SETS = {
    "training": (BLUE, "-", 1.8),
    "held out": ("#56B4E9", "--", 1.8),
    "proposals": (GREY, ":", 2.0),
    "samples": (ORANGE, "-", 2.2),
    "long chains": (GREEN, "-.", 1.8),
}


def save_autocorrelations(path: Path, rhos: Mapping[str, Tensor], caption: str) -> Path:
    """ρ_t [2, T] of every summary against the lag: all chains together, and within a chain."""
    figure = new_figure(11, 4.4)
    axes = figure.subplots(1, 2, sharey=True)
    colours = [BLUE, ORANGE, GREEN, "#CC79A7", "#56B4E9", "#E69F00", GREY]
    titles = ("all chains together", "within a chain, about its own mean")
    for panel, (axis, title) in enumerate(zip(axes, titles, strict=True)):
        for k, (name, both) in enumerate(rhos.items()):
            rho = both[panel]
            axis.plot(
                np.arange(len(rho)), rho.numpy(), color=colours[k % len(colours)],
                linestyle=LINES[k % len(LINES)], linewidth=1.8,
                label=f"{name.replace('_', ' ')}   τ {integrated_time(rho):.3g}",
            )  # fmt: skip
        axis.axhline(0, color=GREY, linewidth=0.8)
        axis.set_title(title, fontsize=11)
        axis.set_xlabel("lag  [Langevin steps]")
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(fontsize=9, frameon=False)
    axes[0].set_ylabel("autocorrelation ρ")
    axes[0].set_ylim(min(-0.1, *(rho.min().item() for rho in rhos.values())), 1.05)
    figure.supxlabel(caption, fontsize=8.5, color=GREY)
    return _save(figure, path)


def save_energy_histograms(path: Path, sets: Mapping[str, Tensor], caption: str) -> Path:
    """Energy histograms of all sets in one picture, as lines."""
    edges = common_edges(sets, bins=60)
    figure = new_figure(7.8, 4.4)
    axis = figure.subplots()
    for name, (colour, line, width) in SETS.items():
        if name in sets:
            axis.stairs(
                shares(sets[name], edges).numpy(), edges.numpy(), color=colour, linestyle=line,
                linewidth=width, label=f"{name}   mean {sets[name].mean().item():.3g}",
            )  # fmt: skip
    axis.set_xlabel("energy U (low = data)")
    axis.set_ylabel("share of the set in a bin")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(fontsize=9, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    figure.supxlabel(caption, fontsize=8.5, color=GREY)
    return _save(figure, path)


def save_transitions(
    path: Path, jumps: Mapping[str, Jumps], model: Trained, length: int, caption: str
) -> Path:
    """P(class at the end | class at the start) after a training chain and after the long one."""
    titles = {"_trained": f"{model.config.langevin.steps} steps, as trained", "": f"{length} steps"}
    figure = new_figure(9.4, 4.9)
    axes = figure.subplots(1, 2)
    for axis, name in zip(axes, titles, strict=True):
        jump = jumps[name]
        shown = axis.imshow(jump.transition().numpy(), cmap="cividis", vmin=0, vmax=1)
        axis.set_title(f"{titles[name]}: {jump.share:.1%} changed class", fontsize=10.5)
        axis.set_xlabel("class at the end")
        axis.set_ylabel("class of the proposal")
        classes = len(jump.counts)
        if classes <= 20:
            axis.set_xticks(range(classes))
            axis.set_yticks(range(classes))
        axis.tick_params(labelsize=8)
    figure.colorbar(shown, ax=list(axes), shrink=0.8, label="share of the row's chains")
    figure.supxlabel(caption, fontsize=8.5, color=GREY)
    return _save(figure, path)


def _save(figure: Any, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})
    return path
