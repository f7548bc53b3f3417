"""The tasks of ``vmcmc evaluate``, one a file: ``run(job) -> Result`` beside its ``Settings``.

A new one is a file with those two and a line here.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from vmcmc_dist.errors import ConfigError

TASKS = {
    "synthesis": "samples and proposals: pictures, files, scores",
    "interpolation": "between codes, linear and spherical, decoded and refined",
    "reconstruction": "encode, decode, refine held-out data",
    "inpainting": "fill what a mask hides, in four ways",
    "refinement": "chains from proposal to sample, and far beyond their training length",
    "mixing": "how well chains move: sample size, acceptance, jumps between modes",
    "likelihood": "log Z and test likelihood by annealed importance sampling, both bounds",
    "ood": "energy and ELBO as detectors of other data",
    "geometry": "the alternating projection on the plane, per half-iteration",
    "neighbours": "samples beside their closest training images",
    "conditional": "does what is generated fit what was asked for?",
}
"""Task → what it shows."""


def task_module(name: str) -> ModuleType:
    """The module of a task: ``Settings``, ``run(job)`` and ``fits(model) -> str | None``.

    ``fits`` gives the reason why a task cannot be done on a model, or ``None``.
    """
    if name not in TASKS:
        raise ConfigError(f"no task {name!r}; there are {', '.join(TASKS)}")
    return import_module(f"vmcmc_dist.evaluation.tasks.{name}")
