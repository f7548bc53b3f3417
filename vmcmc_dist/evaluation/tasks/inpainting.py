"""Inpainting of held-out images: the ways of ``evaluation.inpainting``, against the truth.

Figures, for each mask M and way W, as means over images and on the hidden pixels alone:
``psnr_W_M`` in dB, ``ssim_W_M`` (left out where no window fits); ``psnr_W`` and ``ssim_W`` over all
masks. ``gain_M``: PSNR of ``latent_clamped`` above the best of reconstruct, refine and iterate, in
dB, with its standard error over images ``gain_se_M``. Ways:

    mean_fill        the mean colour of the visible pixels: a floor
    reconstruct, refine, iterate   the reference's three
    clamped          the clamped chain from the proposal of ``reconstruct``
    latent           the decoder at z given the visible pixels
    latent_clamped   the clamped chain from ``latent``: the recommended way
    conditional      the clamped chain from g(z, c), c = masked image; models trained for it only
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vmcmc_dist.data.conditions import masked as inpainting_condition
from vmcmc_dist.data.masks import masks
from vmcmc_dist.errors import ConfigError
from vmcmc_dist.evaluation.inpainting import (
    Chain,
    LatentChain,
    Masked,
    clamped,
    iterate,
    latent,
    mean_fill,
    reconstruct,
    refine,
)
from vmcmc_dist.evaluation.inpainting_picture import save_table
from vmcmc_dist.evaluation.job import Job, Result, TaskSettings
from vmcmc_dist.evaluation.pictures import caption_line, save_chain_strips
from vmcmc_dist.evaluation.quality import WINDOW, psnr, ssim
from vmcmc_dist.evaluation.real import held_out
from vmcmc_dist.langevin import stream_seed
from vmcmc_dist.settings import setting
from vmcmc_dist.trained import Trained

THREE = ("reconstruct", "refine", "iterate")
SHOWN = 8
LABELS = {"mean_fill": "mean", "latent_clamped": "latent+clamped"}


@dataclass
class Settings(TaskSettings):
    """Masks, and the dials of the ways."""

    n: int = setting(100, "held-out images", unit="images", ge=1)
    batch_size: int = setting(50, "images at a time", unit="images", ge=1)
    masks: list[str] = setting(
        ["left", "right", "top", "bottom", "centre", "random", "free_form"], "kinds of masks"
    )
    share: float | None = setting(None, "hidden share; null = that of the kind", gt=0, lt=1)
    rounds: int = setting(10, "rounds of `iterate`", unit="rounds", ge=1)
    latent_steps: int = setting(50, "Langevin steps on z", unit="steps", ge=0)
    latent_step_size: float = setting(1.0, "δ of those, in standard deviations of q(z|x)", gt=0)
    latent_temperature: float = setting(
        0.0, "1 draws z from p(z|visible), 0 goes to its mode", ge=0
    )
    latent_sigma: float | None = setting(None, "σ of the pixels given z; null = vae.sigma", gt=0)


def fits(model: Trained) -> str | None:
    """Images, and a condition that does not show what a mask hides."""
    if len(model.shape) != 3:
        return "masks are for images; this run's data are vectors"
    if model.config.condition.kind in ("colour", "upscale"):
        return f"its condition ({model.config.condition.kind}) shows the hidden pixels"
    return None


def run(job: Job[Settings]) -> Result:
    """Fill every mask in every way."""
    settings = job.settings
    if not settings.masks:
        raise ConfigError("no masks: give at least one, e.g. masks=[centre]")
    x, c = held_out(job.model, settings.n, settings.seed)
    hidden = {
        kind: masks(kind, job.model.shape, len(x), settings.seed, settings.share)
        for kind in settings.masks
    }
    figures: dict[str, Any] = {"n": len(x), "masks": list(hidden)}
    pictures: list[Path] = []
    by_way: dict[str, list[Tensor]] = {}
    for kind, where in hidden.items():
        filled = fill_all(job, kind, x, where, c)
        scores = judge(filled, x, where)
        for way, (db, likeness) in scores.items():
            figures[f"psnr_{way}_{kind}"] = db.mean().item()
            by_way.setdefault(f"psnr_{way}", []).append(db)
            if not likeness.isnan().all():
                figures[f"ssim_{way}_{kind}"] = likeness.nanmean().item()
                by_way.setdefault(f"ssim_{way}", []).append(likeness)
        figures |= gain(kind, {way: db for way, (db, _) in scores.items()})
        pictures.append(draw(job, kind, x, where, filled))
    figures |= {name: torch.cat(parts).nanmean().item() for name, parts in by_way.items()}
    table = save_table(job.folder / "psnr.png", figures, list(scores), list(hidden), caption(job))
    return Result(figures | {"ways": list(scores)}, [table, *pictures], note=NOTE)


NOTE = (
    "PSNR rewards the mean of all that could be hidden, so a sharp sample scores lower than a "
    "blurred one."
)


def fill_all(
    job: Job[Settings], kind: str, x: Tensor, hidden: Tensor, c: Tensor | None
) -> dict[str, Tensor]:
    """Way → filled images [N, C, H, W] on the CPU, batch by batch."""
    size = job.settings.batch_size
    batches = []
    for start in range(0, len(x), size):
        job.progress(f"mask {kind}", start, len(x))
        rows = slice(start, start + size)
        seed = stream_seed(job.settings.seed, "inpainting", kind, start)
        given = None if c is None else c[rows]
        batches.append(
            job.part(
                f"{kind}-{start}",
                lambda r=rows, g=given, s=seed: fill(job, x[r], hidden[r], g, s),  # type: ignore[misc]
            )
        )
    return {way: torch.cat([batch[way] for batch in batches]) for way in ways(job.model)}


def ways(model: Trained) -> list[str]:
    """The ways that a model has, in the order of the table."""
    own = ["conditional"] if inpaints(model) else []
    return ["mean_fill", *THREE, "clamped", "latent", "latent_clamped", *own]


def inpaints(model: Trained) -> bool:
    """Was the model trained with masked images as its condition?"""
    return model.config.condition.kind == "inpaint"


def fill(
    job: Job[Settings], x: Tensor, hidden: Tensor, c: Tensor | None, seed: int
) -> dict[str, Tensor]:
    """One batch x [B, C, H, W], its hidden pixels filled in every way."""
    model, settings = job.model, job.settings
    x, hidden = x.to(model.device), hidden.to(model.device)
    if inpaints(model):
        c = inpainting_condition(x, hidden)
    masked = Masked.of(x, hidden, None if c is None else c.to(model.device))
    chain = Chain(job.steps, settings.temperature, seed)
    codes = LatentChain(
        steps=settings.latent_steps,
        step_size=settings.latent_step_size,
        temperature=settings.latent_temperature,
        sigma=settings.latent_sigma,
        rounds=settings.rounds,
    )
    proposal, best = reconstruct(model, masked), latent(model, masked, codes, seed)
    filled = {
        "mean_fill": mean_fill(masked),
        "reconstruct": proposal,
        "refine": refine(model, masked, chain),
        "iterate": iterate(model, masked, settings.rounds, chain),
        "clamped": clamped(model, masked, proposal, chain),
        "latent": best,
        "latent_clamped": clamped(model, masked, best, chain),
    }
    if inpaints(model):
        start = model.propose(len(x), c=masked.c, seed=seed)
        filled["conditional"] = clamped(model, masked, start, chain)
    return filled


def judge(filled: dict[str, Tensor], x: Tensor, hidden: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Way → (PSNR [N] in dB, SSIM [N]) on the hidden pixels; SSIM is NaN where it has no window."""
    small = min(x.shape[2:]) < WINDOW
    none = torch.full((len(x),), torch.nan)
    return {
        way: (psnr(y, x, hidden), none if small else ssim(y, x, hidden))
        for way, y in filled.items()
    }


def gain(kind: str, psnrs: dict[str, Tensor]) -> dict[str, float]:
    """How far the recommended way is above the reference's best, and how sure that is."""
    best = max((psnrs[way] for way in THREE), key=lambda db: db.mean().item())
    ahead = psnrs["latent_clamped"] - best
    found = {f"gain_{kind}": ahead.mean().item()}
    if len(ahead) > 1:
        found[f"gain_se_{kind}"] = (ahead.std() / len(ahead) ** 0.5).item()
    return found


def draw(
    job: Job[Settings], kind: str, x: Tensor, hidden: Tensor, filled: dict[str, Tensor]
) -> Path:
    """truth | masked | one column per way."""
    columns = {"truth": x, "masked": Masked.of(x, hidden).visible, **filled}
    return save_chain_strips(
        job.folder / f"{kind}.png",
        [images[:SHOWN] for images in columns.values()],
        [LABELS.get(way, way) for way in columns],
        title=f"Inpainting · {kind}",
        caption=caption(job),
    )


def caption(job: Job[Settings]) -> str:
    """The line under a picture."""
    model = job.model
    return caption_line(model.config.name, model.images, job.steps, "held-out images")
