"""A sweep file: which config, which dials, how they are searched, and what each trial may use.

    sweep = load_sweep("configs/sweeps/toy2d.yaml", ["trials=8", "train.images=5000"])

A ``key=value`` whose first part is a key of the sweep belongs to the sweep; every other is a
setting of the config, for every trial.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from vmcmc_dist.config import Config, fill, load_config
from vmcmc_dist.errors import ConfigError
from vmcmc_dist.settings import setting


@dataclass
class AshaConfig:
    """Asynchronous successive halving: at each rung only the better part goes on."""

    first_images: int = setting(
        0, "images of the first rung; 0 = those of the first figure", unit="images", ge=0
    )
    factor: float = setting(3.0, "rungs at first × factor^k; the best 1/factor go on", gt=1)


@dataclass
class PbtConfig:
    """Population-based training: the worst go on from the best, with settings near theirs."""

    every_images: int = setting(
        0, "images between two comparisons; 0 = those between figures", unit="images", ge=0
    )
    quantile: float = setting(
        0.25, "share of the trials that is replaced, and that is copied", gt=0, le=0.5
    )
    resample: float = setting(
        0.25, "probability that a dial is drawn anew, not moved by a fifth", ge=0, le=1
    )


@dataclass
class Sweep:
    """Everything that a search depends on."""

    name: str = setting("sweep", "the sweep's folder under `out`; the same name goes on with it")
    out: str = setting("runs", "folder of sweep folders")
    config: str = setting("", "config file of every trial, relative to the sweep file")
    settings: list[str] = setting([], "key=value, for every trial")
    space: dict[str, Any] = setting(
        {}, "dials: KEY: {log|uniform|int: [low, high]} or {choice: [..]}"
    )
    search: Literal["random", "grid", "tpe"] = setting(
        "random", "random draws; every point of a grid; Optuna's tree of Parzen estimators"
    )
    trials: int = setting(20, "trials in all; a grid's most points", ge=1)
    points: int = setting(5, "points of a range in a grid, its ends among them", ge=2)
    first_trials: int = setting(10, "tpe: random trials before it models anything", ge=1)
    metric: Any = setting(
        "fd_thumbnail", "figure of the evaluations or of the sample records; or a list of them"
    )
    mode: Literal["min", "max"] = setting("min", "whether less or more of the metric is better")
    scheduler: Literal["none", "asha", "pbt"] = setting("none", "which trials go on")
    asha: AshaConfig = field(default_factory=AshaConfig)
    pbt: PbtConfig = field(default_factory=PbtConfig)
    workers: int = setting(1, "data-parallel workers of a trial", ge=1)
    cpus_per_trial: float = setting(1.0, "CPUs of each worker of a trial", ge=0)
    gpus_per_trial: float = setting(0.0, "GPUs of each worker; a fraction is shared", ge=0)
    concurrent: int = setting(0, "trials at a time; 0 = as many as the cluster holds", ge=0)
    max_failures: int = setting(2, "restarts of a trial whose process dies", ge=0)
    minutes: float = setting(
        0.0, "start no more trials after this time; 0 = no limit", unit="minutes", ge=0
    )
    keep: int = setting(
        0, "finished trials whose checkpoints are kept, the best ones; 0 = all", ge=0
    )
    seed: int = setting(0, "of the draws (the seed of every training is the config's)", ge=0)

    @property
    def metrics(self) -> list[str]:
        """The metrics, one or several."""
        return [self.metric] if isinstance(self.metric, str) else list(self.metric)

    @property
    def folder(self) -> Path:
        return Path(self.out).absolute() / self.name


RESUMABLE = {
    "out", "trials", "cpus_per_trial", "gpus_per_trial", "workers", "concurrent", "max_failures",
    "minutes", "keep",
}  # fmt: skip
"""Keys that may change when a sweep goes on; any other change is another sweep."""


def load_sweep(path: str | Path, overrides: Sequence[str] = ()) -> Sweep:
    """Read a sweep file and ``key=value`` into a :class:`Sweep`, its config's path made absolute.

    Raises:
        ConfigError: unreadable, an unknown key, a value of the wrong type or out of range.
    """
    own = {item.name for item in dataclasses.fields(Sweep)}
    mine = [item for item in overrides if item.split("=")[0].split(".")[0] in own]
    sweep = fill(Sweep, mine, path)
    if any(c in sweep.name for c in "/\\:") or sweep.name in ("", ".", ".."):
        raise ConfigError(f"name must be a plain folder name, got {sweep.name!r}")
    if "://" in sweep.out:
        raise ConfigError(f"out={sweep.out}: a sweep's folder is one that every node mounts")
    if not sweep.config:
        raise ConfigError(f"{path}: config is missing: the config file of every trial")
    names = sweep.metrics
    if not names or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"metric must be a name or a list of names, got {sweep.metric!r}")
    config = Path(sweep.config)
    return dataclasses.replace(
        sweep,
        out=str(Path(sweep.out).absolute()),
        config=str(config if config.is_absolute() else (Path(path).parent / config).resolve()),
        settings=[*sweep.settings, *(item for item in overrides if item not in mine)],
        metric=sweep.metric if isinstance(sweep.metric, str) else names,
    )


def base_config(sweep: Sweep) -> Config:
    """The config that every trial changes: the file, the settings, and what sweeps need.

    One worker needs no Ray Train of its own, an evaluation is waited for (a rung is judged at its
    own images), and a run that is lost stops instead of going back.
    """
    for item in sweep.settings:
        key = item.split("=")[0]
        if key in OWNED and key != "preset":
            raise ConfigError(f"settings: {key} {OWNED[key]}")
    forced = [
        f"name={sweep.name}",
        f"out={sweep.folder / 'trials'}",
        f"launcher={'local' if sweep.workers == 1 else 'ray'}",
        f"resources.workers={sweep.workers}",
        f"resources.device={'cuda' if sweep.gpus_per_trial else 'cpu'}",
        f"resources.cpus_per_worker={sweep.cpus_per_trial:g}",
        f"resources.max_failures={sweep.max_failures}",
        "evaluation.where=here",
    ]
    chosen = {item.split("=")[0] for item in sweep.settings}
    for key, value in (
        ("guard.action", "stop"),
        ("watch.tensorboard", "false"),
        ("resources.threads", str(max(1, int(sweep.cpus_per_trial)))),
    ):
        if key not in chosen:
            forced.append(f"{key}={value}")
    return load_config(sweep.config, [*sweep.settings, *forced])


OWNED = {
    "name": "is the sweep's: set name",
    "out": "is the sweep's: set out",
    "launcher": "is the sweep's: one worker trains in its trial's process, more under Ray Train",
    "train.pause_images": "is the sweep's: set pbt.every_images",
    "preset": "belongs in settings, as preset=NAME: presets are chosen before dials are set",
    "resources.workers": "is the sweep's: set workers",
    "resources.device": "is the sweep's: set gpus_per_trial",
    "resources.cpus_per_worker": "is the sweep's: set cpus_per_trial",
    "resources.max_failures": "is the sweep's: set max_failures",
    "resources.address": "is the sweep's: give --address",
    "evaluation.where": "is the sweep's: a trial waits for its evaluations",
}
"""Config keys that a sweep decides for its trials."""
