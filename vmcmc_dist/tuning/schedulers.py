"""Which trials go on: Ray Tune's scheduler, by images, ready to go on after its process died."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from ray.tune.schedulers import ASHAScheduler, FIFOScheduler

from vmcmc_dist.config import Config
from vmcmc_dist.errors import ConfigError
from vmcmc_dist.tuning.config import Sweep
from vmcmc_dist.tuning.folder import Event
from vmcmc_dist.tuning.metrics import figure_interval
from vmcmc_dist.tuning.space import Dial

FIXED_IN_A_RUN = ("data.", "condition.", "sampling.", "evaluation.", "train.", "seed")
NET_KEYS = ("net", "width", "depth", "spectral_norm", "latent_dim", "dropout", "zero_stage")


def make_scheduler(sweep: Sweep, base: Config, events: Sequence[Event] = ()) -> Any:
    """The scheduler, told all figures of earlier: Ray Tune does not keep what its rungs hold.

    To Ray Tune a generation of a population is a search without one.
    """
    if sweep.scheduler == "asha":
        asha = ASHAScheduler(
            time_attr="images",
            metric=sweep.metrics[0],
            mode=sweep.mode,
            max_t=base.train.images,
            grace_period=first_rung(sweep, base),
            reduction_factor=sweep.asha.factor,
        )
        _replay(asha, sweep, events)
        return asha
    return FIFOScheduler()


def _replay(asha: ASHAScheduler, sweep: Sweep, events: Sequence[Event]) -> None:
    known: set[str] = set()
    for event in events:
        if sweep.metrics[0] not in event.figures:
            continue
        trial: Any = SimpleNamespace(trial_id=event.trial)
        if event.trial not in known:
            known.add(event.trial)
            asha.on_trial_add(None, trial)  # type: ignore[arg-type]
        result = {"images": event.images, sweep.metrics[0]: event.figures[sweep.metrics[0]]}
        asha.on_trial_result(None, trial, result)  # type: ignore[arg-type]


def first_rung(sweep: Sweep, base: Config) -> int:
    return sweep.asha.first_images or figure_interval(sweep.metrics, base)


def check_scheduler(sweep: Sweep, dials: Sequence[Dial], base: Config) -> None:
    """ConfigError for a scheduler that cannot do what the sweep asks of it."""
    if sweep.scheduler == "none":
        return
    if len(sweep.metrics) > 1:
        raise ConfigError(
            f"scheduler={sweep.scheduler} compares trials by one metric, the sweep has "
            f"{len(sweep.metrics)}: take scheduler=none"
        )
    interval = figure_interval(sweep.metrics, base)
    if interval >= base.train.images:
        raise ConfigError(
            f"scheduler={sweep.scheduler} judges trials on their way, but {sweep.metrics[0]} comes "
            f"every {interval:,} images and a trial has {base.train.images:,}: make it oftener "
            "(train.sample_images, evaluation.every_images)"
        )
    if sweep.scheduler == "asha":
        if any(dial.key == "train.images" for dial in dials):
            raise ConfigError("space: train.images is what scheduler=asha shortens; leave it out")
        if first_rung(sweep, base) >= base.train.images:
            raise ConfigError(
                f"asha.first_images={sweep.asha.first_images:,} is no less than "
                f"train.images={base.train.images:,}"
            )
        return
    if sweep.pbt.every_images >= base.train.images:
        raise ConfigError(
            f"pbt.every_images={sweep.pbt.every_images:,} is no less than "
            f"train.images={base.train.images:,}: no trial would ever be replaced"
        )
    for dial in dials:
        group, _, name = dial.key.rpartition(".")
        if dial.key.startswith(FIXED_IN_A_RUN) or name in NET_KEYS:
            raise ConfigError(
                f"space: {dial.key} cannot change within a run, as scheduler=pbt would have it; "
                "leave it out, or take scheduler=asha"
            )
    if sweep.search != "random":
        raise ConfigError(f"scheduler=pbt begins with random draws: search={sweep.search} cannot")
    if sweep.trials < 2:
        raise ConfigError("scheduler=pbt needs a population: trials of 2 or more")
