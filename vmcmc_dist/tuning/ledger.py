"""Follows the trials: writes the table, tells the search, and says how the sweep stands."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

from ray.tune import Callback

from vmcmc_dist.tuning.best import ranked
from vmcmc_dist.tuning.config import Sweep
from vmcmc_dist.tuning.folder import (
    DONE,
    ENDED,
    FAILED,
    NO_DIALS,
    RUNNING,
    STOPPED,
    Event,
    SweepFolder,
)
from vmcmc_dist.tuning.search import Search
from vmcmc_dist.tuning.space import Settings

TIMES = ("begun", "first_step", "end")


class Ledger(Callback):
    """One line of ``trials.jsonl`` for each event of a trial.

    ``times``, if given, gets when each trial began, was past its first iteration, and ended, by
    its process's clock, and the process's number.
    """

    def __init__(
        self,
        folder: SweepFolder,
        sweep: Sweep,
        search: Search,
        say: Callable[[str], Any],
        times: dict[str, dict[str, float]] | None = None,
    ):
        self.folder, self.sweep, self.search, self.say = folder, sweep, search, say
        self.events = folder.trials()
        self.running: set[str] = set()
        self.interrupted: set[str] = set()
        self.times = times

    # -- what Ray Tune calls --------------------------------------------------------------------

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        number = trial.trial_id
        self.running.add(number)
        self._write(self._event(trial, RUNNING))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any
    ) -> None:
        if result["interrupted"]:
            self.interrupted.add(trial.trial_id)
            return
        if self.times is not None:
            told = {k: result["told"][k] for k in TIMES if k in result["told"]}
            self.times.setdefault(trial.trial_id, {}).update(told, pid=result["pid"])
        if result["status"] == RUNNING:
            self._write(self._event(trial, RUNNING, result))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        result = trial.last_result
        status = result["status"]
        if result["waits"]:  # for the others of its generation
            self.running.discard(trial.trial_id)
            self._write(self._event(trial, RUNNING, result))
            self._forget(trial)
            return
        self._end(trial, STOPPED if status == RUNNING else status, result)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        self._write(self._event(trial, RUNNING))
        self.say(f"{trial.trial_id} died and is started again from its last checkpoint")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        error = trial.get_error() or trial.get_pickled_error()
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        self._end(trial, FAILED, None, lines[-1] if lines else "its process died")

    # -- the table ------------------------------------------------------------------------------

    def _event(self, trial: Any, status: str, result: dict[str, Any] | None = None) -> Event:
        before = self.events.get(trial.trial_id)
        settings: Settings = {
            key: value for key, value in trial.config.items() if key not in NO_DIALS
        }
        event = Event(trial.trial_id, status, settings, folder=f"trials/{trial.trial_id}")
        if before is not None:
            event.images, event.figures = before.images, before.figures
            event.seconds, event.start_seconds = before.seconds, before.start_seconds
            event.failures = before.failures
        event.failures = max(event.failures, trial.num_failures)
        if result is not None:
            told = result["told"]
            event.images = result["images"]
            event.figures = told["figures"]
            event.seconds = round(told["seconds"], 3)
            event.start_seconds = round(told.get("start_seconds", event.start_seconds), 3)
            event.reason = told["reason"]
        return event

    def _end(
        self, trial: Any, status: str, result: dict[str, Any] | None, reason: str = ""
    ) -> None:
        event = self._event(trial, status, result)
        event.reason = event.reason or reason
        self.running.discard(trial.trial_id)
        self._write(event)
        self.search.tell(event)
        self._forget(trial)
        self.say(self.line(event))
        if self.sweep.keep and status in ENDED:
            self._prune()

    def _write(self, event: Event) -> None:
        self.folder.append(event)
        self.events[event.trial] = event

    @staticmethod
    def _forget(trial: Any) -> None:
        """What Ray Tune keeps of every result of a trial; a thousand trials would not be small."""
        trial.run_metadata.metric_analysis.clear()
        trial.run_metadata.metric_n_steps.clear()
        trial.invalidate_json_state()

    def _prune(self) -> None:
        """Remove the checkpoints of ended trials that are not among the best."""
        order = [e.trial for e in ranked(self.events.values(), self.sweep) if e.status == DONE]
        for event in self.events.values():
            if event.status in ENDED and event.trial not in order[: self.sweep.keep]:
                shutil.rmtree(self.folder.trial(event.trial).checkpoints, ignore_errors=True)

    # -- for people -----------------------------------------------------------------------------

    def line(self, event: Event) -> str:
        """``0007 done, fd_thumbnail 1.23; best 0.98 by 0003; 8 of 40, 2 running``."""
        names = self.sweep.metrics
        values = ", ".join(f"{n} {event.figures[n]:.4g}" for n in names if n in event.figures)
        parts = [f"{event.trial} {event.status}" + (f", {values}" if values else "")]
        if event.reason:
            parts[0] += f" ({event.reason})"
        best = ranked(self.events.values(), self.sweep)
        if best:
            parts.append(f"best {best[0].figures[names[0]]:.4g} by {best[0].trial}")
        ended = sum(e.status in ENDED for e in self.events.values())
        parts.append(f"{ended} of {self.search.count}, {len(self.running)} running")
        return "; ".join(parts)
