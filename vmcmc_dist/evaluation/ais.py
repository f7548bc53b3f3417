"""Annealed importance sampling: log Z = log ∫ exp(−U(x)/T) dx between two stochastic bounds.

    bridge = Bridge(start, energy, temperature=1.0, clamp=None)
    pilot = explore(bridge, 64, Noise(0))
    betas, sizes = schedule(pilot, 1000)
    x, log_w = anneal(bridge, betas, sizes, start.sample(64, noise), noise)   # E[log_w] ≤ log Z
    bounds(log_w)

Between p_0, which is normalised, and exp(−U/T) lies the geometric path

    p_β(x) ∝ exp(−E_β(x)),   E_β = −(1 − β) log p_0(x) + β U(x)/T,   0 = β_0 < … < β_K = 1

A chain x_0 ~ p_0, x_k ~ M_k(x_{k−1}), with M_k a Metropolis-adjusted Langevin step that leaves
p_{β_k} invariant, has the weight log w = Σ_k (β_{k+1} − β_k)(−U(x_k)/T − log p_0(x_k)) with
E[w] = Z, so E[log w] ≤ log Z. Run backwards from a sample of exp(−U/T)/Z, the same sum has
E[−log w] ≥ log Z. Step sizes come from pilot chains and stay fixed, which keeps both exact.

Sources: Neal 2001 (AIS); Grosse et al. 2015, arXiv:1511.02543 (bounds from both directions).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from vmcmc_dist.errors import DivergenceError
from vmcmc_dist.evaluation.ais_start import Start, fold
from vmcmc_dist.langevin import Energy, MalaState, Noise, energy_and_grad, mala_step

TARGET = 0.574  # acceptance of an efficient MALA chain: Roberts and Rosenthal 1998
Spacing = Literal["adaptive", "sigmoid", "linear"]


class Ends(NamedTuple):
    """A state y and both ends of the path there: energies [2, B] and gradients [2, B, …]."""

    y: Tensor
    energy: Tensor
    grad: Tensor

    def at(self, beta: float) -> MalaState:
        """E_β and its gradient."""
        mix = torch.tensor([1 - beta, beta], device=self.energy.device)
        wide = mix.view(2, *[1] * (self.grad.dim() - 1))
        return MalaState(self.y, (mix[:, None] * self.energy).sum(0), (wide * self.grad).sum(0))

    @property
    def slope(self) -> Tensor:
        """d(−E_β)/dβ = −U/T − log p_0, float64 [B]."""
        return self.energy[0].double() - self.energy[1].double()


@dataclass(frozen=True)
class Bridge:
    """The path from ``start`` to exp(−U/T), on the box [−clamp, clamp] if that is given.

    ``energy`` is the net's U; ``reference_std`` adds |x|²/2s² to it before it is divided by T.
    """

    start: Start
    energy: Energy
    temperature: float = 1.0
    reference_std: float | None = None
    clamp: float | None = None

    def ends(self, y: Tensor) -> Ends:
        """Both ends' energies and gradients at unfolded states y [B, …]."""
        x, sign = fold(y, self.clamp)
        u, grad = energy_and_grad(self.energy, x, reference_std=self.reference_std)
        e0, grad0 = self.start.energy_and_grad(x)
        t = self.temperature
        return Ends(y, torch.stack([e0, u / t]), torch.stack([grad0, grad / t]) * sign)


def move(
    bridge: Bridge, ends: Ends, beta: float, step_size: float, noise: Noise
) -> tuple[Ends, Tensor]:
    """One adjusted step that leaves p_β invariant; the mean acceptance probability with it.

    The drift is at most as long as the noise, δ√D (the truncated Langevin algorithm of Roberts and
    Tweedie 1996): a plain one overshoots in the steep far tails and is stuck there.
    """
    proposed: list[Ends] = []

    def evaluate(y: Tensor) -> tuple[Tensor, Tensor]:
        proposed.append(bridge.ends(y))
        _, energy, grad = proposed[0].at(beta)
        return energy, grad

    eps, uniform = noise.normal(ends.y.shape), noise.uniform(ends.y.shape[:1])
    clip = step_size * math.sqrt(ends.y[0].numel())
    state, alpha = mala_step(
        ends.at(beta), evaluate, eps, uniform, step_size=step_size, clip_move=clip
    )
    accept = uniform < alpha
    wide = accept.view(1, -1, *[1] * (ends.y.dim() - 1))
    energy = torch.where(accept, proposed[0].energy, ends.energy)
    return Ends(state.x, energy, torch.where(wide, proposed[0].grad, ends.grad)), alpha.mean()


class Annealed(NamedTuple):
    """Chains' ends x [B, …], log weights float64 [B], mean acceptance per temperature [K]."""

    x: Tensor
    log_w: Tensor
    acceptance: Tensor


@torch.no_grad()
def anneal(
    bridge: Bridge,
    betas: Tensor,
    step_sizes: Tensor,
    x: Tensor,
    noise: Noise,
    *,
    moves: int = 1,
    tick: Callable[[], None] | None = None,
) -> Annealed:
    """Chains along β_0, …, β_K from x [B, …] ~ p_{β_0}, β rising (log w) or falling (−log w).

    Σ_{k<K} (β_{k+1} − β_k)·slope(x_k) is added up, and after each change of β come ``moves``
    adjusted steps of size ``step_sizes[k + 1]`` at β_{k+1}. A path may be cut at any β: the sums of
    its pieces, each begun where the last one ended, add up to the whole's.

    Errors: ``DivergenceError`` where an energy is not finite.
    """
    ends = bridge.ends(x)
    log_w = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    accepted = []
    for k in range(1, len(betas)):
        beta, step_size = float(betas[k]), float(step_sizes[k])
        log_w += float(betas[k] - betas[k - 1]) * ends.slope
        for _ in range(moves):
            ends, alpha = move(bridge, ends, beta, step_size, noise)
            accepted.append(alpha)
        if tick is not None:
            tick()
    acceptance = torch.stack(accepted).view(-1, moves).mean(1)
    if not (log_w.isfinite().all() and acceptance.isfinite().all()):
        raise DivergenceError(
            "annealed importance sampling: an energy was not finite; the energy net has diverged, "
            "or exp(-U/T) is not bounded where the chains go (set langevin.clamp or reference_std)"
        )
    return Annealed(fold(ends.y, bridge.clamp)[0], log_w, acceptance)


class Pilot(NamedTuple):
    """What pilot chains found at knots β [J], rising to 1: a step size that is accepted as often
    as ``TARGET``, and the spread (robust std) of the slope over chains."""

    betas: Tensor
    step_sizes: Tensor
    spread: Tensor


@torch.no_grad()
def explore(
    bridge: Bridge,
    chains: int,
    noise: Noise,
    *,
    knots: int = 40,
    moves: int = 12,
    tick: Callable[[], None] | None = None,
) -> Pilot:
    """Pilot chains along a coarse path: β = 0, then geometric from where p_0 first feels U to 1.

    At every knot ``moves`` steps, log δ ← log δ + γ(acceptance − target); the first knot 4 times
    as many. They are forgotten afterwards.
    """
    ends = bridge.ends(bridge.start.sample(chains, noise))
    spread = [_robust_std(ends.slope)]
    first = min(0.1, max(1e-9, 0.1 / max(spread[0], 1e-9)))
    betas = [first ** (1 - j / (knots - 2)) for j in range(knots - 1)]
    sizes = []
    for _, size, state in _tuned(bridge, ends, betas, moves, noise):
        sizes.append(size)
        spread.append(_robust_std(state.slope))
        if tick is not None:
            tick()
    values = ([0.0, *betas], [sizes[0], *sizes], spread)
    pilot = Pilot(*(torch.tensor(v, dtype=torch.float64) for v in values))
    if not all(value.isfinite().all() for value in pilot):
        raise DivergenceError("annealed importance sampling: an energy is not finite in its pilot")
    return pilot


@torch.no_grad()
def explore_down(
    bridge: Bridge, pilot: Pilot, x: Tensor, noise: Noise, *, moves: int = 12
) -> Pilot:
    """``pilot`` with the step sizes of chains that go down its knots from samples x [B, …] of the
    model, for :func:`anneal` in that direction. Either bound holds with any step sizes; where
    pilots from above and below meet other landscapes, each needs its own to move at all."""
    betas = pilot.betas.flip(0).tolist()[:-1]
    sizes = [size for _, size, _ in _tuned(bridge, bridge.ends(x), betas, moves, noise)]
    found = torch.tensor([sizes[-1], *reversed(sizes)], dtype=torch.float64)
    return pilot._replace(step_sizes=found)


def _tuned(
    bridge: Bridge, ends: Ends, betas: list[float], moves: int, noise: Noise
) -> Iterator[tuple[float, float, Ends]]:
    """(β, step size, state) after ``moves`` steps at each β, 4 times as many at the first."""
    width = float(ends.y.std())
    log_size = math.log(width * ends.y[0].numel() ** (-1 / 6))
    for j, beta in enumerate(betas):
        kept = []
        for step in range(moves * (4 if j == 0 else 1)):
            ends, alpha = move(bridge, ends, beta, math.exp(log_size), noise)
            gain = 1.0 if step < moves * (3 if j == 0 else 1) // 2 else 0.4
            log_size = min(log_size + gain * (float(alpha) - TARGET), math.log(10 * width))
            kept.append(log_size)
        yield beta, math.exp(sum(kept[-(moves // 2) :]) / (moves // 2)), ends


def _robust_std(values: Tensor) -> float:
    """Interquartile range over that of a standard normal, as the std where none is an outlier."""
    low, high = torch.quantile(values, torch.tensor([0.25, 0.75]).to(values)).tolist()
    return (high - low) / 1.349


def schedule(pilot: Pilot, k: int, spacing: Spacing = "adaptive") -> tuple[Tensor, Tensor]:
    """β_0 = 0 < … < β_k = 1 and the step sizes there, float64 [k + 1] each.

    adaptive   equal thermodynamic length ∫ std_β(slope) dβ between neighbours as the pilot saw it,
               a tenth of the temperatures spread over its knots
    sigmoid    (σ(8u − 4) − σ(−4))/(σ(4) − σ(−4)) at u = 0, 1/k, …, 1
    linear     u
    """
    u = torch.linspace(0, 1, k + 1, dtype=torch.float64)
    if spacing == "adaptive":
        gaps = pilot.betas.diff()
        length = (gaps * (pilot.spread[1:] + pilot.spread[:-1]) / 2).cumsum(0)
        even = torch.arange(1, len(pilot.betas), dtype=torch.float64) / len(gaps)
        share = 0.9 * length / length[-1] + 0.1 * even if length[-1] > 0 else even
        betas = _interpolate(u, torch.cat([share.new_zeros(1), share]), pilot.betas)
    elif spacing == "sigmoid":
        s = torch.sigmoid(8 * u - 4)
        betas = (s - s[0]) / (s[-1] - s[0])
    else:
        betas = u
    betas[0], betas[-1] = 0.0, 1.0
    return betas, step_sizes_at(pilot, betas)


def step_sizes_at(pilot: Pilot, betas: Tensor) -> Tensor:
    """The pilot's step sizes between its knots, linear in log δ against log β."""
    logs = _interpolate(
        betas.clamp_min(float(pilot.betas[1])).log(),
        pilot.betas[1:].log(),
        pilot.step_sizes[1:].log(),
    )
    return logs.exp()


def _interpolate(x: Tensor, knots: Tensor, values: Tensor) -> Tensor:
    """Piecewise linear through (knots, values), knots strictly rising; constant beyond them."""
    right = torch.searchsorted(knots, x).clamp(1, len(knots) - 1)
    left = right - 1
    share = ((x - knots[left]) / (knots[right] - knots[left])).clamp(0, 1)
    return values[left] + share * (values[right] - values[left])


class Estimate(NamedTuple):
    """What log weights say, in nats: their mean, log of the mean weight, standard errors (of the
    mean; of the log by bootstrap), and the effective sample size (Σw)²/Σw² of N."""

    mean: float
    mean_se: float
    log_mean: float
    log_mean_se: float
    ess: float


def estimate(log_w: Tensor, seed: int = 0, resamples: int = 500) -> Estimate:
    """Forward weights: mean ≤ log Z (in expectation), log_mean → log Z. Of reverse weights, which
    :func:`anneal` returns as −log w: −mean ≥ log Z, −log_mean → log Z."""
    log_w = log_w.double().cpu()
    n = len(log_w)
    generator = torch.Generator().manual_seed(seed)
    again = log_w[torch.randint(n, (resamples, n), generator=generator)]
    return Estimate(
        mean=float(log_w.mean()),
        mean_se=float(log_w.std() / math.sqrt(n)),
        log_mean=float(log_w.logsumexp(0)) - math.log(n),
        log_mean_se=float(again.logsumexp(1).std()),
        ess=float((2 * log_w.logsumexp(0) - (2 * log_w).logsumexp(0)).exp()),
    )
