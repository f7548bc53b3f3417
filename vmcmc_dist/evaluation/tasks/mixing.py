"""Mixing: how well chains move, and whether they reach where the data's energy lies.

Chains start at proposals and run ``multiple`` training lengths; the first ``burn_in`` share is
left out of the sample sizes. Figures:

    ess_S, tau_S         effective sample size of all chains together, and integrated
                         autocorrelation time in steps, of each summary S: energy, mean (of all
                         pixels or coordinates), projection_0, …; draws: states that they are of
    tau_within_S         the same time without the variance between chains: how fast a chain
                         forgets its own place, whether or not it leaves its mode
    acceptance           mean MALA acceptance at the training step sizes, along a training chain
                         from proposals, in fp32; acceptance_by_step; acceptance_unclamped without
                         the box [−clamp, clamp], outside of which MALA refuses everything
    mode_jumps           share of chains whose predicted class changed from start to end;
                         transition: counts [start][end]; the same after a training chain
    overlap_A_B          overlap of two energy histograms, from 0 to 1

Energies are of training data, held-out data, proposals and samples.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from vmcmc_dist.data.scaling import to_model_range
from vmcmc_dist.evaluation.autocorrelation import (
    MIN_LENGTH,
    autocorrelation,
    effective_sample_size,
    integrated_time,
)
from vmcmc_dist.evaluation.features import features_for
from vmcmc_dist.evaluation.histograms import overlap
from vmcmc_dist.evaluation.job import Job, Result, TaskSettings
from vmcmc_dist.evaluation.long_chain import energies, segment
from vmcmc_dist.evaluation.mixing_picture import (
    save_autocorrelations,
    save_energy_histograms,
    save_transitions,
)
from vmcmc_dist.evaluation.modes import Jumps
from vmcmc_dist.evaluation.real import held_out, real_images
from vmcmc_dist.langevin import LangevinConfig, Noise, run_chain, stream_seed
from vmcmc_dist.settings import setting
from vmcmc_dist.trained import Trained


@dataclass
class Settings(TaskSettings):
    """How many chains, how long, what is watched."""

    n: int = setting(250, "chains; also samples of each set of energies", unit="samples", ge=2)
    steps: int = setting(0, "length of the chains; 0 = by `multiple`", unit="steps", ge=0)
    multiple: float = setting(20.0, "length of the chains, in training lengths", ge=1)
    burn_in: float = setting(0.5, "share of the chain that is left out of sample sizes", ge=0, lt=1)
    projections: int = setting(3, "random directions that are watched", ge=0, le=64)
    features: str = setting("auto", "net whose classes are the modes; auto: by the data")


def fits(model: Trained) -> str | None:
    """Any model's chains can be watched."""
    return None


def run(job: Job[Settings]) -> Result:
    """Run the chains, then look at them."""
    settings, model = job.settings, job.model
    real, c = held_out(model, settings.n, settings.seed)
    n, length = len(real), chain_length(job)
    starts = model.propose(n, c=c, seed=stream_seed(settings.seed, "mixing"))
    chain = watched_chains(job, starts, c, length)
    acceptance, unclamped = acceptances(job, starts, c)

    figures: dict[str, Any] = {"chains": n, "steps": length, "temperature": temperature(job)}
    rhos = sample_sizes(chain, model.shape, settings, figures)
    figures |= {
        "acceptance": None if acceptance is None else acceptance.mean().item(),
        "acceptance_by_step": None if acceptance is None else acceptance.tolist(),
        "acceptance_unclamped": None if unclamped is None else unclamped.mean().item(),
    }
    figures = {name: value for name, value in figures.items() if value is not None}

    train = real_images(model.config.data, "train", limit=n, seed=settings.seed).images
    sets = {
        "held out": energies(model, real, c),
        "proposals": energies(model, starts, c),
        "samples": energies(model, chain["trained"], c),
        "long chains": energies(model, chain["end"], c),
    }
    if c is None:
        sets["training"] = energies(model, to_model_range(train))
    for (a, u_a), (b, u_b) in combinations(sets.items(), 2):
        name = f"overlap_{a}_{b}".replace(" ", "_")
        figures[name] = overlap(u_a, u_b, bins=30)
    pictures = [
        save_autocorrelations(job.folder / "autocorrelation.png", rhos, caption(job)),
        save_energy_histograms(job.folder / "energies.png", sets, caption(job)),
    ]
    if len(model.shape) == 3:
        jumps = mode_jumps(job, starts, chain)
        for name, jump in jumps.items():
            figures[f"mode_jumps{name}"] = jump.share
            figures[f"transition{name}"] = jump.counts.tolist()
            figures[f"confidence_start{name}"] = jump.confidence_start
            figures[f"confidence_end{name}"] = jump.confidence_end
        if jumps:
            path = job.folder / "transitions.png"
            pictures.append(save_transitions(path, jumps, model, length, caption(job)))
    return Result(figures, pictures, note=note(job))


def chain_length(job: Job[Settings]) -> int:
    """Steps of the watched chains; long enough for an autocorrelation behind the burn-in."""
    trained = max(1, job.model.config.langevin.steps)
    least = MIN_LENGTH / (1 - job.settings.burn_in) + 1
    wanted = job.settings.steps or round(job.settings.multiple * trained)
    return max(wanted, trained, int(least) + 1)


def watched_chains(
    job: Job[Settings], starts: Tensor, c: Tensor | None, length: int
) -> dict[str, Tensor]:
    """States after the training chain and at the end; every step's summaries [chains, steps]."""
    settings, model = job.settings, job.model
    trained = max(1, model.config.langevin.steps)
    look = summaries(model, settings)
    parts = []
    for start in range(0, len(starts), settings.batch_size):
        rows = slice(start, start + settings.batch_size)
        given = None if c is None else c[rows]
        seed = stream_seed(settings.seed, "mixing", start)
        job.progress("chains", start, len(starts))

        def compute(
            x: Tensor = starts[rows], given: Tensor | None = given, seed: int = seed
        ) -> dict[str, Tensor]:
            seen: list[Tensor] = []

            def note_down(step: int, x: Tensor, u: Tensor, grad: Tensor) -> None:
                seen.append(look(x, u))

            go = partial(
                segment, c=given, temperature=settings.temperature, seed=seed, callback=note_down
            )
            middle = go(model, x, 0, trained)
            end = go(model, middle, trained, length) if length > trained else middle
            return {"trained": middle, "end": end, "series": torch.stack(seen, 1)}

        parts.append(job.part(f"chains-{start}", compute))
    return {name: torch.cat([p[name].cpu() for p in parts]) for name in parts[0]}


def summaries(model: Trained, settings: Settings) -> Callable[[Tensor, Tensor], Tensor]:
    """(x [B, …], U [B]) → [B, 2 + projections]: U, the mean, ⟨x, v⟩ with |v| = 1."""
    noise = Noise(stream_seed(settings.seed, "directions"))
    size = torch.Size(model.shape).numel()
    directions = torch.nn.functional.normalize(noise.normal((settings.projections, size)), dim=1)
    directions = directions.to(model.device)

    def look(x: Tensor, u: Tensor) -> Tensor:
        flat = x.flatten(1)
        return torch.cat([u[:, None], flat.mean(1, keepdim=True), flat @ directions.T], 1).cpu()

    return look


def sample_sizes(
    chain: dict[str, Tensor], shape: tuple[int, ...], settings: Settings, figures: dict[str, Any]
) -> dict[str, Tensor]:
    """Autocorrelations by summary, all chains together and within one; times and sizes into
    ``figures``."""
    series = chain["series"]
    series = series[:, int(settings.burn_in * series.shape[1]) :]
    figures["draws"] = series.shape[0] * series.shape[1]
    names = ["energy", "mean", *(f"projection_{k}" for k in range(settings.projections))]
    rhos = {}
    for k, name in enumerate(names):
        rhos[name] = torch.stack(
            [autocorrelation(series[:, :, k], between=between) for between in (True, False)]
        )
        figures[f"ess_{name}"] = effective_sample_size(series[:, :, k])
        figures[f"tau_{name}"], figures[f"tau_within_{name}"] = map(integrated_time, rhos[name])
    return rhos


def acceptances(
    job: Job[Settings], starts: Tensor, c: Tensor | None
) -> tuple[Tensor | None, Tensor | None]:
    """Mean acceptance of each step of a MALA chain at the training step sizes, with and without
    the box; None where the chain has no noise."""
    model, settings = job.model, job.settings
    config = model.chain_config(max(1, model.config.langevin.steps), settings.temperature)
    if config.temperature == 0:
        return None, None
    config = dataclasses.replace(config, adjusted=True)
    free = dataclasses.replace(config, clamp=None)

    def compute() -> dict[str, Tensor]:
        return {
            "as it is": acceptance(model, starts, config, c, settings.seed),
            "unclamped": acceptance(model, starts, free, c, settings.seed),
        }

    found = job.part("acceptance", compute)
    return found["as it is"], (None if config.clamp is None else found["unclamped"])


def acceptance(
    model: Trained, starts: Tensor, config: LangevinConfig, c: Tensor | None, seed: int
) -> Tensor:
    """Mean acceptance probability of each step [T], chains from ``starts``, in fp32."""
    noise = Noise(stream_seed(seed, "acceptance"), model.device)
    condition = None if c is None else c.to(model.device)
    _, info = run_chain(
        model.energy_net, starts.to(model.device), config, noise, condition=condition
    )
    assert info.acceptance is not None
    return info.acceptance


def mode_jumps(job: Job[Settings], starts: Tensor, chain: dict[str, Tensor]) -> dict[str, Jumps]:
    """Jumps over the whole chain (""), and over a training chain; none without classes."""
    features = features_for(
        job.model.config.data,
        job.settings.features,
        device=job.model.device,
        progress=lambda done, total, _: job.progress("classifier", done, total),
    )
    if features.classes is None:
        return {}
    first, middle, last = (features(x)[1] for x in (starts, chain["trained"], chain["end"]))
    assert first is not None and middle is not None and last is not None
    return {"": Jumps.of(first, last), "_trained": Jumps.of(first, middle)}


def temperature(job: Job[Settings]) -> float:
    """Of the chains."""
    return job.model.chain_config(temperature=job.settings.temperature).temperature


def note(job: Job[Settings]) -> str:
    """What the figures cannot say."""
    lines = [
        "Sample sizes count draws of where these chains are, not of the model: modes that no "
        "chain has visited are not missed by them."
    ]
    if temperature(job) == 0:
        lines.append("Without noise (temperature 0) there is no acceptance to measure.")
    elif job.model.config.langevin.clamp is not None:
        lines.append(
            "The run clamps its chains to a box; MALA samples inside it and refuses every step "
            "that leaves it, so its acceptance there is near 0 for images."
        )
    return " ".join(lines)


def caption(job: Job[Settings]) -> str:
    """The line under a picture."""
    model = job.model
    return (
        f"{model.config.name} · {model.images:,} images seen · {chain_length(job)} steps, trained "
        f"with {model.config.langevin.steps} · temperature {temperature(job):g}"
    )
