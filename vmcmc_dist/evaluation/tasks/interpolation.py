"""Interpolation: paths between codes z ~ N(0, I), linear and spherical, decoded and refined.

Along a path every chain has the same noise, so that neighbours differ by their codes alone.
Figures, for each MODE (linear, spherical), over all pairs:

    energy_decoded_MODE, energy_refined_MODE   mean U at each point of the path: lists
    stride_decoded_MODE, stride_refined_MODE   mean L2 distance between neighbouring images
    jump_decoded_MODE, jump_refined_MODE       longest stride of a path over its mean: 1 = even
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vmcmc_dist.evaluation.job import Job, Result, TaskSettings
from vmcmc_dist.evaluation.paths import MODES, path, strides
from vmcmc_dist.evaluation.pictures import caption_line, save_grid
from vmcmc_dist.evaluation.real import held_out
from vmcmc_dist.langevin import Noise, stream_seed
from vmcmc_dist.settings import setting
from vmcmc_dist.trained import Trained


@dataclass
class Settings(TaskSettings):
    """How many paths, how fine."""

    n: int = setting(32, "pairs of codes", unit="pairs", ge=1)
    points: int = setting(9, "images along a path, both ends included", unit="images", ge=2)
    shown: int = setting(6, "pairs in the pictures", unit="pairs", ge=1)


def fits(model: Trained) -> str | None:
    """Images; on the plane a path between codes shows nothing."""
    return None if len(model.shape) == 3 else "paths are drawn as images; this run's are vectors"


def run(job: Job[Settings]) -> Result:
    """Both kinds of paths between the same pairs."""
    settings, model = job.settings, job.model
    z0, z1 = ends(model, settings.n, settings.seed)
    c = conditions(model, settings.n, settings.seed)
    figures: dict[str, Any] = {"n": settings.n, "points": settings.points}
    pictures = []
    for mode in MODES:
        codes = path(z0, z1, settings.points, mode)
        images = job.part(mode, lambda z=codes, m=mode: travel(job, z, c, m))  # type: ignore[misc]
        for kind in ("decoded", "refined"):
            x = images[kind]
            length = strides(x)
            figures[f"energy_{kind}_{mode}"] = images[f"energy_{kind}"].mean(1).tolist()
            figures[f"stride_{kind}_{mode}"] = length.mean().item()
            mean = length.mean(0).clamp_min(torch.finfo(length.dtype).tiny)
            figures[f"jump_{kind}_{mode}"] = (length.amax(0) / mean).mean().item()
        pictures.append(draw(job, mode, images["decoded"], images["refined"]))
    return Result(figures, pictures)


def ends(model: Trained, n: int, seed: int) -> tuple[Tensor, Tensor]:
    """The two codes of each pair, [n, d] each."""
    d = model.vae.latent_dim
    return tuple(  # type: ignore[return-value]
        Noise(stream_seed(seed, "interpolation", end), model.device).normal((n, d))
        for end in ("first", "last")
    )


def conditions(model: Trained, n: int, seed: int) -> Tensor | None:
    """One condition per pair, of held-out data: a path varies the code and keeps what is asked."""
    if model.condition is None:
        return None
    c = held_out(model, n, seed)[1]
    assert c is not None
    return c[torch.arange(n) % len(c)]


def travel(job: Job[Settings], codes: Tensor, c: Tensor | None, mode: str) -> dict[str, Tensor]:
    """Decoded and refined images [points, n, C, H, W] at codes [points, n, d], and energies.

    One call of the chain per point with the same seed for all: pair k has its own noise, the same
    at every point.
    """
    settings, model = job.settings, job.model
    found: dict[str, list[Tensor]] = {
        name: [] for name in ("decoded", "refined", "energy_decoded", "energy_refined")
    }
    for number, z in enumerate(codes):
        job.progress(f"{mode} path", number, len(codes))
        here: dict[str, list[Tensor]] = {name: [] for name in found}
        for start in range(0, len(z), settings.batch_size):
            rows = slice(start, start + settings.batch_size)
            given = None if c is None else c[rows]
            decoded = model.decode(z[rows], given)
            refined, _ = model.refine(
                decoded,
                c=given,
                steps=job.steps,
                temperature=settings.temperature,
                seed=stream_seed(settings.seed, "interpolation", start),
            )
            here["decoded"].append(decoded)
            here["refined"].append(refined)
            here["energy_decoded"].append(model.energy(decoded, given))
            here["energy_refined"].append(model.energy(refined, given))
        for name, parts in here.items():
            found[name].append(torch.cat(parts).cpu())
    return {name: torch.stack(parts) for name, parts in found.items()}


def draw(job: Job[Settings], mode: str, decoded: Tensor, refined: Tensor) -> Path:
    """Two rows per pair: decoded above, refined below."""
    shown = min(job.settings.shown, decoded.shape[1])
    rows = torch.stack([decoded[:, :shown], refined[:, :shown]])  # [2, points, pairs, C, H, W]
    images = rows.permute(2, 0, 1, 3, 4, 5).flatten(0, 2)
    model = job.model
    line = caption_line(model.config.name, model.images, job.steps)
    return save_grid(
        job.folder / f"{mode}.png",
        images,
        title=f"Interpolation · {mode} in z",
        caption=f"{line}\nTwo rows per pair: decoded above, refined below.",
        columns=decoded.shape[0],
    )
