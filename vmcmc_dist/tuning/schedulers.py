"""Which trials go on: Ray Tune's schedulers, by images, ready to go on after their process died."""

from __future__ import annotations

import random
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, PopulationBasedTraining

from vmcmc_dist.config import Config
from vmcmc_dist.errors import ConfigError
from vmcmc_dist.tuning.config import Sweep
from vmcmc_dist.tuning.folder import Event
from vmcmc_dist.tuning.metrics import figure_interval
from vmcmc_dist.tuning.space import Dial

FIXED_IN_A_RUN = ("data.", "condition.", "sampling.", "evaluation.", "train.", "seed")
NET_KEYS = ("net", "width", "depth", "spectral_norm", "latent_dim", "dropout", "zero_stage")


class Population(PopulationBasedTraining):
    """Ray Tune's, where a replaced trial keeps its number, and every value stays in its range."""

    def __init__(self, dials: Sequence[Dial], **settings: Any):
        self.dials = list(dials)
        super().__init__(hyperparam_mutations={d.key: domain(d) for d in dials}, **settings)

    def _get_new_config(self, trial: Any, trial_to_clone: Any) -> tuple[Any, Any]:
        changed, operations = super()._get_new_config(trial, trial_to_clone)
        for dial in self.dials:
            changed[dial.key] = dial.fit(changed[dial.key])
        changed["trial"] = trial.config["trial"]
        return changed, operations

    def _exploit(self, tune_controller: Any, trial: Any, trial_to_clone: Any) -> None:
        """As Ray Tune's, but a replaced trial goes behind those that wait.

        With its donor's age it would be the next to run, be replaced again, and so on, while the
        donor waits.
        """
        super()._exploit(tune_controller, trial, trial_to_clone)
        states = self._trial_state
        states[trial].last_train_time = max(state.last_train_time for state in states.values())


def domain(dial: Dial) -> Any:
    """The dial as Ray Tune draws from it."""
    if dial.choices:
        return list(dial.choices)
    return lambda: dial.draw(random.Random())


def make_scheduler(
    sweep: Sweep, dials: Sequence[Dial], base: Config, events: Sequence[Event] = ()
) -> Any:
    """The scheduler, told all figures of earlier: Ray Tune does not keep what its rungs hold."""
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
    if sweep.scheduler == "pbt":
        return Population(
            dials,
            time_attr="images",
            metric=sweep.metrics[0],
            mode=sweep.mode,
            perturbation_interval=every_images(sweep, base),
            quantile_fraction=sweep.pbt.quantile,
            resample_probability=sweep.pbt.resample,
            log_config=False,
        )
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


def every_images(sweep: Sweep, base: Config) -> int:
    return sweep.pbt.every_images or figure_interval(sweep.metrics, base)


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
