"""Variational MCMC teaching: energy-based models with a VAE as amortized sampler, distributed.

import vmcmc_dist
model = vmcmc_dist.load("runs/faces")
x = model.sample(64)
"""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"
__all__ = ["Trained", "load", "load_config"]


def __getattr__(name: str) -> Any:
    """Public names, imported when first used, so that ``vmcmc --help`` needs no torch."""
    if name in ("load", "Trained"):
        from vmcmc_dist import trained

        return getattr(trained, name)
    if name == "load_config":
        from vmcmc_dist.config import load_config

        return load_config
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
