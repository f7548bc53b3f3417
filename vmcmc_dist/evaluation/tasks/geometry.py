"""Geometry: the alternating projection on the plane, after each half of an iteration.

From a checkpoint (or, with ``from_start``, from new nets) teaching goes on for a few iterations on
copies; after the energy's half and after the VAE's the divergences are computed by quadrature:

    KL(p_data ‖ p_θ)      what the energy is after           kl_data_model
    KL(p_θ ‖ p_α)         between the two models             kl_model_sampler
    KL(M_θp_α ‖ p_θ)      what chains leave undone           kl_revised_model

Figures: the three as lists over ``iteration`` (in steps of ½) and ``half`` (which half came
before), in nats; ``change_KL_HALF`` is the mean change of a KL by a half, over the measured ones.
The run itself is not changed.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, cast

import torch
from torch import Tensor

from vmcmc_dist.evaluation.geometry_picture import KLS, save_phase, save_zigzag
from vmcmc_dist.evaluation.job import Job, Result, TaskSettings
from vmcmc_dist.evaluation.projection import Half, HalfStep, Projection
from vmcmc_dist.evaluation.quadrature import Divergences
from vmcmc_dist.langevin import stream_seed
from vmcmc_dist.models import VAE, build_energy, build_vae
from vmcmc_dist.settings import setting
from vmcmc_dist.trained import Trained

HALVES: tuple[Half, ...] = ("start", "energy", "vae")


@dataclass
class Settings(TaskSettings):
    """How long, how finely, from where."""

    from_start: bool = setting(False, "new nets instead of the checkpoint's; shows it converge")
    iterations: int = setting(
        0, "iterations of teaching; 0 = 20 from a checkpoint, 60 from the start", ge=0
    )
    repeats: int = setting(
        0,
        "steps of Adam in each half; 1 is training's own iteration, many come nearer to whole "
        "projections; 0 = 1 from a checkpoint, 10 from the start",
        ge=0,
    )
    every: int = setting(0, "measure one iteration in this many; 0 = so that about 20 are", ge=0)
    lr_scale: float = setting(
        0.0, "times the run's learning rates; 0 = 0.03 from a checkpoint, 1 from the start", ge=0
    )
    particles: int = setting(2**12, "chains of the quadrature", unit="particles", ge=256)


def fits(model: Trained) -> str | None:
    """2-D densities that are known."""
    if model.config.data.source != "toy2d":
        return "divergences are computed by quadrature on the plane: a run of configs/toy2d.yaml"
    return None


def run(job: Job[Settings]) -> Result:
    """Walk, then draw the zig-zag and the phase plot."""
    halves = walk(job)
    figures: dict[str, Any] = {
        "from_start": job.settings.from_start,
        "iteration": [step.iteration for step in halves],
        "half": [step.half for step in halves],
        "lr_scale": lr_scale(job.settings),
        "repeats": repeats(job.settings),
    }
    for name in KLS:
        values = [getattr(step.divergences, name) for step in halves]
        figures[f"kl_{name}"] = [v if math.isfinite(v) else None for v in values]
        figures |= {f"change_{name}_{half}": v for half, v in changes(halves, name).items()}
    title = f"{job.model.config.name} · {origin(job)}"
    pictures = [
        save_zigzag(job.folder / "zigzag.png", halves, title),
        save_phase(job.folder / "phase.png", halves, title),
    ]
    return Result(figures, pictures, note=NOTE)


NOTE = (
    "Adam begins with new moments, and the half-steps are its steps, not full projections: a half "
    "can raise a divergence that only the other half lowers."
)


def walk(job: Job[Settings]) -> list[HalfStep]:
    """All measured half-steps; each block of iterations is a part that keeps the nets."""
    settings, model = job.settings, job.model
    iterations = settings.iterations or (60 if settings.from_start else 20)
    every = settings.every or max(1, iterations // 20)
    energy_net, vae = nets(job)
    projection = Projection(
        model.config,
        energy_net,
        vae,
        images=0 if settings.from_start else model.images,
        repeats=repeats(settings),
        lr_scale=lr_scale(settings),
        total=iterations if settings.from_start else 0,
        particles=settings.particles,
        seed=settings.seed,
    )
    halves = list(projection.halves)
    block = max(every, iterations // 10 // every * every)
    for begin in range(0, iterations, block):
        end = min(begin + block, iterations)

        def compute(begin: int = begin, end: int = end) -> dict[str, Tensor]:
            projection.halves = []
            for k in range(begin, end):
                projection.iterate(measured=(k + 1) % every == 0)
                job.progress("half-iterations", 2 * (k + 1), 2 * iterations)
            return {"rows": rows(projection.halves)} | projection.state()

        found = job.part(f"walk-{begin}-{end}", compute)
        halves += half_steps(found.pop("rows"))
        projection.load(found)
    return halves


def nets(job: Job[Settings]) -> tuple[torch.nn.Module, VAE]:
    """The checkpoint's nets, or new ones."""
    model = job.model
    if not job.settings.from_start:
        return model.energy_net, model.vae
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(job.settings.seed, "new nets"))
        energy_net = build_energy(model.config.energy, model.shape)
        vae = build_vae(model.config.vae, model.shape)
    return energy_net.to(model.device), vae.to(model.device)


def rows(halves: list[HalfStep]) -> Tensor:
    """float64 [H, 2 + fields]: iteration, half, divergences."""
    numbers = [
        [step.iteration, HALVES.index(step.half), *asdict(step.divergences).values()]
        for step in halves
    ]
    return torch.tensor(numbers, dtype=torch.float64)


def half_steps(table: Tensor) -> list[HalfStep]:
    """The inverse of :func:`rows`."""
    steps = []
    for iteration, half, images, *values in table.tolist():
        divergences = Divergences(int(images), *values)
        steps.append(HalfStep(iteration, HALVES[int(half)], divergences))
    return steps


def changes(halves: list[HalfStep], name: str) -> dict[str, float]:
    """Mean change of a KL by each half, where the measurement before it is half a step away."""
    found: dict[str, list[float]] = {}
    for before, after in zip(halves, halves[1:], strict=False):
        change = getattr(after.divergences, name) - getattr(before.divergences, name)
        if after.iteration - before.iteration == 0.5 and math.isfinite(change):
            found.setdefault(cast(str, after.half), []).append(change)
    return {half: math.fsum(values) / len(values) for half, values in found.items()}


def lr_scale(settings: Settings) -> float:
    """Factor of the learning rates that is used."""
    return settings.lr_scale or (1.0 if settings.from_start else 0.03)


def repeats(settings: Settings) -> int:
    """Steps of Adam in a half that are used."""
    return settings.repeats or (10 if settings.from_start else 1)


def origin(job: Job[Settings]) -> str:
    """Where the walk began, in words."""
    start = "the start" if job.settings.from_start else f"{job.model.images:,} images"
    return f"from {start}, {repeats(job.settings)} steps of Adam a half"
