"""Out of distribution: do the energy and the VAE's bound tell the data from other images?

Figures, for each set S and each score: ``auroc_SCORE_S`` (1 separates, ½ is chance, below ½ the
score likes the other set better), ``aupr_in_SCORE_S`` and ``aupr_out_SCORE_S`` (average precision
with the data, or the other set, as the positives). Scores, high = of the data:

    energy       −U(x)
    elbo         one-sample ELBO of the VAE, or with ``draws`` > 1 the IWAE bound
    typicality   −|U(x) − mean U over training data|

The in-distribution set is held-out data. Sources: Hendrycks and Gimpel, arXiv:1610.02136 (AUROC,
both AUPRs); Nalisnick et al., arXiv:1906.02994 (typicality).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from vmcmc_dist.data.scaling import to_model_range
from vmcmc_dist.errors import CheckpointError, ConfigError
from vmcmc_dist.evaluation.detection import auroc, average_precision
from vmcmc_dist.evaluation.elbo import iwae
from vmcmc_dist.evaluation.job import Job, Result, TaskSettings
from vmcmc_dist.evaluation.ood_picture import (
    save_checkpoint_curves,
    save_ood_picture,
    save_ood_table,
    save_set_examples,
)
from vmcmc_dist.evaluation.ood_sets import other_data, other_sets, set_name
from vmcmc_dist.evaluation.real import real_images
from vmcmc_dist.langevin import stream_seed
from vmcmc_dist.settings import setting
from vmcmc_dist.trained import Trained, load

Scores = dict[str, Tensor]
IN, TRAIN = "held_out", "training"


@dataclass
class Settings(TaskSettings):
    """What is held against what."""

    n: int = setting(2000, "images of each set", unit="images", ge=2)
    data: list[str] = setting(
        [], "other data sets: folders of shards, config files, or SOURCE:ROOT"
    )
    checkpoints: Literal["given", "all"] = setting(
        "given", "all: the figures of every checkpoint that the run kept, too"
    )
    draws: int = setting(1, "of z per image for the VAE's bound", ge=1)


def fits(model: Trained) -> str | None:
    """Images, and no condition."""
    if len(model.shape) != 3:
        return "other sets are made for images; this run's data are vectors"
    if model.condition is not None:
        return "images of other data have no condition to give to a conditional model"
    return None


def run(job: Job[Settings]) -> Result:
    """Score every set with every checkpoint asked for."""
    settings = job.settings
    sets = collect(job)
    models = {job.model.images: job.model}
    if settings.checkpoints == "all":
        models |= others(job)
    figures: dict[str, Any] = {
        "n": len(sets[IN]),
        "sets": [s for s in sets if s not in (IN, TRAIN)],
    }
    by_checkpoint = {}
    for images in sorted(models):
        scores = {
            name: job.part(f"{images}-{name}", partial(score, job, models[images], x))
            for name, x in sets.items()
        }
        by_checkpoint[images] = judge(scores)
        if images == job.model.images:
            figures |= by_checkpoint[images]
            here = scores
    pictures = [
        save_set_examples(job.folder / "sets.png", sets),
        save_ood_picture(job.folder / "ood.png", here, figures, caption(job)),
        save_ood_table(job.folder / "table.png", figures, caption(job)),
    ]
    if len(by_checkpoint) > 1:
        figures["checkpoints"] = list(by_checkpoint)
        for name in (key for key in by_checkpoint[job.model.images] if key.startswith("auroc")):
            figures[f"{name}_by_checkpoint"] = [found[name] for found in by_checkpoint.values()]
        pictures.append(save_checkpoint_curves(job.folder / "checkpoints.png", by_checkpoint))
    return Result(figures, pictures, note=NOTE)


NOTE = (
    "An AUROC below 0.5 means that the score takes the other set for likelier than held-out data, "
    "as densities of simple images are known to do."
)


def collect(job: Job[Settings]) -> dict[str, Tensor]:
    """Every set by name, uint8 [N, C, H, W]; held-out and training data among them."""
    settings, data = job.settings, job.model.config.data
    real = real_images(data, "held out", limit=settings.n, seed=settings.seed).images
    train = real_images(data, "train", limit=settings.n, seed=settings.seed).images
    sets = {IN: real, TRAIN: train, **other_sets(real, settings.seed)}
    for place in settings.data:
        name = set_name(place)
        if name in sets:
            raise ConfigError(f"two sets are called {name!r}; rename the file of {place}")
        sets[name] = other_data(place, job.model.shape, settings.n, settings.seed)
    return sets


def others(job: Job[Settings]) -> dict[int, Trained]:
    """The run's other checkpoints by images; CheckpointError where the run is not around it."""
    run = job.folder.parent.parent
    names = [p.name for p in (run / "checkpoints").glob("*") if p.name.isdigit()]
    if not names:
        raise CheckpointError(f"{run} has no checkpoints: checkpoints=all needs the run's folder")
    ema, device = job.identity.get("ema"), job.model.device
    return {
        int(name): load(run, checkpoint=name, ema=ema, device=device)
        for name in names
        if int(name) != job.model.images
    }


def score(job: Job[Settings], model: Trained, images: Tensor) -> Scores:
    """U(x) and the VAE's bound of uint8 images [N, C, H, W]: float64 [N] each, nats."""
    energies, bounds = [], []
    parts = images.split(job.settings.batch_size)
    for number, part in enumerate(parts):
        x = to_model_range(part).to(model.device)
        seed = stream_seed(job.settings.seed, "ood", number)
        energies.append(model.energy(x).double().cpu())
        bounds.append(iwae(model, x, job.settings.draws, seed=seed).double().cpu())
        job.progress(f"scores at {model.images:,} images", number + 1, len(parts))
    return {"energy": torch.cat(energies), "elbo": torch.cat(bounds)}


def judge(scores: dict[str, Scores]) -> dict[str, float]:
    """AUROC and both AUPRs of every score against every set."""
    centre = scores[TRAIN]["energy"].mean()

    def likeness(name: str) -> dict[str, Tensor]:
        u = scores[name]["energy"]
        return {"energy": -u, "elbo": scores[name]["elbo"], "typicality": -(u - centre).abs()}

    figures = {}
    inside = likeness(IN)
    for name in scores:
        if name == IN:
            continue
        outside = likeness(name)
        for kind in inside:
            figures[f"auroc_{kind}_{name}"] = auroc(inside[kind], outside[kind])
            figures[f"aupr_in_{kind}_{name}"] = average_precision(inside[kind], outside[kind])
            figures[f"aupr_out_{kind}_{name}"] = average_precision(-outside[kind], -inside[kind])
    return figures


def caption(job: Job[Settings]) -> str:
    """The line under the picture."""
    model = job.model
    return f"{model.config.name} · {model.images:,} images seen · {job.settings.n} images per set"
