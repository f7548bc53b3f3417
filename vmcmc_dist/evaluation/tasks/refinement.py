"""Refinement: what a chain does to a proposal, and whether a far longer one keeps or ruins it.

Lengths are multiples of the training length, ``langevin.steps``; beyond it the chain goes on at
its last step size. Figures, lists in the order of ``lengths`` (steps; 0 = the proposals):

    fd_NET               Fréchet distance to training data in the features NET
    fd_NET_held_out      the same of as many held-out real images: the mark to reach
    energy, energy_std   mean and std of U among the chains
    energy_data          mean U of held-out data
    spread               std among the samples, mean over pixels; spread_data: of held-out data
    best_length          where the distance is least
    kept                 fd at the longest chain ≤ fd of the proposals: the landscape holds
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from vmcmc_dist.errors import ConfigError
from vmcmc_dist.evaluation.features import Features, features_for
from vmcmc_dist.evaluation.job import Job, Result, TaskSettings
from vmcmc_dist.evaluation.long_chain import energies, segment
from vmcmc_dist.evaluation.metrics import frechet_distance
from vmcmc_dist.evaluation.real import held_out
from vmcmc_dist.evaluation.reference import Reference, reference_for
from vmcmc_dist.evaluation.refinement_picture import save_length_curves, save_strips
from vmcmc_dist.evaluation.scores import Scores, enough_for_covariance
from vmcmc_dist.langevin import stream_seed
from vmcmc_dist.settings import setting
from vmcmc_dist.trained import Trained

COLUMNS = 9  # states shown of the training chain


@dataclass
class Settings(TaskSettings):
    """How far, how many, judged in what."""

    n: int = setting(500, "chains", unit="samples", ge=2)
    steps: int = setting(0, "one more length of the chains; 0 = none", unit="steps", ge=0)
    multiples: list[float] = setting(
        [1, 2, 5, 10, 20, 50, 100], "lengths, in training lengths", ge=1
    )
    features: str = setting("auto", "net of the Fréchet distance; auto: by the data")
    shown: int = setting(8, "chains in the strips", ge=1, le=32)


def fits(model: Trained) -> str | None:
    """Images; the plane has its exact divergences."""
    if len(model.shape) != 3:
        return "on the plane the task geometry computes what a chain does exactly"
    return None


def run(job: Job[Settings]) -> Result:
    """Strips of the training chain, long chains, and their curves."""
    features = features_for(
        job.model.config.data,
        job.settings.features,
        device=job.model.device,
        progress=lambda done, total, _: job.progress("classifier", done, total),
    )
    enough_for_covariance(features, job.settings.n)
    lengths = chain_lengths(job)
    real, c = held_out(job.model, job.settings.n, job.settings.seed)
    reference = reference_for(job.model.config.data, features, job.progress)
    states = long_chains(job, lengths, c, len(real))

    name = f"fd_{features.name}"
    energy = [energies(job.model, x, c) for x in states]
    distances = [distance(features, x, reference) for x in states]
    figures: dict[str, Any] = {
        "lengths": lengths,
        "training_length": job.model.config.langevin.steps,
        name: distances,
        f"{name}_held_out": distance(features, real, reference),
        "energy": [u.mean().item() for u in energy],
        "energy_std": [u.std().item() for u in energy],
        "energy_data": energies(job.model, real, c).mean().item(),
        "spread": [x.std(0).mean().item() for x in states],
        "spread_data": real.std(0).mean().item(),
        "best_length": lengths[min(range(len(lengths)), key=distances.__getitem__)],
        "kept": distances[-1] <= distances[0],
        "n": len(real),
        "reference_n": reference.n,
    }
    pictures = [
        training_strips(job, c),
        long_strips(job, lengths, states, energy),
        save_length_curves(job.folder / "lengths.png", figures, name, caption(job)),
    ]
    return Result(figures, pictures, note=NOTE)


NOTE = (
    "Fréchet distances fall with the number of samples: compare those of one n only. "
    "Beyond the training length the chain leaves what the energy was taught on."
)


def chain_lengths(job: Job[Settings]) -> list[int]:
    """Steps, from 0 (the proposals) and the training length to the longest chain."""
    trained = job.model.config.langevin.steps
    if trained < 1:
        raise ConfigError("the run's chains have no steps (langevin.steps=0): nothing to refine")
    extra = job.settings.steps
    if extra < trained and extra and job.model.config.langevin.schedule != "constant":
        raise ConfigError(
            f"steps={extra}: the step size of this run's chains falls along their {trained} steps; "
            f"give {trained} or more"
        )
    return sorted({0, trained, extra, *(round(m * trained) for m in job.settings.multiples)})


def long_chains(job: Job[Settings], lengths: list[int], c: Tensor | None, n: int) -> list[Tensor]:
    """The states [n, …] of all chains at each length; each segment of each batch is a part."""
    settings, model = job.settings, job.model
    batches = range(0, n, settings.batch_size)
    states: list[list[Tensor]] = [[] for _ in lengths]
    for number, start in enumerate(batches):
        rows = slice(start, min(start + settings.batch_size, n))
        given = None if c is None else c[rows]
        seed = stream_seed(settings.seed, "refinement", start)
        x = model.propose(rows.stop - start, c=given, seed=seed)
        states[0].append(x.cpu())
        for k, (begin, end) in enumerate(pairwise(lengths), 1):
            job.progress("long chains", number * lengths[-1] + begin, len(batches) * lengths[-1])

            def compute(
                x: Tensor = x, begin: int = begin, end: int = end,
                given: Tensor | None = given, seed: int = seed,
            ) -> dict[str, Tensor]:  # fmt: skip
                temperature = settings.temperature
                return {
                    "x": segment(model, x, begin, end, c=given, temperature=temperature, seed=seed)
                }

            x = job.part(f"chains-{start}-{begin}-{end}", compute)["x"]
            states[k].append(x.cpu())
    return [torch.cat(parts) for parts in states]


def distance(features: Features, x: Tensor, reference: Reference) -> float:
    """Fréchet distance of samples x [N, C, H, W] to the training data."""
    scores = Scores.empty(features)
    scores.add(x)
    real = reference.scores.moments
    return frechet_distance(*scores.moments.moments(), *real.moments())


def training_strips(job: Job[Settings], c: Tensor | None) -> Any:
    """Rows: chains; columns: steps of the training chain, evenly spread; U under every image."""
    settings, model = job.settings, job.model
    steps = model.config.langevin.steps
    keep = sorted({round(i * steps / (COLUMNS - 1)) for i in range(COLUMNS)})
    given = None if c is None else c[: settings.shown]
    shown = settings.shown if given is None else len(given)
    seed = stream_seed(settings.seed, "refinement", 0)
    kept: dict[int, Tensor] = {}

    def look(step: int, x: Tensor, u: Tensor, grad: Tensor) -> None:
        if step in keep:
            kept[step] = x.cpu().clone()

    x = model.propose(shown, c=given, seed=seed)
    kept[steps] = segment(
        model, x, 0, steps, c=given, temperature=settings.temperature, seed=seed, callback=look
    ).cpu()
    states = [kept[step] for step in keep]
    return save_strips(
        job.folder / "strip.png",
        states,
        [energies(model, x, given) for x in states],
        keep,
        title="From proposal to sample",
        caption=caption(job),
    )


def long_strips(
    job: Job[Settings], lengths: list[int], states: list[Tensor], energy: list[Tensor]
) -> Any:
    """The same for the long run."""
    shown = job.settings.shown
    return save_strips(
        job.folder / "long_strip.png",
        [x[:shown] for x in states],
        [u[:shown] for u in energy],
        lengths,
        title=f"Beyond the training length of {job.model.config.langevin.steps} steps",
        caption=caption(job),
    )


def caption(job: Job[Settings]) -> str:
    """The line under a picture."""
    model = job.model
    temperature = model.chain_config(temperature=job.settings.temperature).temperature
    return f"{model.config.name} · {model.images:,} images seen · temperature {temperature:g}"
