"""Which regime is a run in, and is it lost?

The method has quiet failures: every loss looks calm while all samples become one checkerboard.
Three figures tell them apart (averages over a log interval):

- gap ratio = |U(x̃) − U(x_data)| / (|drop| + std U(x_data)): what separates samples from data, over
  what a chain moves the energy and what the energy differs among the data. Far above 1, the
  energy has run away from its sampler.
- spread ratio: std among the samples over std of the data. Near 0, all samples are alike.
- grad_rms: if ∂U/∂x is next to nothing, the chain no longer teaches.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from vmcmc_dist.errors import DivergenceError
from vmcmc_dist.teaching.config import GuardConfig

BALANCED = "balanced"
RUNAWAY = "energy runs away"
COLLAPSED = "samples collapse"
FLAT = "flat energy"
HEAD_START = "head start"


def ratios(record: Mapping[str, float]) -> dict[str, float]:
    """Gap ratio and spread ratio of a record of means; see the module's head."""
    return {
        "gap_ratio": abs(record["gap"]) / (abs(record["drop"]) + record["energy_std"] + 1e-6),
        "spread_ratio": record["spread"] / (record["spread_data"] + 1e-6),
    }


def regime(record: Mapping[str, float], config: GuardConfig) -> str:
    """One of "balanced", "energy runs away", "samples collapse", "flat energy", "head start"."""
    if "gap" not in record:
        return HEAD_START
    figures = ratios(record)
    if figures["spread_ratio"] < config.spread:
        return COLLAPSED
    if figures["gap_ratio"] > config.gap_ratio:
        # A gap over a chain that moves nothing: the gradient is dead, or the gap is large.
        return FLAT if record["grad_rms"] < 1e-6 else RUNAWAY
    return BALANCED


@dataclass
class Guard:
    """Counts log intervals outside the balanced regime; part of the checkpoint.

    Attributes:
        bad: intervals in a row beyond a limit.
        rollbacks: how often this run was rolled back.
    """

    config: GuardConfig
    bad: int = 0
    rollbacks: int = 0

    def check_finite(self, record: Mapping[str, float], images: int) -> None:
        """Raise :class:`DivergenceError` naming each value that is not finite."""
        broken = [name for name, value in record.items() if not math.isfinite(value)]
        if broken:
            raise DivergenceError(
                f"not finite after {images:,} images: {', '.join(broken)}. Lower energy.lr or "
                "langevin.step_size, or raise energy.penalty."
            )

    def observe(self, record: Mapping[str, float], images: int) -> None:
        """Count one interval; raise :class:`DivergenceError` when patience is spent."""
        now = regime(record, self.config)
        calm = now in (BALANCED, HEAD_START)
        if calm or images < self.config.warmup_images or self.config.action == "none":
            self.bad = 0
            return
        self.bad += 1
        if self.bad >= self.config.patience:
            figures = ratios(record)
            raise DivergenceError(
                f"{now} after {images:,} images, for {self.bad} log intervals in a row "
                f"(gap {record['gap']:.3g}, chain moves the energy by {record['drop']:.3g}, "
                f"gap ratio {figures['gap_ratio']:.3g}, spread ratio "
                f"{figures['spread_ratio']:.3g}, |∂U/∂x| {record['grad_rms']:.3g} per dimension). "
                + ADVICE[now]
            )

    def state(self) -> dict[str, int]:
        return {"bad": self.bad, "rollbacks": self.rollbacks}

    def load(self, state: Mapping[str, int]) -> None:
        self.bad, self.rollbacks = state["bad"], state["rollbacks"]


ADVICE = {
    RUNAWAY: "The chain cannot follow: raise langevin.step_size or langevin.steps, lower "
    "energy.lr, or raise energy.penalty.",
    COLLAPSED: "All samples are alike: lower vae.sigma, raise vae.data_weight, lower "
    "energy.penalty or raise langevin.step_size.",
    FLAT: "The energy gives chains no direction: lower energy.penalty or raise langevin.step_size.",
}
