"""The folder of a sweep: what is written, and how a search is read back from it.

runs/NAME/
    sweep.yaml       the resolved sweep
    config.yaml      what every trial starts from
    trials.jsonl     one line per event of a trial; the last line of a trial counts
    trials/0007/     an ordinary run folder
    best.yaml        config of the best trial, and the command that trains it
    population.json  scheduler=pbt: who went on from whom, by images, and with which settings
    proof.json       the best and the default, trained again with other seeds
    log.txt          what Ray has to say
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vmcmc_dist.config import Config, fill, identity_changes, load_config, to_dict, to_yaml
from vmcmc_dist.engine.run_folder import RunFolder, complete_lines
from vmcmc_dist.errors import ConfigError, ResourceError
from vmcmc_dist.tuning.config import RESUMABLE, Sweep

RUNNING, DONE, STOPPED, FAILED, DIVERGED = "running", "done", "stopped", "failed", "diverged"
ENDED = (DONE, STOPPED, FAILED, DIVERGED)
NO_DIALS = ("trial", "sweep", "until")
"""What the config of a trial holds beside its dials: see :class:`TrainingTrial`."""


@dataclass
class Event:
    """A line of ``trials.jsonl``.

    Attributes:
        trial: its number, four digits or more.
        status: running, done, stopped (by the scheduler), failed, or diverged.
        settings: the dials' values.
        images: trained when ``figures`` were made.
        seconds: of training. ``start_seconds``: from the trial's start to its first iteration's
            end.
        failures: deaths of its process so far.
    """

    trial: str
    status: str
    settings: dict[str, Any]
    images: int = 0
    figures: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    start_seconds: float = 0.0
    folder: str = ""
    failures: int = 0
    reason: str = ""


class SweepFolder:
    """Paths of a sweep and its table of trials."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.sweep = self.path / "sweep.yaml"
        self.config = self.path / "config.yaml"
        self.table = self.path / "trials.jsonl"
        self.best = self.path / "best.yaml"
        self.proof = self.path / "proof.json"
        self.population = self.path / "population.json"
        self.log = self.path / "log.txt"
        self.stop = self.path / ".stop"
        self.tune = self.path / ".tune"

    def create(self) -> None:
        RunFolder(self.path).create()
        (self.path / "samples").rmdir()
        (self.path / "trials").mkdir(exist_ok=True)

    def trial(self, number: str) -> RunFolder:
        return RunFolder(self.path / "trials" / number)

    def write(self, sweep: Sweep, base: Config) -> None:
        """sweep.yaml and config.yaml, where they are not those of another sweep.

        Raises:
            ConfigError: the folder holds another sweep, with what differs.
        """
        if self.sweep.exists():
            changes = sweep_changes(fill(Sweep, [], self.sweep), sweep)
            if self.config.exists():
                old = to_dict(load_config(self.config))
                changes += [c for c in identity_changes(old, to_dict(base)) if "resources" not in c]
            if changes:
                raise ConfigError(
                    f"{self.path} holds another sweep:\n  "
                    + "\n  ".join(changes)
                    + "\nGive this sweep another name=…, or the old settings to go on with that one"
                )
        for path, content in ((self.sweep, sweep), (self.config, base)):
            partial = path.with_suffix(".partial")
            partial.write_text(to_yaml(content))
            partial.replace(path)

    def append(self, event: Event) -> None:
        """One more line, on the disk when this returns."""
        try:
            with self.table.open("a") as file:
                file.write(json.dumps(asdict(event), allow_nan=False) + "\n")
        except OSError as error:
            raise ResourceError(
                f"{self.table} cannot be written ({error.strerror or error}). Make room and run "
                "the same command again."
            ) from None

    def events(self) -> list[Event]:
        """All lines, oldest first."""
        if not self.table.exists():
            return []
        return [Event(**line) for line in complete_lines(self.table)]

    def end_torn_line(self) -> None:
        """Cut off a line that a kill left unfinished."""
        if not self.table.exists():
            return
        content = self.table.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            self.table.write_bytes(whole)

    def trials(self) -> dict[str, Event]:
        """The last line of every trial, by number."""
        return {event.trial: event for event in self.events()}


def sweep_changes(old: Sweep, new: Sweep) -> list[str]:
    """Lines ``key: old → new`` for each difference that makes it another sweep."""
    before, after = asdict(old), asdict(new)
    return [
        f"{key}: {before[key]!r} → {after[key]!r}"
        for key in before
        if key not in RESUMABLE and before[key] != after[key]
    ]
