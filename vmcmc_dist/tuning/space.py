"""Dials: what a sweep may turn, how a value is drawn, and that every value makes a config.

langevin.step_size: {log: [0.5, 4.0]}         uniform in the logarithm
energy.penalty: {uniform: [0.0, 0.2]}
langevin.steps: {int: [4, 32]}                whole numbers; log: true possible
vae.sigma: {choice: [0.3, 0.6, 1.0]}
"""

from __future__ import annotations

import difflib
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vmcmc_dist.config import Config, override, walk
from vmcmc_dist.errors import ConfigError
from vmcmc_dist.tuning.config import OWNED, Sweep

KINDS = ("log", "uniform", "int", "choice")
SAMPLED = 25
Settings = dict[str, Any]


@dataclass(frozen=True)
class Dial:
    """One key and the values it may take.

    Attributes:
        low, high: ends of a range, both included.
        log: whether a range is uniform in the logarithm.
        whole: whether values are whole numbers.
        choices: the values of a dial without a range.
    """

    key: str
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False
    choices: tuple[Any, ...] = ()

    def ends(self) -> list[Any]:
        """Both ends of a range, or every choice."""
        return list(self.choices) if self.choices else [self._value(self.low), self.fit(self.high)]

    def draw(self, rng: random.Random) -> Any:
        """A value by the dial's own measure."""
        return rng.choice(self.choices) if self.choices else self.at(rng.random())

    def at(self, share: float) -> Any:
        """The value at ``share`` in [0, 1] of the range."""
        if self.log:
            value = math.exp(
                math.log(self.low) + share * (math.log(self.high) - math.log(self.low))
            )
        elif self.whole:
            value = math.floor(self.low + share * (self.high - self.low + 1 - 1e-9))
        else:
            value = self.low + share * (self.high - self.low)
        return self.fit(value)

    def grid(self, points: int) -> list[Any]:
        """Evenly spaced values with both ends; every whole number where they are few."""
        if self.choices:
            return list(self.choices)
        if self.whole and not self.log and self.high - self.low < points:
            return list(range(int(self.low), int(self.high) + 1))
        if self.whole and not self.log:
            step = (self.high - self.low) / (points - 1)
            return list(dict.fromkeys(self.fit(self.low + step * k) for k in range(points)))
        return list(dict.fromkeys(self.at(k / (points - 1)) for k in range(points)))

    def fit(self, value: Any) -> Any:
        """The nearest value that the dial allows."""
        if self.choices:
            return value if value in self.choices else self.choices[0]
        return self._value(min(max(value, self.low), self.high))

    def _value(self, value: float) -> Any:
        if self.whole:
            return round(value)
        return min(max(float(f"{value:.6g}"), self.low), self.high)


def dials(space: dict[str, Any], base: Config) -> list[Dial]:
    """The dials of a sweep's ``space``.

    Raises:
        ConfigError: a key that no config has (with the nearest right one), one that the sweep
            decides, or something that is no range.
    """
    leaves = {key: item for key, item, _ in walk(base)}
    if not space:
        raise ConfigError("space is empty: name a key and its range, e.g. langevin.steps: …")
    found = []
    for key, spec in space.items():
        if key not in leaves:
            raise ConfigError(f"space: {key} is no key of the config{_nearest(key, leaves)}")
        if key in OWNED:
            raise ConfigError(f"space: {key} {OWNED[key]}")
        dial = read(key, spec)
        if str(leaves[key].type) == "int" and not (dial.whole or dial.choices):
            raise ConfigError(f"space: {key} takes whole numbers; say {{int: [low, high]}}")
        found.append(dial)
    return found


def read(key: str, spec: Any) -> Dial:
    """One dial of a sweep file."""
    form = f"space: {key} must be {{log|uniform|int: [low, high]}} or {{choice: [..]}}, got {spec}"
    if not isinstance(spec, dict):
        raise ConfigError(form)
    spec = dict(spec)
    log = spec.pop("log", False) if "int" in spec else False
    if len(spec) != 1 or next(iter(spec)) not in KINDS or not isinstance(log, bool):
        raise ConfigError(form)
    kind, values = next(iter(spec.items()))
    if not isinstance(values, list) or not values:
        raise ConfigError(form)
    if kind == "choice":
        return Dial(key, choices=tuple(values))
    numbers = (int,) if kind == "int" else (int, float)
    good = all(isinstance(v, numbers) and not isinstance(v, bool) for v in values)
    if len(values) != 2 or not good:
        raise ConfigError(form)
    low, high = values
    log = log or kind == "log"
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ConfigError(f"space: {key} needs low < high, both finite, got {values}")
    if log and low <= 0:
        raise ConfigError(f"space: {key} has a logarithm and starts at {low:g}: start above 0")
    return Dial(key, low, high, log, kind == "int")


def check_values(found: Sequence[Dial], base: Config, seed: int = 0) -> list[Settings]:
    """Make a config with every end of every dial, and with draws of all; returns those settings.

    Raises:
        ConfigError: the first value that no config takes, with why.
    """
    tried: list[Settings] = [{dial.key: value} for dial in found for value in dial.ends()]
    rng = random.Random(seed)
    drawn = [{dial.key: dial.draw(rng) for dial in found} for _ in range(SAMPLED)]
    for settings in [*tried, *drawn]:
        try:
            override(base, settings)
        except ConfigError as error:
            words = ", ".join(f"{key}={value}" for key, value in settings.items())
            raise ConfigError(f"space: {words} makes no config: {error}") from None
    return drawn


def grid_size(found: Sequence[Dial], points: int) -> int:
    return math.prod(len(dial.grid(points)) for dial in found)


def check_grid(found: Sequence[Dial], sweep: Sweep) -> None:
    """ConfigError for a grid of more points than the sweep has trials."""
    size = grid_size(found, sweep.points)
    if size > sweep.trials:
        parts = " × ".join(f"{len(d.grid(sweep.points))} of {d.key}" for d in found)
        raise ConfigError(
            f"the grid has {size:,} points ({parts}), trials={sweep.trials}: allow more trials, "
            "lower points, or take search=random"
        )


def _nearest(key: str, leaves: dict[str, Any]) -> str:
    near = difflib.get_close_matches(key, leaves, n=2, cutoff=0.6)
    if not near:  # the right name in the wrong group
        last = key.split(".")[-1]
        near = [k for k in leaves if k.split(".")[-1] == last][:2]
    return f"; did you mean {' or '.join(near)}?" if near else "; `vmcmc train --help` lists them"
