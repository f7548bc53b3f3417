"""Where annealing starts: densities p_0 that can be sampled and whose log Z is known.

With ``clamp`` = c everything lives on the box [−c, c]^D. Chains then run on its unfolded image: the
triangle wave ``fold`` maps R^D onto the box, and U(fold(y)) is mirrored at every wall. Detailed
balance holds in y for any adjusted step, and mirror images move alike, so x = fold(y) is a chain
that leaves the density on the box invariant: reflection at the walls, exact. (Rejecting what
leaves the box is exact, too, but with hundreds of pixels at a wall nearly every move leaves it.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from vmcmc_dist.langevin import Noise


class Start(Protocol):
    """A normalised density p_0 on samples [B, …]."""

    def sample(self, n: int, noise: Noise) -> Tensor:
        """n exact draws, float32 [n, …]."""

    def energy_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """−log p_0(x) [B], its constant included, in nats, and the gradient [B, …]."""


@dataclass(frozen=True)
class GaussianStart:
    """N(m, diag s²), cut to the box and normalised there if ``clamp`` is given.

    −log p_0(x) = Σ (x − m)²/2s² + log s√2π + log(Φ((c − m)/s) − Φ((−c − m)/s))
    """

    mean: Tensor
    std: Tensor
    clamp: float | None = None

    def _levels(self) -> tuple[Tensor, Tensor]:
        """Φ at both walls, float64."""
        mean, std = self.mean.double(), self.std.double()
        assert self.clamp is not None
        low, high = ((wall - mean) / std for wall in (-self.clamp, self.clamp))
        return torch.special.ndtr(low), torch.special.ndtr(high)

    def log_normaliser(self) -> float:
        """Σ log s√2π, plus the log of the mass inside the box."""
        total = self.std.double().log().sum() + self.std.numel() * 0.5 * math.log(2 * math.pi)
        if self.clamp is not None:
            low, high = self._levels()
            total += (high - low).log().sum()
        return float(total)

    def sample(self, n: int, noise: Noise) -> Tensor:
        shape = (n, *self.mean.shape)
        if self.clamp is None:
            return self.mean + self.std * noise.normal(shape)
        low, high = self._levels()
        level = low + (high - low) * noise.uniform(shape).double()
        x = self.mean + self.std * torch.special.ndtri(level)
        return x.float().clamp(-self.clamp, self.clamp)

    def energy_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scaled = (x - self.mean) / self.std
        return scaled.square().flatten(1).sum(1) / 2 + self.log_normaliser(), scaled / self.std


@dataclass(frozen=True)
class UniformStart:
    """The uniform density on the box: −log p_0 = D log 2c. The path to exp(−U/T) then is one of
    falling temperature, p_β ∝ exp(−βU/T)."""

    shape: tuple[int, ...]
    clamp: float

    def sample(self, n: int, noise: Noise) -> Tensor:
        return (2 * noise.uniform((n, *self.shape)) - 1) * self.clamp

    def energy_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        volume = math.prod(self.shape) * math.log(2 * self.clamp)
        return x.new_full((len(x),), volume), torch.zeros_like(x)


def fold(y: Tensor, clamp: float | None) -> tuple[Tensor, Tensor | float]:
    """x = fold(y) in the box and dx/dy = ±1; y itself where there is no box."""
    if clamp is None:
        return y, 1.0
    place = torch.remainder(y + clamp, 4 * clamp)
    rising = place <= 2 * clamp
    x = torch.where(rising, place, 4 * clamp - place) - clamp
    return x, torch.where(rising, 1.0, -1.0)


def fit_gaussian(x: Tensor, *, widen: float, floor: float, clamp: float | None) -> GaussianStart:
    """A Gaussian with the mean of samples x [N, …] and ``widen`` times their std, at least
    ``floor``, dimension by dimension."""
    return GaussianStart(x.mean(0), (widen * x.std(0)).clamp_min(floor), clamp)
