"""A search from its file to its best config: check, prepare, run the trials, choose.

outcome = tune(load_sweep("configs/sweeps/toy2d.yaml"))
"""

from __future__ import annotations

import importlib.util
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from vmcmc_dist.config import Config
from vmcmc_dist.engine.launch import prepare_data
from vmcmc_dist.engine.resources import check_data
from vmcmc_dist.engine.run_folder import RunFolder, describe_environment
from vmcmc_dist.engine.terminal import Terminal
from vmcmc_dist.errors import ConfigError
from vmcmc_dist.tuning.best import ranked, write_best
from vmcmc_dist.tuning.config import Sweep, base_config
from vmcmc_dist.tuning.folder import ENDED, RUNNING, Event, SweepFolder
from vmcmc_dist.tuning.metrics import check_metrics
from vmcmc_dist.tuning.run import SweepRun
from vmcmc_dist.tuning.schedulers import check_scheduler
from vmcmc_dist.tuning.search import Search, make_search
from vmcmc_dist.tuning.space import Dial, check_grid, check_values, dials


@dataclass
class Outcome:
    """How a search ended.

    Attributes:
        best: the best trial, if one has a value.
        interrupted: a stop was asked for; the same command goes on.
    """

    folder: SweepFolder
    trials: dict[str, Event]
    best: Event | None
    interrupted: bool
    seconds: float


def tune(sweep: Sweep, address: str | None = None) -> Outcome:
    """Search, or go on with a search: the same call again starts no ended trial a second time.

    Raises:
        UserError: a sweep that cannot work, before any trial starts; no Ray; no place for a trial.
    """
    base, found = check(sweep)
    outcome = run_sweep(sweep, base, found, make_search(found, sweep), address)
    if outcome.best is not None:
        write_best(outcome.folder, sweep, outcome.best)
    return outcome


def run_sweep(
    sweep: Sweep, base: Config, found: list[Dial], search: Search, address: str | None
) -> Outcome:
    """Run the trials of a search that were not run before, in the sweep's folder."""
    started = time.monotonic()
    folder = SweepFolder(sweep.folder)
    folder.create()
    with RunFolder(folder.path).locked(), Terminal(folder.log) as terminal:
        say = _plain(terminal)
        folder.stop.unlink(missing_ok=True)
        folder.write(sweep, base)
        folder.end_torn_line()
        RunFolder(folder.path).write_environment(describe_environment())
        check_data(base, prepare_data(base, say))
        earlier = folder.trials()
        say(describe(sweep, search, earlier))
        if len(earlier) < search.count or any(e.status == RUNNING for e in earlier.values()):
            run = SweepRun(sweep, base, folder, found, search, address, say)
            try:
                with stop_requests(folder, run, say):
                    run.run()
            finally:
                run.close()
    events = folder.trials()
    order = ranked(events.values(), sweep)
    interrupted = folder.stop.exists()
    folder.stop.unlink(missing_ok=True)
    seconds = time.monotonic() - started
    return Outcome(folder, events, order[0] if order else None, interrupted, seconds)


def check(sweep: Sweep) -> tuple[Config, list[Dial]]:
    """The base config and the dials, after everything that can be said without Ray and data.

    Raises:
        ConfigError: what cannot work, and what to change.
    """
    base = base_config(sweep)
    found = dials(sweep.space, base)
    check_metrics(sweep.metrics, base)
    check_scheduler(sweep, found, base)
    if sweep.search == "grid":
        check_grid(found, sweep)
    if sweep.search == "tpe" and importlib.util.find_spec("optuna") is None:
        raise ConfigError("search=tpe needs the package optuna: pip install 'vmcmc_dist[tune]'")
    check_values(found, base, sweep.seed)
    return base, found


def describe(sweep: Sweep, search: Search, earlier: dict[str, Event]) -> str:
    """One line: what is searched, how, and what is done already."""
    done = sum(event.status in ENDED for event in earlier.values())
    going = sum(event.status == RUNNING for event in earlier.values())
    parts = [
        f"{sweep.name}: {search.count:,} trials over {', '.join(sweep.space)}",
        f"search {sweep.search}, scheduler {sweep.scheduler}",
        f"{sweep.mode} of {', '.join(sweep.metrics)}",
    ]
    if earlier:
        parts.append(f"going on: {done} ended before, {going} go on from their checkpoints")
    return "; ".join(parts)


def _plain(terminal: Terminal) -> Callable[..., None]:
    def say(text: str, **_: Any) -> None:
        terminal.console.print(text, soft_wrap=True, highlight=False, markup=False)

    return say


@contextmanager
def stop_requests(folder: SweepFolder, run: SweepRun, say: Callable[[str], Any]) -> Iterator[None]:
    """Ctrl-C or SIGTERM: the running trials save and end; a second one ends all at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, _frame: Any) -> None:
        if folder.stop.exists():
            raise KeyboardInterrupt
        folder.stop.touch()
        run.stop_trials()
        say("stopping: the running trials are being saved (again to stop at once)")

    before = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
