"""Which trial won, and its config as a file that trains it again."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from vmcmc_dist.config import load_config, override, to_yaml
from vmcmc_dist.tuning.config import Sweep
from vmcmc_dist.tuning.folder import DIVERGED, DONE, FAILED, Event, SweepFolder


def ranked(events: Iterable[Event], sweep: Sweep) -> list[Event]:
    """Trials with every metric, the best by the first metric ahead; whole ones before stopped."""
    sign = 1.0 if sweep.mode == "min" else -1.0
    found = [
        e
        for e in events
        if e.status not in (FAILED, DIVERGED) and all(m in e.figures for m in sweep.metrics)
    ]
    return sorted(found, key=lambda e: (e.status != DONE, sign * e.figures[sweep.metrics[0]]))


def front(events: Iterable[Event], sweep: Sweep) -> list[Event]:
    """The trials that no other beats in every metric (several metrics), ordered by the first."""
    sign = 1.0 if sweep.mode == "min" else -1.0
    found = [e for e in ranked(events, sweep) if e.status == DONE]
    values = {e.trial: [sign * e.figures[m] for m in sweep.metrics] for e in found}

    def beaten(event: Event) -> bool:
        mine = values[event.trial]
        return any(
            all(a <= b for a, b in zip(other, mine, strict=True)) and other != mine
            for other in values.values()
        )

    return [e for e in found if not beaten(e)]


def write_best(folder: SweepFolder, sweep: Sweep, best: Event) -> None:
    """best.yaml: the sweep's config with the best trial's dials, its command in the head."""
    plain = load_config(sweep.config, sweep.settings)
    config = dataclasses.replace(
        override(plain, best.settings), name=f"{sweep.name}-best", out=sweep.out
    )
    dials = ", ".join(f"{key}={value}" for key, value in best.settings.items())
    figures = ", ".join(f"{name} {best.figures[name]:.4g}" for name in sweep.metrics)
    head = (
        f"# vmcmc train {folder.best}\n#\n"
        f"# Trial {best.trial} of the sweep {sweep.name}: {figures} at {best.images:,} images.\n"
        f"# {dials}\n"
    )
    partial = folder.best.with_suffix(".partial")
    partial.write_text(head + to_yaml(config))
    partial.replace(folder.best)
