"""The picture of the likelihood task: have the bounds closed, and what do the weights look like?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from vmcmc_dist.evaluation.ais import Estimate

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#555555"


def save_likelihood_picture(
    path: Path,
    found: Mapping[int, tuple[Estimate, Estimate]],
    forward: Tensor,
    reverse: Tensor,
    *,
    truth: float | None = None,
    curve: tuple[list[float], list[float]] | None = None,
    caption: str = "",
) -> Path:
    """PNG: bounds on log Z against the number of levels, histograms of the log weights, and the
    bits per dimension against temperature if there is such a ``curve``.

    ``found`` holds forward and reverse estimates by levels; ``forward`` and ``reverse`` are the
    log weights [N] of the longest ladder, as :func:`~vmcmc_dist.evaluation.ais.anneal` gives them.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = 3 if curve else 2
    figure = Figure(figsize=(4.4 * panels, 3.9), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, panels)
    _draw_bounds(axes[0], found, truth)
    _draw_weights(axes[1], forward.numpy(), -reverse.numpy(), truth)
    if curve:
        _draw_curve(axes[2], *curve)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"log Z by annealing · {caption}", fontsize=12, x=0.012, ha="left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path


def _draw_bounds(
    axis: Any, found: Mapping[int, tuple[Estimate, Estimate]], truth: float | None
) -> None:
    levels = list(found)
    ups, downs = [up for up, _ in found.values()], [down for _, down in found.values()]
    axis.errorbar(
        levels, [-d.mean for d in downs], [2 * d.mean_se for d in downs],
        color=ORANGE, marker="v", ls="--", capsize=3, label="upper bound (reverse)",
    )  # fmt: skip
    axis.errorbar(
        levels, [u.log_mean for u in ups], [2 * u.log_mean_se for u in ups],
        color=GREEN, marker="o", ls=":", capsize=3, label="AIS estimate",
    )  # fmt: skip
    axis.errorbar(
        levels, [u.mean for u in ups], [2 * u.mean_se for u in ups],
        color=BLUE, marker="^", ls="-", capsize=3, label="lower bound (forward)",
    )  # fmt: skip
    if truth is not None:
        axis.axhline(truth, color=GREY, lw=1.2, label="quadrature")
    axis.ticklabel_format(axis="y", useOffset=False, style="plain")
    axis.set_xscale("log")
    axis.set_xticks(levels, [f"{k:,}" for k in levels])
    axis.minorticks_off()
    axis.set_xlabel("levels of β")
    axis.set_ylabel("log Z  [nats]")
    axis.set_title("bounds, bars of two standard errors", fontsize=10)
    axis.legend(frameon=False, fontsize=8.5)


def _draw_weights(axis: Any, forward: Any, reverse: Any, truth: float | None) -> None:
    both = np.concatenate([forward, reverse])
    bins = np.linspace(both.min(), max(both.max(), both.min() + 1e-6), 41)
    axis.hist(forward, bins, color=BLUE, alpha=0.55, label="forward  log w")
    axis.hist(
        reverse, bins, histtype="step", color=ORANGE, lw=1.8, hatch="///", label="reverse  log w"
    )
    if truth is not None:
        axis.axvline(truth, color=GREY, lw=1.2, label="quadrature")
    axis.set_xlabel("log weight of a chain  [nats]")
    axis.set_ylabel("chains")
    axis.set_title("weights of the longest ladder", fontsize=10)
    axis.legend(frameon=False, fontsize=8.5)


def _draw_curve(axis: Any, temperatures: list[float], bits: list[float]) -> None:
    axis.plot(temperatures, bits, color=BLUE, marker="^", label="test data, at least")
    axis.axhline(8, color=GREY, ls="--", lw=1.2, label="uniform density: 8 bits")
    axis.set_xscale("log")
    if min(bits) > 0:
        axis.set_yscale("log")
    axis.minorticks_off()
    axis.set_xlabel("temperature T of exp(−U/T)")
    axis.set_ylabel("bits per dimension")
    axis.set_title("likelihood at other temperatures", fontsize=10)
    axis.legend(frameon=False, fontsize=8.5)
