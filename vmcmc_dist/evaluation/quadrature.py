"""Densities on the plane by quadrature: log Z, and the divergences that teaching moves.

    grid = Grid()
    log_model = model_log_density(energy, grid)              # −U − log Z
    kl(grid.evaluate(data.log_prob), log_model, grid)        # KL(p_data ‖ p_θ), nats

A density on a grid is a float64 tensor [n, n] of log p at the cells' centres (midpoint rule).
Densities that are only known through particles are mixtures of Gaussians around them,

    p_α(x)     = E_z N(x; g(z), σ²I)
    M_θp_α(x)  = E_y N(x; m(y), δ²T I),   m the drift of the last Langevin step, y before it

so the last noise is put in exactly (Rao-Blackwell) and only the means are sampled.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vmcmc_dist.errors import ConfigError, DivergenceError
from vmcmc_dist.langevin import LangevinConfig, Noise, run_chain
from vmcmc_dist.langevin.schedules import step_sizes
from vmcmc_dist.langevin.step import drift_mean

Function = Callable[[Tensor], Tensor]
Device = torch.device | str
CHUNK = 16384


@dataclass(frozen=True)
class Grid:
    """The square [−extent, extent]² in n × n cells; x[0] runs along rows."""

    extent: float = 6.0
    n: int = 240

    @property
    def cell(self) -> float:
        """Side h of a cell."""
        return 2 * self.extent / self.n

    @property
    def narrowest(self) -> float:
        """Least std of a Gaussian that the cells can carry, ¾h."""
        return 0.75 * self.cell

    @property
    def axis(self) -> Tensor:
        """Centres of the cells along one axis, float64 [n]."""
        return (torch.arange(self.n, dtype=torch.float64) + 0.5) * self.cell - self.extent

    def evaluate(self, function: Function, device: Device = "cpu") -> Tensor:
        """A function [B, 2] → [B], called on ``device``, at every centre: float64 [n, n]."""
        points = torch.cartesian_prod(self.axis, self.axis).float().to(device)
        with torch.no_grad():
            values = torch.cat([function(part).cpu().double() for part in points.split(CHUNK)])
        return values.view(self.n, self.n)

    def integral(self, log_density: Tensor) -> float:
        """log ∫ exp(log_density) dx."""
        return torch.logsumexp(log_density.flatten(), 0).item() + 2 * math.log(self.cell)


def with_reference(energy: Function, reference_std: float | None) -> Function:
    """U(x) + |x|²/(2s²), the energy that the chain moves on; ``None`` leaves U as it is."""
    if reference_std is None:
        return energy
    return lambda x: energy(x) + x.square().flatten(1).sum(1) / (2 * reference_std**2)


def log_z(energy: Function, grid: Grid, device: Device = "cpu") -> float:
    """log Z = log ∫ exp(−U(x)) dx in nats, over the grid's square."""
    return grid.integral(-grid.evaluate(energy, device))


def model_log_density(energy: Function, grid: Grid, device: Device = "cpu") -> Tensor:
    """log p_θ = −U − log Z, normalised on the grid. DivergenceError if U is not finite."""
    negative = -grid.evaluate(energy, device)
    if not torch.isfinite(negative).all():
        raise DivergenceError("the energy is not finite on the grid: the energy net has diverged")
    return negative - grid.integral(negative)


def kl(log_p: Tensor, log_q: Tensor, grid: Grid) -> float:
    """KL(p ‖ q) = ∫ p (log p − log q) dx in nats; ∞ where q = 0 under p. Both normalised here."""
    log_p, log_q = log_p.double(), log_q.double()
    log_p, log_q = log_p - grid.integral(log_p), log_q - grid.integral(log_q)
    inside = log_p > -math.inf
    ratio = log_p[inside] - log_q[inside]
    return (log_p[inside].exp() * ratio).sum().item() * grid.cell**2


def particle_log_density(means: Tensor, std: float, grid: Grid) -> Tensor:
    """log of the mixture E_m N(x; m, std² I) over particles ``means`` [N, 2].

    Each particle is dealt to its four nearest centres by bilinear weights. That adds h²/6 of
    variance per axis on average, which the Gaussian then has less. The Gaussian is separable,
    K·counts·Kᵀ with K > 0: a sum of positive terms, precise far into the tails (a Fourier
    convolution is not: its rounding is relative to the peak). Particles off the grid are counted
    in the normalisation and lost from it. ConfigError: std < 0.75 h, which the cells cannot carry.
    """
    if std < grid.narrowest:
        raise ConfigError(
            f"a Gaussian of std {std:g} needs cells of at most {std / 0.75:g}, "
            f"the grid has {grid.cell:g}: raise Grid.n to {math.ceil(1.5 * grid.extent / std)}"
        )
    counts = _bilinear_counts(means.double().cpu(), grid)
    variance = std**2 - grid.cell**2 / 6
    distance = (grid.axis[:, None] - grid.axis[None, :]).square()
    kernel = torch.exp(-distance / (2 * variance)) / math.sqrt(2 * math.pi * variance)
    return (kernel @ counts @ kernel.T / len(means)).clamp_min(1e-300).log()


def _bilinear_counts(points: Tensor, grid: Grid) -> Tensor:
    place = (points + grid.extent) / grid.cell - 0.5
    low = place.floor()
    share = place - low
    counts = torch.zeros(grid.n * grid.n, dtype=torch.float64)
    for corner in ((0, 0), (0, 1), (1, 0), (1, 1)):
        offset = torch.tensor(corner)
        index = low.long() + offset
        weight = torch.where(offset == 1, share, 1 - share).prod(1)
        on_grid = ((index >= 0) & (index < grid.n)).all(1)
        flat = index[on_grid, 0] * grid.n + index[on_grid, 1]
        counts.index_add_(0, flat, weight[on_grid])
    return counts.view(grid.n, grid.n)


def latent_points(n: int, latent_dim: int, seed: int = 0) -> Tensor:
    """n scrambled Sobol points of N(0, I_d), float32 [n, d]; n best a power of two."""
    sobol = torch.quasirandom.SobolEngine(latent_dim, scramble=True, seed=seed)
    uniform = sobol.draw(n, dtype=torch.float64).clamp(1e-12, 1 - 1e-12)
    return torch.special.ndtri(uniform).float()


def decode_means(
    decode: Function, latent_dim: int, n: int = 2**17, seed: int = 0, device: Device = "cpu"
) -> Tensor:
    """g(z) [n, 2] at quasi-random z ~ N(0, I): the means of p_α and the starts of the chains."""
    with torch.no_grad():
        z = latent_points(n, latent_dim, seed).to(device)
        return torch.cat([decode(part).flatten(1) for part in z.split(CHUNK)])


def sampler_log_density(means: Tensor, sigma: float, grid: Grid) -> Tensor:
    """log p_α(x) = log ∫ N(x; g(z), σ²I) p(z) dz, from ``decode_means``."""
    return particle_log_density(means, sigma, grid)


def revised_particles(
    energy: Function, starts: Tensor, config: LangevinConfig, grid: Grid, *, seed: int = 0
) -> tuple[Tensor, float, bool]:
    """``config.steps`` Langevin steps from ``starts`` [N, 2]: (means, std, exact) of M_θp_α.

    Unadjusted and unclamped chains with noise: the particles just before the last noise δ√T·ε and
    its std, so the mixture is exact. Where the last step has no Gaussian law (temperature 0, MALA,
    clamping), or one too narrow for the grid: the chains' ends, a kernel of one cell, and False.
    """
    before_noise: list[Tensor] = []

    def keep_last_mean(step: int, x: Tensor, _u: Tensor, grad: Tensor) -> None:
        if step == config.steps - 1:
            delta = step_sizes(config)[-1]
            mean = drift_mean(x, grad, step_size=delta, clip_move=config.clip_move)
            before_noise.append(mean)

    noise = Noise(seed, starts.device)
    ends = [
        run_chain(energy, part, config, noise, callback=keep_last_mean)[0]
        for part in starts.split(CHUNK)
    ]
    std = step_sizes(config)[-1] * math.sqrt(config.temperature) if config.steps else 0.0
    if config.adjusted or config.clamp is not None or std < grid.narrowest:
        return torch.cat(ends), grid.cell, False
    return torch.cat(before_noise), std, True


def particle_kl(means: Tensor, std: float, log_q: Tensor, grid: Grid) -> float:
    """KL(p̂ ‖ q) of the particles' mixture, extrapolated to infinitely many of them.

    With N particles it is too large by c/N; two halves and the whole give 2·KL_N − KL_{N/2}.
    """
    whole, *halves = (
        kl(particle_log_density(part, std, grid), log_q, grid)
        for part in (means, means[::2], means[1::2])
    )
    return max(0.0, 2 * whole - sum(halves) / 2)


@dataclass
class Divergences:
    """The KLs of one moment of training, in nats, and log Z."""

    images: int
    data_model: float  # KL(p_data ‖ p_θ)
    data_sampler: float  # KL(p_data ‖ p_α)
    model_sampler: float  # KL(p_θ ‖ p_α)
    revised_model: float  # KL(M_θp_α ‖ p_θ)
    log_z: float
    smoothing: float  # std of the kernel put on M_θp_α beyond its own noise


def measure(
    data_log_prob: Function,
    energy: Function,
    decode: Function,
    latent_dim: int,
    sigma: float,
    config: LangevinConfig,
    *,
    images: int = 0,
    grid: Grid | None = None,
    particles: int = 2**14,
    seed: int = 0,
) -> tuple[Divergences, dict[str, Tensor]]:
    """All divergences of the alternating projection, and the log densities they came from.

    ``energy`` is the net's U [B, 2] → [B]; the config's Gaussian reference is added here.
    A module is evaluated where its weights are, the sums are made on the CPU.
    p_α takes 8 × ``particles`` quasi-random latent points, M_θp_α ``particles`` chains.
    Densities by name: data, model, sampler, revised, each [n, n].
    """
    grid = grid or Grid()
    weights = list(energy.parameters()) if isinstance(energy, nn.Module) else []
    device = weights[0].device if weights else torch.device("cpu")
    full = with_reference(energy, config.reference_std)
    means = decode_means(decode, latent_dim, 8 * particles, seed, device)
    order = torch.randperm(len(means), generator=torch.Generator().manual_seed(seed))[:particles]
    starts = means[order.to(device)]
    revised, std, exact = revised_particles(energy, starts, config, grid, seed=seed)
    logs = {
        "data": grid.evaluate(data_log_prob),
        "model": model_log_density(full, grid, device),
        "sampler": sampler_log_density(means, sigma, grid),
        "revised": particle_log_density(revised, std, grid),
    }
    divergences = Divergences(
        images=images,
        data_model=kl(logs["data"], logs["model"], grid),
        data_sampler=kl(logs["data"], logs["sampler"], grid),
        model_sampler=kl(logs["model"], logs["sampler"], grid),
        revised_model=particle_kl(revised, std, logs["model"], grid),
        log_z=log_z(full, grid, device),
        smoothing=0.0 if exact else std,
    )
    return divergences, logs
