"""Reconstruction of held-out images: encode → decode → refine, against the original.

Figures, means over images: ``mse_KIND``, ``psnr_KIND`` in dB, ``ssim_KIND`` (left out for images
smaller than its window) for KIND decoded and refined; ``energy_KIND`` for these and ``original``;
``psnr_gain``: refined above decoded in dB, with its standard error ``psnr_gain_se``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vmcmc_dist.evaluation.job import Job, Result, TaskSettings
from vmcmc_dist.evaluation.pictures import caption_line, save_chain_strips
from vmcmc_dist.evaluation.quality import WINDOW, mse, psnr, ssim
from vmcmc_dist.evaluation.real import held_out
from vmcmc_dist.langevin import stream_seed
from vmcmc_dist.settings import setting
from vmcmc_dist.trained import Trained

SHOWN = 10


@dataclass
class Settings(TaskSettings):
    """How many images."""

    n: int = setting(500, "held-out images", unit="images", ge=1)


def fits(model: Trained) -> str | None:
    """Images."""
    return None if len(model.shape) == 3 else "PSNR and SSIM are of images; this run's are vectors"


def run(job: Job[Settings]) -> Result:
    """Encode, decode, refine; compare."""
    settings, model = job.settings, job.model
    x, c = held_out(model, settings.n, settings.seed)
    batches = []
    for start in range(0, len(x), settings.batch_size):
        job.progress("images", start, len(x))
        rows = slice(start, start + settings.batch_size)
        given = None if c is None else c[rows]
        batches.append(
            job.part(f"{start}", lambda r=rows, g=given, s=start: pass_through(job, x[r], g, s))  # type: ignore[misc]
        )
    job.progress("images", len(x), len(x))
    scores = {name: torch.cat([b[name] for b in batches]) for name in batches[0] if name != "shown"}
    figures: dict[str, Any] = {"n": len(x)}
    figures |= {name: values.double().mean().item() for name, values in scores.items()}
    ahead = scores["psnr_refined"] - scores["psnr_decoded"]
    figures["psnr_gain"] = ahead.mean().item()
    if len(x) > 1:
        figures["psnr_gain_se"] = (ahead.std() / len(x) ** 0.5).item()
    picture = save_chain_strips(
        job.folder / "reconstruction.png",
        list(batches[0]["shown"]),
        ["original", "decoded", "refined"],
        title="Reconstruction",
        caption=caption_line(model.config.name, model.images, job.steps, "held-out images"),
    )
    return Result(figures, [picture])


def pass_through(job: Job[Settings], x: Tensor, c: Tensor | None, start: int) -> dict[str, Tensor]:
    """Scores [B] of one batch x [B, C, H, W], and the first images ``shown`` [3, …]."""
    model, settings = job.model, job.settings
    decoded = model.decode(model.encode(x, c)[0], c)
    refined, _ = model.refine(
        decoded,
        c=c,
        steps=job.steps,
        temperature=settings.temperature,
        seed=stream_seed(settings.seed, "reconstruction", start),
    )
    kinds = {"original": x, "decoded": decoded.cpu(), "refined": refined.cpu()}
    found = {f"energy_{kind}": model.energy(images, c).cpu() for kind, images in kinds.items()}
    for kind in ("decoded", "refined"):
        found[f"mse_{kind}"] = mse(kinds[kind], x)
        found[f"psnr_{kind}"] = psnr(kinds[kind], x)
        if min(x.shape[2:]) >= WINDOW:
            found[f"ssim_{kind}"] = ssim(kinds[kind], x)
    return found | {"shown": torch.stack([images[:SHOWN] for images in kinds.values()])}
