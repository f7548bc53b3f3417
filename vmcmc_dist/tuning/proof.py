"""Is the best setting better, or was it luck? Both it and the default are trained again.

The search chose the least of many noisy numbers, so the best trial's own number flatters it. Here
the best settings and the sweep's config without any dial turned are trained ``n`` times each, with
seeds that the search did not use, the same for both.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Sequence
from typing import Any

from vmcmc_dist.errors import ResourceError
from vmcmc_dist.tuning.config import Sweep, base_config
from vmcmc_dist.tuning.folder import DONE, Event, SweepFolder
from vmcmc_dist.tuning.search import ListSearch
from vmcmc_dist.tuning.space import Settings
from vmcmc_dist.tuning.sweep import Outcome, run_sweep

FIRST_SEED = 1000
SIDES = ("default", "best")


def prove(sweep: Sweep, best: Event, n: int, address: str | None = None) -> Outcome:
    """Train both ``n`` times and write ``proof.json``; the same call again goes on.

    Raises:
        UserError: as :func:`vmcmc_dist.tuning.sweep.tune`; or a side of which nothing came.
    """
    again = dataclasses.replace(
        sweep,
        name=f"proof-{best.trial}",
        out=str(sweep.folder),
        search="random",
        scheduler="none",
        trials=2 * n,
        keep=0,
        minutes=0.0,
    )
    search = ListSearch(proof_settings(best.settings, n))
    outcome = run_sweep(again, base_config(again), [], search, address)
    if not outcome.interrupted:
        record = proof_record(sweep, best, n, list(outcome.trials.values()))
        partial = SweepFolder(sweep.folder).proof.with_suffix(".partial")
        partial.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n")
        partial.replace(SweepFolder(sweep.folder).proof)
    return outcome


def proof_settings(best: Settings, n: int) -> list[Settings]:
    """Default and best in turn, each pair with a seed of its own; more pairs only add to them."""
    seeds = range(FIRST_SEED, FIRST_SEED + n)
    return [settings | {"seed": seed} for seed in seeds for settings in ({}, best)]


def proof_record(sweep: Sweep, best: Event, n: int, trials: Sequence[Event]) -> dict[str, Any]:
    """Values, mean and standard deviation (n − 1) of both sides, and of their differences.

    Raises:
        ResourceError: a side of which no training came to its end.
    """
    found = {event.trial: event for event in trials if event.status == DONE}
    pairs = [(found.get(f"{2 * k:04d}"), found.get(f"{2 * k + 1:04d}")) for k in range(n)]
    record: dict[str, Any] = {
        "trial": best.trial,
        "settings": best.settings,
        "mode": sweep.mode,
        "n": n,
        "images": max((e.images for e in found.values()), default=0),
        "metrics": {},
    }
    for name in sweep.metrics:
        sides = {
            side: [pair[k].figures[name] for pair in pairs if pair[k] is not None]  # type: ignore[union-attr]
            for k, side in enumerate(SIDES)
        }
        for side, values in sides.items():
            if not values:
                raise ResourceError(f"no training of the {side} came to its end: see {trials}")
        differences = [
            one.figures[name] - other.figures[name] for other, one in pairs if other and one
        ]
        figures: dict[str, Any] = {side: summary(values) for side, values in sides.items()}
        if differences:
            figures["difference"] = summary(differences)
        record["metrics"][name] = figures
    return record


def summary(values: Sequence[float]) -> dict[str, Any]:
    """``{"values": […], "mean": …, "sd": …}``; sd is null for a single value."""
    sd = statistics.stdev(values) if len(values) > 1 else None
    return {"values": list(values), "mean": statistics.fmean(values), "sd": sd}


def proof_lines(record: dict[str, Any]) -> list[str]:
    """For the terminal: ``fd_thumbnail  default 1.2 ± 0.1, best 0.8 ± 0.1, difference …``."""
    lines = []
    for name, figures in record["metrics"].items():
        parts = [f"{side} {_plus_minus(found)}" for side, found in figures.items()]
        lines.append(f"{name}: {', '.join(parts)} ({record['n']} seeds each)")
    return lines


def _plus_minus(found: dict[str, Any]) -> str:
    sd = "" if found["sd"] is None else f" ± {found['sd']:.2g}"
    return f"{found['mean']:.4g}{sd}"
