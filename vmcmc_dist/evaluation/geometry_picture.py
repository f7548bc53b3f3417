"""The alternating projection as a zig-zag over half-iterations, and as a path in two KLs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vmcmc_dist.evaluation.density_picture import FLOOR, TRACES
from vmcmc_dist.evaluation.ood_picture import BLUE, GREY, ORANGE, new_figure
from vmcmc_dist.evaluation.projection import HalfStep

KLS = ("data_model", "model_sampler", "revised_model")
HALF_STYLE = {
    "energy": (BLUE, "o", "after the energy's half"),
    "vae": (ORANGE, "s", "after the VAE's half"),
}


def save_zigzag(path: Path, halves: Sequence[HalfStep], title: str) -> Path:
    """One panel per KL against iterations; lines in the colour of the half that made them (grey
    where several halves passed unmeasured)."""
    figure = new_figure(9.5, 7.6)
    axes = figure.subplots(len(KLS), 1, sharex=True)
    at = np.array([step.iteration for step in halves])
    for axis, name in zip(axes, KLS, strict=True):
        values = _values(halves, name)
        for k in range(1, len(halves)):
            colour, width = _piece(halves[k - 1], halves[k])
            axis.plot(at[k - 1 : k + 1], values[k - 1 : k + 1], color=colour, linewidth=width)
        for half, (colour, marker, label) in HALF_STYLE.items():
            here = np.array([step.half == half for step in halves])
            axis.plot(
                at[here], values[here], linestyle="", marker=marker, color=colour, markersize=4.5,
                label=label,
            )  # fmt: skip
        axis.plot(at[:1], values[:1], marker="*", color="black", markersize=11, linestyle="",
                  label="where it began")  # fmt: skip
        axis.set_ylabel(f"{TRACES[name][0]}\n[nats]", fontsize=10)
        axis.grid(True, axis="both", color="#e3e5e8", linewidth=0.7)
        axis.spines[["top", "right"]].set_visible(False)
        if values.max() > 10 * values.min():
            axis.set_yscale("log")
            axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes[0].legend(fontsize=9, frameon=False, ncols=3, loc="lower right", bbox_to_anchor=(1, 1))
    axes[-1].set_xlabel("iteration (two halves each)")
    figure.suptitle(title, fontsize=12, x=0.01, ha="left")
    return _save(figure, path)


def save_phase(path: Path, halves: Sequence[HalfStep], title: str) -> Path:
    """KL(p_θ‖p_α) against KL(p_data‖p_θ), an arrow per half; the fixed point is the corner."""
    figure = new_figure(7.4, 6.2)
    axis = figure.subplots()
    x, y = _values(halves, "data_model"), _values(halves, "model_sampler")
    for k in range(1, len(halves)):
        colour, width = _piece(halves[k - 1], halves[k])
        axis.annotate(
            "", (x[k], y[k]), (x[k - 1], y[k - 1]),
            arrowprops={"arrowstyle": "-|>", "color": colour, "linewidth": width, "shrinkA": 0,
                        "shrinkB": 0, "mutation_scale": 9},
        )  # fmt: skip
    for half, (colour, marker, label) in HALF_STYLE.items():
        here = np.array([step.half == half for step in halves])
        axis.plot(x[here], y[here], linestyle="", marker=marker, color=colour, markersize=4,
                  label=label)  # fmt: skip
    axis.plot(x[:1], y[:1], marker="*", color="black", markersize=13, linestyle="",
              label="where it began")  # fmt: skip
    axis.plot(x[-1:], y[-1:], marker="X", color="black", markersize=9, linestyle="",
              label="where it ended")  # fmt: skip
    for values, scale, limits in (
        (x, axis.set_xscale, axis.set_xlim), (y, axis.set_yscale, axis.set_ylim),
    ):  # fmt: skip
        if values.max() > 10 * values.min():
            scale("log")
            limits(values.min() / 1.3, values.max() * 1.3)
        else:
            margin = 0.06 * (values.max() - values.min()) or 0.01
            limits(values.min() - margin, values.max() + margin)
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_xlabel(f"{TRACES['data_model'][0]}  [nats]")
    axis.set_ylabel(f"{TRACES['model_sampler'][0]}  [nats]")
    axis.grid(True, color="#e3e5e8", linewidth=0.7)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(fontsize=9, frameon=False, ncols=4, loc="lower left", bbox_to_anchor=(0, 1))
    figure.suptitle(title, fontsize=12, x=0.01, ha="left")
    figure.supxlabel("p_data = p_θ = p_α is far down and left", fontsize=8.5, color=GREY)
    return _save(figure, path)


def _piece(before: HalfStep, after: HalfStep) -> tuple[str, float]:
    """Colour and width of a line: of the half that made it, or thin grey over several halves."""
    if after.iteration - before.iteration == 0.5:
        return HALF_STYLE[after.half][0], 1.6
    return "#b5bac1", 0.8


def _values(halves: Sequence[HalfStep], name: str) -> np.ndarray:
    """A KL over the half-steps, kept within what can be drawn."""
    raw = np.array([getattr(step.divergences, name) for step in halves])
    largest = raw[np.isfinite(raw)].max(initial=FLOOR)
    return np.clip(np.nan_to_num(raw, posinf=largest), FLOOR, None)


def _save(figure: Any, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})
    return path
