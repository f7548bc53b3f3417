"""The dials of a Langevin chain."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

from vmcmc_dist.errors import ConfigError
from vmcmc_dist.settings import out_of_range, setting


@dataclass
class LangevinConfig:
    """A chain of ``steps`` moves x ← x − (δ²/2)(∂U/∂x + x/s²) + δ√T·ε, with ε ~ N(0, I).

    The reference's noise-free update is ``temperature=0, reference_std=0.016``.
    """

    steps: int = setting(20, "Langevin steps of one chain", unit="steps", ge=0)
    step_size: float = setting(
        0.002, "δ: the drift is δ²/2·∂U/∂x, the noise δ√T", unit="pixel range [-1, 1]", gt=0
    )
    temperature: float = setting(
        1.0, "T of the target exp(-U/T); 0 leaves the noise out", unit="nats", ge=0
    )
    reference_std: float | None = setting(
        None, "s of the Gaussian exp(-|x|²/2s²) that multiplies the model; null: none", gt=0
    )
    clip_move: float | None = setting(
        None, "longest drift move of one step per sample, in L2; null: no limit", gt=0
    )
    clamp: float | None = setting(None, "the state stays in [-clamp, clamp]; null: free", gt=0)
    schedule: Literal["constant", "geometric", "cosine"] = setting(
        "constant", "how δ falls along the chain"
    )
    final_scale: float = setting(1.0, "last δ over first δ, for a schedule", gt=0)
    adjusted: bool = setting(False, "Metropolis-adjusted (MALA): exact for exp(-U/T)")

    def check(self) -> None:
        """Raise ``ConfigError`` for a value out of range or a combination that cannot work."""
        for field in dataclasses.fields(self):
            problem = out_of_range(field, getattr(self, field.name))
            if problem:
                raise ConfigError(f"langevin.{field.name} {problem}")
        if self.schedule not in ("constant", "geometric", "cosine"):
            raise ConfigError(
                f"langevin.schedule must be constant, geometric or cosine, got {self.schedule!r}"
            )
        if self.schedule == "constant" and self.final_scale != 1.0:
            raise ConfigError(
                f"langevin.final_scale={self.final_scale:g} has no effect with a constant "
                "schedule; set langevin.schedule to geometric or cosine"
            )
        if self.adjusted and self.temperature == 0:
            raise ConfigError(
                "langevin.adjusted needs noise: exp(-U/T) is no density at temperature 0; "
                "set langevin.temperature > 0 or langevin.adjusted=false"
            )
