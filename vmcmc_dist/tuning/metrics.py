"""Which figures a sweep may be judged by, and where a run writes them.

Figures of the sample records (cheap, at every grid) and of the evaluations (the judge's). Never a
loss: both losses of this method are calm while all samples become one checkerboard.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

from vmcmc_dist.config import Config
from vmcmc_dist.engine.run_folder import complete_lines
from vmcmc_dist.engine.samples import KLS
from vmcmc_dist.errors import ConfigError
from vmcmc_dist.evaluation.features import NETS

THUMBNAILS = ("fd_thumbnail", "fd_thumbnail_proposals")
STEMS = ("fd", "kid", "is", "precision", "recall", "density", "coverage")
KINDS = ("refined", "proposals")


def sample_figures(config: Config) -> list[str]:
    """What the sample records of such a run hold."""
    if config.data.source == "toy2d":
        return [f"kl_{name}" for name in KLS]
    return list(THUMBNAILS)


def evaluation_figures(config: Config) -> list[str]:
    """What the evaluations of such a run hold, as far as the config says."""
    features = config.evaluation.features
    if config.data.source == "toy2d" or features == "none":
        return []
    nets = NETS if features == "auto" else (features,)
    names = [f"{stem}_{net}_{kind}" for net in nets for stem in STEMS for kind in KINDS]
    n = config.evaluation.n
    thousands = f"{n // 1000}k" if n % 1000 == 0 else str(n)
    if "inception" in nets:
        names += [f"fd_inception_{thousands}_{kind}" for kind in KINDS]
        names += [f"fid_{kind}" for kind in KINDS]
    return names


def check_metrics(names: list[str], config: Config) -> None:
    """ConfigError for a metric that no trial will write, and for a loss."""
    samples, evaluations = sample_figures(config), evaluation_figures(config)
    for name in names:
        if name in samples:
            continue
        if name in evaluations:
            _check_evaluations(name, config)
            continue
        known = [*samples, *evaluations]
        near = difflib.get_close_matches(name, known, n=2, cutoff=0.6)
        loss = "loss" in name or name in ("gap", "drop", "energy_data", "elbo")
        why = "is a loss, and losses say nothing of samples" if loss else "is no figure of a trial"
        raise ConfigError(
            f"metric {name} {why}; " + (f"did you mean {' or '.join(near)}?" if near else "")
            or f"there are {', '.join(known[:8])} …"
        )


def _check_evaluations(name: str, config: Config) -> None:
    every = config.evaluation.every_images
    if not every:
        raise ConfigError(
            f"metric {name} is made by evaluations, and there are none: set "
            "evaluation.every_images in settings"
        )
    if config.train.checkpoint_images > every:
        raise ConfigError(
            f"evaluation.every_images={every:,} needs a checkpoint as often: set "
            f"train.checkpoint_images (now {config.train.checkpoint_images:,})"
        )


def figure_interval(names: list[str], config: Config) -> int:
    """Images between two values of all metrics."""
    samples = sample_figures(config)
    train, evaluation = config.train, config.evaluation
    return max(
        train.sample_images if name in samples else evaluation.every_images for name in names
    )


def read_figures(metrics: Path, names: list[str]) -> tuple[int, dict[str, float]]:
    """(images of the newest values of all ``names``, newest value of every figure), 0 if none."""
    if not metrics.exists():
        return 0, {}
    figures: dict[str, float] = {}
    at: dict[str, int] = {}
    for record in complete_lines(metrics):
        for name, value in _figures(record).items():
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                figures[name], at[name] = float(value), record["images"]
    whole = all(name in at for name in names)
    return (min(at[name] for name in names) if whole else 0), figures


def _figures(record: dict[str, Any]) -> dict[str, Any]:
    kind = record.get("kind")
    if kind == "evaluation":
        return record.get("figures", {})
    if kind in ("sample", "density"):
        return {k: v for k, v in record.items() if k not in ("kind", "images", "count", "steps")}
    return {}


def failed_evaluation(metrics: Path) -> str:
    """Why the last evaluation gave nothing, or ""."""
    lines = complete_lines(metrics) if metrics.exists() else []
    found = [r for r in lines if r.get("kind") == "evaluation"]
    return found[-1].get("failed", "") if found else ""
