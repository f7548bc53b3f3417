"""Step sizes along a chain."""

from __future__ import annotations

import math

from vmcmc_dist.langevin.config import LangevinConfig


def step_sizes(config: LangevinConfig) -> list[float]:
    """δ_t for t = 0 … T−1, with r = ``final_scale`` and u = t/(T−1).

    constant δ; geometric δ·r^u; cosine δ·(r + (1 − r)(1 + cos πu)/2).
    """
    delta, ratio = config.step_size, config.final_scale
    last = max(config.steps - 1, 1)
    progress = [t / last for t in range(config.steps)]
    match config.schedule:
        case "geometric":
            return [delta * ratio**u for u in progress]
        case "cosine":
            return [
                delta * (ratio + (1 - ratio) * (1 + math.cos(math.pi * u)) / 2) for u in progress
            ]
    return [delta] * config.steps
