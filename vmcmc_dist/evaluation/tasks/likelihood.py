"""log Z and the test log likelihood of exp(−U/T)/Z, by annealing from both sides.

Figures, in nats unless named otherwise (``_se``: standard error over chains or data):

    log_z_ais                   log of the mean forward weight, → log Z
    log_z_lower, log_z_upper    stochastic bounds: mean forward, mean reverse log weight
    log_z_gap                   upper − lower
    log_z_quadrature            on the plane: the truth; log_z_error = log_z_ais − it
    log_p_lower, log_p_upper    mean over test data of −U/T − log Z, with both bounds of log Z
                                (the lower one only where the bounds of log Z are in order)
    bpd_lower, bpd_upper        images: −log p/(D ln 2) + 7 bits per dimension
    vae_elbo, vae_iwae          the VAE's bounds on the same data (bpd_vae_…, above its true value)
    log_p_gaussian              of the same data under a diagonal Gaussian fitted to training data
    log_p_data                  on the plane: under the density the data come from

Pixels are dequantised: level k of 256 becomes (k + u)/128 − 1, u uniform on [0, 1), which fills
[−1, 1] exactly; the uniform density has 8 bits per dimension.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from vmcmc_dist.data import density
from vmcmc_dist.data.scaling import to_model_range
from vmcmc_dist.errors import ConfigError
from vmcmc_dist.evaluation.ais import Bridge, Estimate, Spacing, estimate
from vmcmc_dist.evaluation.ais_parts import Ladder, grid_samples
from vmcmc_dist.evaluation.ais_start import Start, UniformStart, fit_gaussian
from vmcmc_dist.evaluation.elbo import elbo, iwae
from vmcmc_dist.evaluation.job import Job, Result, TaskSettings
from vmcmc_dist.evaluation.likelihood_picture import save_likelihood_picture
from vmcmc_dist.evaluation.quadrature import Grid, log_z
from vmcmc_dist.evaluation.real import held_out, held_out_name, real_images
from vmcmc_dist.langevin import Noise, stream_seed
from vmcmc_dist.settings import setting
from vmcmc_dist.trained import Trained

FITTED = 5000  # training samples that a Gaussian is fitted to
LN2 = math.log(2)
TIE = 0.05  # nats that closed bounds may cross by


@dataclass
class Settings(TaskSettings):
    """How finely the path is cut, and what starts it."""

    n: int = setting(1000, "test samples", unit="samples", ge=2)
    chains: int = setting(0, "in each direction; 0 = 64 for images, 2048 on the plane", ge=0)
    levels: int = setting(1000, "K, steps of β; the picture shows K/10 and 3K/10 as well", ge=10)
    moves: int = setting(1, "adjusted steps at each level", ge=1)
    burn: int = setting(200, "adjusted steps at β = 1 on the samples that go backwards", ge=1)
    longer: int = setting(
        20, "images: samples that go backwards begin as chains this many times as long", ge=1
    )
    spacing: Spacing = setting("adaptive", "of the levels: by a pilot, sigmoid or linear in β")
    start: Literal["auto", "uniform", "gaussian"] = setting(
        "auto", "uniform on the box, or a Gaussian fitted to data; auto: uniform where clamped"
    )
    importance: int = setting(50, "draws of z for the VAE's importance-weighted bound", ge=1)


def fits(model: Trained) -> str | None:
    """A density of x alone, in whose box the data lie."""
    if model.condition is not None:
        return "log Z of a conditional model is another one for every condition"
    clamp = model.config.langevin.clamp
    if clamp is not None and len(model.shape) == 3 and clamp < 1:
        return f"data in [-1, 1] lie outside the box of langevin.clamp={clamp:g}"
    return None


def run(job: Job[Settings]) -> Result:
    """Three ladders of levels in both directions, the test data, and the picture."""
    model, settings = job.model, job.settings
    temperature = chosen_temperature(job)
    bridge = make_bridge(job, temperature)
    plane = model.shape == (2,)
    chains = settings.chains or (2048 if plane else 64)
    ladder = Ladder(job, bridge, chains, plane=plane)
    samples = ladder.burnt(model_samples(job, bridge, chains))
    found = {}
    for k in ladder.lengths:
        forward, reverse = ladder.climb(k), ladder.descend(k, samples)
        found[k] = (estimate(forward.log_w, job.settings.seed), estimate(reverse.log_w))

    figures: dict[str, Any] = {
        "temperature": temperature,
        "start": type(bridge.start).__name__.removesuffix("Start").lower(),
        "chains": chains,
        "levels": settings.levels,
        "acceptance": float(forward.acceptance.mean()),
        "acceptance_reverse": float(reverse.acceptance.mean()),
        **log_z_figures(*found[settings.levels]),
        "levels_curve": list(found),
        "lower_curve": [up.mean for up, _ in found.values()],
        "upper_curve": [-down.mean for _, down in found.values()],
    }
    truth = None
    if plane:
        grid = Grid(extent=bridge.clamp or 16.0, n=640)
        truth = log_z(lambda x: model.energy(x) / temperature, grid, model.device)
        figures |= {"log_z_quadrature": truth, "log_z_error": figures["log_z_ais"] - truth}
    figures |= likelihood_figures(job, temperature, figures)
    picture = save_likelihood_picture(
        job.folder / "likelihood.png",
        found,
        forward.log_w,
        reverse.log_w,
        truth=truth,
        curve=temperature_curve(job, bridge, forward.profile, figures),
        caption=f"T = {temperature:g} · {chains} chains each way · start: {figures['start']}",
    )
    return Result(figures, [picture], note=caveats(job, figures))


def chosen_temperature(job: Job[Settings]) -> float:
    """As asked for, else the chain's; 1 for chains without noise."""
    asked = job.settings.temperature
    if asked == 0:
        raise ConfigError("exp(-U/T) is no density at T = 0: set temperature above 0")
    return asked or job.model.config.langevin.temperature or 1.0


def make_bridge(job: Job[Settings], temperature: float) -> Bridge:
    """From the start asked for to the model's energy net in float32."""
    model, chain = job.model, job.model.config.langevin
    kind = job.settings.start
    start: Start
    if kind == "uniform" or (kind == "auto" and chain.clamp is not None):
        if chain.clamp is None:
            raise ConfigError("start=uniform needs a box; this run has no langevin.clamp")
        start = UniformStart(model.shape, chain.clamp)
    else:
        x = training_data(job).to(model.device)
        start = fit_gaussian(x, widen=1.5, floor=0.1, clamp=chain.clamp)
    return Bridge(start, model.energy_net, temperature, chain.reference_std, chain.clamp)


def model_samples(job: Job[Settings], bridge: Bridge, chains: int) -> Tensor:
    """Where reverse chains come from: exact on the plane; else long chains of the model."""
    if job.model.shape == (2,):
        grid = Grid(extent=bridge.clamp or 8.0, n=320)
        noise = Noise(stream_seed(job.settings.seed, "grid"))
        return grid_samples(lambda x: job.model.energy(x) / bridge.temperature, grid, chains, noise)
    size, steps = job.settings.batch_size, job.settings.longer * job.steps

    def refined(batch: int, rows: int) -> dict[str, Tensor]:
        seed = stream_seed(job.settings.seed, "likelihood", batch)
        return {"x": job.model.sample(rows, steps=steps, seed=seed)}

    parts = [
        job.part(f"refined-{b}", partial(refined, b, min(size, chains - at)))["x"]
        for b, at in enumerate(range(0, chains, size))
    ]
    return torch.cat([x.cpu() for x in parts])


def training_data(job: Job[Settings]) -> Tensor:
    """Training samples in the nets' range."""
    data = job.model.config.data
    return to_model_range(real_images(data, "train", limit=FITTED).images)


def test_data(job: Job[Settings]) -> Tensor:
    """Held-out samples; pixels dequantised."""
    x, _ = held_out(job.model, job.settings.n, job.settings.seed)
    if len(job.model.shape) != 3:
        return x
    return dequantised(x, Noise(stream_seed(job.settings.seed, "dequantise")))


def dequantised(x: Tensor, noise: Noise) -> Tensor:
    """(k + u)/128 − 1 of pixels k/127.5 − 1, k = 0 … 255 and u uniform on [0, 1)."""
    level = ((x + 1) * 127.5).round()
    return (level + noise.uniform(x.shape)) / 128 - 1


def log_z_figures(forward: Estimate, reverse: Estimate) -> dict[str, float]:
    """Estimates of both directions by the names of the record."""
    return {
        "log_z_ais": forward.log_mean,
        "log_z_ais_se": forward.log_mean_se,
        "log_z_ess": forward.ess,
        "log_z_lower": forward.mean,
        "log_z_lower_se": forward.mean_se,
        "log_z_upper": -reverse.mean,
        "log_z_upper_se": reverse.mean_se,
        "log_z_gap": -reverse.mean - forward.mean,
    }


def likelihood_figures(
    job: Job[Settings], temperature: float, found: dict[str, Any]
) -> dict[str, Any]:
    """The test data under the model, the VAE and what they are to be held against."""
    model, settings = job.model, job.settings
    x = test_data(job)

    def scored(batch: int, part: Tensor) -> dict[str, Tensor]:
        seed = stream_seed(settings.seed, "bound", batch)
        return {
            "energy": model.energy(part) / temperature,
            "elbo": elbo(model, part, seed=seed),
            "iwae": iwae(model, part, settings.importance, seed=seed),
        }

    parts = []
    for b, part in enumerate(x.split(settings.batch_size)):
        job.progress("test data", b * settings.batch_size, len(x))
        parts.append(job.part(f"test-{b}", partial(scored, b, part)))
    scores = {name: torch.cat([p[name].cpu() for p in parts]).double() for name in parts[0]}
    energy = scores["energy"]
    gaussian = fit_gaussian(
        training_data(job), widen=1, floor=1 / 255, clamp=model.config.langevin.clamp
    )
    plain = -gaussian.energy_and_grad(x)[0]
    figures: dict[str, Any] = {
        "n": len(x),
        "data": held_out_name(model.config.data),
        "test_energy": float(energy.mean()),
        "test_energy_se": float(energy.std() / math.sqrt(len(x))),
        "log_p_upper": -float(energy.mean()) - found["log_z_lower"],
        "vae_elbo": float(scores["elbo"].mean()),
        "vae_iwae": float(scores["iwae"].mean()),
        "vae_iwae_draws": settings.importance,
        "log_p_gaussian": float(plain.mean()),
    }
    if upper_holds(found):
        figures["log_p_lower"] = -float(energy.mean()) - found["log_z_upper"]
    if len(model.shape) == 3:
        bits = {
            "bpd_lower": figures["log_p_upper"],
            "bpd_vae_elbo": figures["vae_elbo"],
            "bpd_vae_iwae": figures["vae_iwae"],
            "bpd_gaussian": figures["log_p_gaussian"],
        }
        if "log_p_lower" in figures:
            bits["bpd_upper"] = figures["log_p_lower"]
        dim = math.prod(model.shape)
        figures |= {name: bits_per_dim(value, dim) for name, value in bits.items()}
    elif model.config.data.source == "toy2d":
        figures["log_p_data"] = float(density(model.config.data.density).log_prob(x).mean())
    return figures


def upper_holds(found: dict[str, Any]) -> bool:
    """Whether the upper bound on log Z is above the lower one.

    Bounds that have closed may cross by chance: within three errors (and rounding), and by no
    more than ``TIE``.
    """
    error = found["log_z_upper_se"] + found["log_z_lower_se"]
    return found["log_z_gap"] >= -min(3 * error + 1e-3, TIE)


def bits_per_dim(log_p: float, dim: int) -> float:
    """−log p/(D ln 2) + log₂ 128: from a density on [−1, 1]^D to 256 levels."""
    return -log_p / (dim * LN2) + 7


def temperature_curve(
    job: Job[Settings],
    bridge: Bridge,
    profile: list[tuple[float, float]],
    figures: dict[str, Any],
) -> tuple[list[float], list[float]] | None:
    """Bits per dimension (too low, if anything) at every temperature that the path passed.

    From a uniform start p_β is the model at temperature T/β, whose log Z the weights so far bound
    from below. None for other starts and for vectors. Adds the best of the curve to ``figures``.
    """
    if not isinstance(bridge.start, UniformStart) or len(job.model.shape) != 3:
        return None
    dim, energy = math.prod(job.model.shape), figures["test_energy"]
    at = [bridge.temperature / beta for beta, _ in profile]
    bits = [bits_per_dim(-beta * energy - z, dim) for beta, z in profile]
    best = min(range(len(bits)), key=bits.__getitem__)
    figures |= {"best_temperature": at[best], "best_temperature_bpd_lower": bits[best]}
    return at, bits


def caveats(job: Job[Settings], figures: dict[str, Any]) -> str:
    """What these numbers are not."""
    text = [f"The bounds on log Z are {figures['log_z_gap']:.4g} nats apart."]
    if not upper_holds(figures):
        text.append(
            "The upper lies below the lower one: it started from no samples of the model, and no "
            "lower bound on the likelihood follows."
        )
    if len(job.model.shape) == 3:
        text.append(
            "The upper bound is only as good as the samples it starts from, chains of "
            f"{job.settings.longer * job.steps} steps and {job.settings.burn} adjusted ones. "
            "Bits per dimension are of a density on continuous pixels, at dequantised data."
        )
    chain = job.model.config.langevin
    if chain.temperature == 0 and job.settings.temperature is None:
        text.append("The run's chains have no noise (T = 0); T = 1 was taken.")
    if chain.clamp is None and chain.reference_std is None:
        text.append("Neither a box nor a Gaussian reference confines the model: Z may be infinite.")
    return " ".join(text)
