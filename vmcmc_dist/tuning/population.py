"""Population-based training, a generation at a time. Knows nothing of Ray.

All trials train to the same number of images. There the worst of them go on from the checkpoints
of the best, with settings near theirs, and all train to the next such number. No trial waits for
a place that another holds: a generation is a search like any other, which ends before the next.

What was decided is on the disk before it is done, so a search whose driver died goes on with it.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from vmcmc_dist.config import Config
from vmcmc_dist.tuning.config import Sweep
from vmcmc_dist.tuning.donor import adopt, has_adopted
from vmcmc_dist.tuning.folder import RUNNING, Event, SweepFolder
from vmcmc_dist.tuning.metrics import figure_interval
from vmcmc_dist.tuning.space import Dial, Settings

FACTORS = (0.8, 1.2)


@dataclass
class Replaced:
    """A trial that goes on from a donor's checkpoint, and with which settings."""

    trial: str
    donor: str
    settings: Settings


class Population:
    """Who trains next, and how far."""

    def __init__(
        self,
        sweep: Sweep,
        base: Config,
        dials: Sequence[Dial],
        folder: SweepFolder,
        say: Callable[[str], Any] = lambda text: None,
    ):
        self.sweep, self.dials, self.folder, self.say = sweep, dials, folder, say
        every, end = every_images(sweep, base), base.train.images
        self.rungs = [*range(every, end, every), end]
        found = folder.population
        self.decided: dict[str, list[dict[str, Any]]] = (
            json.loads(found.read_text()) if found.exists() else {}
        )

    def generation(self, events: Sequence[Event]) -> tuple[int, list[tuple[str, Settings]]]:
        """(images to train to, 0 for the end; the trials that are not there yet, with settings).

        Args:
            events: the last of each trial; those that were never started have 0 images.
        """
        alive = [e for e in events if e.status == RUNNING]
        before = 0
        for rung in self.rungs[:-1]:
            behind = [e for e in alive if e.images < rung]
            if behind:
                return rung, self._changed(before, alive, behind)
            before = rung
        return 0, self._changed(before, alive, alive)

    def _changed(
        self, rung: int, alive: list[Event], behind: list[Event]
    ) -> list[tuple[str, Settings]]:
        """The trials that leave this rung, after what was decided there was done."""
        replaced = {item.trial: item for item in self._decisions(rung, alive)} if rung else {}
        leaving = []
        for event in behind:
            item = replaced.get(event.trial)
            if item is not None:
                run, donor = self.folder.trial(item.trial), self.folder.trial(item.donor)
                if not has_adopted(run, item.donor, item.settings):
                    adopt(item.trial, run, donor, item.settings)
                    self.say(f"{item.trial} goes on from {item.donor} at {rung:,} images")
            leaving.append((event.trial, item.settings if item else event.settings))
        return leaving

    def _decisions(self, rung: int, alive: list[Event]) -> list[Replaced]:
        """Of this rung: those on the disk, or new ones, then on the disk."""
        key = str(rung)
        if key not in self.decided:
            self.decided[key] = [asdict(item) for item in self.replace(rung, alive)]
            partial = self.folder.population.with_suffix(".partial")
            partial.write_text(json.dumps(self.decided, indent=1, allow_nan=False) + "\n")
            partial.replace(self.folder.population)
        return [Replaced(**item) for item in self.decided[key]]

    def replace(self, rung: int, alive: Sequence[Event]) -> list[Replaced]:
        """The worst of the trials, each with a donor of the best and settings near the donor's."""
        sign = 1.0 if self.sweep.mode == "min" else -1.0
        name = self.sweep.metrics[0]
        order = sorted(alive, key=lambda e: (sign * e.figures[name], e.trial))
        n = min(math.ceil(len(order) * self.sweep.pbt.quantile), len(order) // 2)
        found = []
        for event in order[len(order) - n :]:
            rng = random.Random(f"{self.sweep.seed}:{rung}:{event.trial}")
            donor = rng.choice(order[:n])
            found.append(Replaced(event.trial, donor.trial, self.near(donor.settings, rng)))
        return found

    def near(self, settings: Settings, rng: random.Random) -> Settings:
        """Each dial moved by a fifth (a choice: to its neighbour), or drawn anew."""
        return {
            dial.key: (
                dial.draw(rng)
                if rng.random() < self.sweep.pbt.resample
                else beside(dial, settings[dial.key], rng)
            )
            for dial in self.dials
        }


def beside(dial: Dial, value: Any, rng: random.Random) -> Any:
    """A value near this one: a whole number moves by one at least; ends of a range hold."""
    up = rng.random() < 0.5
    if dial.choices:
        at = dial.choices.index(value) + (1 if up else -1)
        return dial.choices[min(max(at, 0), len(dial.choices) - 1)]
    moved = value * FACTORS[up]
    if dial.whole and round(moved) == value:
        moved = value + (1 if up else -1)
    return dial.fit(moved)


def every_images(sweep: Sweep, base: Config) -> int:
    """Images between two generations."""
    return sweep.pbt.every_images or figure_interval(sweep.metrics, base)
