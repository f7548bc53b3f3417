"""Which cores a process of a benchmark runs on, so that none pays for another's work."""

from __future__ import annotations

import os


def split_cores() -> tuple[frozenset[int], frozenset[int]]:
    """Cores for the readers, and one for the server beside them; both empty where there is but one
    core, or none can be chosen (macOS).
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if len(cores) < 2:
        return frozenset(), frozenset()
    return frozenset(cores[1:]), frozenset(cores[:1])


def pin(process: int, cores: frozenset[int]) -> None:
    """Let a process that has just been started, and all that it starts, run on ``cores`` alone;
    empty = where it likes."""
    if cores:
        os.sched_setaffinity(process, cores)
