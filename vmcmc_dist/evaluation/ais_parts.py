"""Annealing in parts that are kept on disk, so that an interrupted evaluation goes on.

Every part is a function of the job's identity and its own name: the chains' noise is seeded by
direction, number of levels, batch and segment.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vmcmc_dist.evaluation.ais import (
    Bridge,
    Pilot,
    anneal,
    explore,
    explore_down,
    schedule,
    step_sizes_at,
)
from vmcmc_dist.evaluation.job import Job
from vmcmc_dist.evaluation.quadrature import Function, Grid
from vmcmc_dist.langevin import Noise, stream_seed

SEGMENT = 50  # levels of one part
KNOTS = 40


class Climbed(NamedTuple):
    """log weights [N], mean acceptance per part, and (β, mean log weight so far) after each."""

    log_w: Tensor
    acceptance: Tensor
    profile: list[tuple[float, float]]


@dataclass
class Ladder:
    """The chains of one evaluation: ``chains`` in each direction, on K/10, 3K/10 and K levels."""

    job: Job[Any]
    bridge: Bridge
    chains: int
    plane: bool = False
    pilot: Pilot = field(init=False)
    down: Pilot = field(init=False)
    done: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        seed = stream_seed(self.job.settings.seed, "pilot")
        count = max(32, min(self.chains, 64))

        def pilot() -> dict[str, Tensor]:
            noise = Noise(seed, self.job.model.device)
            return explore(self.bridge, count, noise, knots=KNOTS, tick=self._tick())._asdict()

        self.pilot = Pilot(**self.job.part("pilot", pilot))
        self.down, self.done = self.pilot, KNOTS

    @property
    def lengths(self) -> list[int]:
        """Numbers of levels, rising to the one asked for."""
        k = self.job.settings.levels
        return sorted({max(1, k // 10), max(1, 3 * k // 10), k})

    @property
    def batches(self) -> list[int]:
        """Chains in each batch."""
        size = max(self.job.settings.batch_size, 2048 if self.plane else 1)
        return [min(size, self.chains - at) for at in range(0, self.chains, size)]

    @property
    def total(self) -> int:
        """Levels of everything, the pilot's knots and the burning in among them."""
        return KNOTS + len(self.batches) * (2 * sum(self.lengths) + self.job.settings.burn)

    def climb(self, k: int) -> Climbed:
        """From p_0 to the model."""
        betas, sizes = schedule(self.pilot, k, self.job.settings.spacing)
        device = self.job.model.device
        starts = [
            self.bridge.start.sample(n, Noise(self._seed("start", k, b), device))
            for b, n in enumerate(self.batches)
        ]
        return self._walk("forward", betas, sizes, starts)[1]

    def descend(self, k: int, samples: Tensor) -> Climbed:
        """From samples of the model to p_0."""
        betas, _ = schedule(self.pilot, k, self.job.settings.spacing)
        sizes = step_sizes_at(self.down, betas)
        return self._walk(
            "reverse", betas.flip(0), sizes.flip(0), list(samples.split(self.batches))
        )[1]

    def burnt(self, samples: Tensor) -> Tensor:
        """``burn`` adjusted steps at β = 1 from x [N, …], with step sizes found from there, as
        the way down has them."""
        seed = self._seed("pilot down")

        def pilot() -> dict[str, Tensor]:
            device = self.job.model.device
            some = samples[:64].to(device)
            return explore_down(self.bridge, self.pilot, some, Noise(seed, device))._asdict()

        self.down = Pilot(**self.job.part("pilot-down", pilot))
        betas = torch.ones(self.job.settings.burn + 1, dtype=torch.float64)
        sizes = betas * self.down.step_sizes[-1]
        return self._walk("burn", betas, sizes, list(samples.split(self.batches)))[0]

    def _walk(
        self, name: str, betas: Tensor, sizes: Tensor, starts: list[Tensor]
    ) -> tuple[Tensor, Climbed]:
        k = len(betas) - 1
        ends, weights, accepted = [], [], []
        for b, x in enumerate(starts):
            log_w, cumulative = torch.zeros(len(x), dtype=torch.float64), []
            for at in range(0, k, SEGMENT):
                cut = slice(at, min(at + SEGMENT, k) + 1)
                part = self._part(name, k, b, at, betas[cut], sizes[cut], x)
                x, log_w = part["x"].to(self.job.model.device), log_w + part["log_w"].cpu()
                cumulative.append(log_w)
                accepted.append(part["acceptance"].cpu().mean())
            ends.append(x.cpu())
            weights.append(torch.stack(cumulative, 1))
        log_w = torch.cat(weights)
        reached = [float(betas[min(at + SEGMENT, k)]) for at in range(0, k, SEGMENT)]
        profile = list(zip(reached, log_w.mean(0).tolist(), strict=True))
        return torch.cat(ends), Climbed(log_w[:, -1], torch.stack(accepted), profile)

    def _part(
        self, name: str, k: int, batch: int, at: int, betas: Tensor, sizes: Tensor, x: Tensor
    ) -> dict[str, Tensor]:
        def compute() -> dict[str, Tensor]:
            device = self.job.model.device
            noise = Noise(self._seed(name, k, batch, at), device)
            moves = self.job.settings.moves
            return anneal(
                self.bridge, betas, sizes, x.to(device), noise, moves=moves, tick=self._tick()
            )._asdict()

        found = self.job.part(f"{name}-{k}-{batch}-{at}", compute)
        self.done += len(betas) - 1
        return found

    def _tick(self) -> Callable[[], None]:
        """Progress within a part."""
        begun = self.done
        steps = iter(range(1, self.total + 1))
        return lambda: self.job.progress("annealing", begun + next(steps), self.total)

    def _seed(self, *keys: int | str) -> int:
        return stream_seed(self.job.settings.seed, "likelihood", *keys)


def grid_samples(energy: Function, grid: Grid, n: int, noise: Noise) -> Tensor:
    """n points [n, 2] of exp(−U) on the plane: a cell by its weight, uniform within it."""
    log_p = -grid.evaluate(energy, noise.device).flatten()
    mass = (log_p - log_p.logsumexp(0)).exp().cumsum(0)
    level = noise.uniform((n,)).double().cpu() * mass[-1]
    cell = torch.searchsorted(mass, level).clamp_max(len(mass) - 1)
    centre = torch.stack([grid.axis[cell // grid.n], grid.axis[cell % grid.n]], 1).float()
    return centre.to(noise.device) + (noise.uniform((n, 2)) - 0.5) * grid.cell
