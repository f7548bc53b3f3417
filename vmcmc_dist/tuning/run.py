"""Ray Tune in a thread of its own, from start to end of a search."""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from vmcmc_dist.config import Config, override
from vmcmc_dist.engine.ray_groups import first_line
from vmcmc_dist.engine.ray_launch import end_leftovers, start_ray
from vmcmc_dist.errors import ResourceError, UserError
from vmcmc_dist.tuning.config import Sweep
from vmcmc_dist.tuning.folder import SweepFolder
from vmcmc_dist.tuning.search import Search
from vmcmc_dist.tuning.space import Dial

TUNE = {
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # a warm process would be left in a folder that is gone
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the runs write their own files
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a diverged trial has no figure
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_THRESHOLD_S": "5",
}
STOP_SECONDS = 60.0
"""Running trials may take this long to save and end when the search is stopped."""


class SweepRun:
    """One search under Ray Tune.

    Off the main thread, since Ray would take over Ctrl-C, and all of Ray in one thread, since the
    kernel ends Ray's processes with the thread that started them.
    """

    def __init__(
        self,
        sweep: Sweep,
        base: Config,
        folder: SweepFolder,
        dials: Sequence[Dial],
        search: Search,
        address: str | None,
        say: Callable[[str], Any],
    ):
        self.sweep, self.base, self.folder, self.dials = sweep, base, folder, dials
        self.search, self.say = search, say
        self.address = address or os.environ.get("RAY_ADDRESS")
        self.ledger: Any = None
        self.asked_to_stop = 0.0
        self.error: BaseException | None = None
        self.done, self.closing = threading.Event(), threading.Event()
        self.thread = threading.Thread(target=self._body, name="ray-tune", daemon=True)

    def run(self) -> None:
        """Run the search to its end.

        Raises:
            UserError: no Ray, no place for a trial, or a Ray that broke down.
        """
        self.thread.start()
        while not self.done.wait(0.2):  # short waits, so that signals are handled
            pass
        if self.error is not None:
            raise self.error

    def close(self) -> None:
        """Shut Ray down."""
        self.closing.set()
        if self.thread.ident is not None:
            self.thread.join(timeout=20)

    def stop_trials(self) -> None:
        """Ask the running trials to save and end, and start no more."""
        self.asked_to_stop = time.monotonic()
        if self.ledger is not None:
            for number in list(self.ledger.running):
                folder = self.folder.trial(number)
                if folder.path.exists():
                    folder.stop.touch()

    def _body(self) -> None:
        import ray

        own = not ray.is_initialized()
        try:
            os.environ.update(TUNE)
            config = override(self.base, {"resources.address": self.address})
            start_ray(config, dashboard=self.sweep.workers > 1)
            logging.getLogger("ray.tune").setLevel(logging.ERROR)
            self._search()
        except UserError as error:
            self.error = error
        except ray.exceptions.RayError as error:
            self.error = ResourceError(
                f"Ray broke down: {first_line(error)}. Run the same command again to go on. "
                f"Details: {self.folder.log}"
            )
        except BaseException as error:  # handed to the main thread, which raises it
            self.error = error
        self.done.set()
        self.closing.wait()
        if own and ray.is_initialized():
            if not self.address:
                end_leftovers()
            ray.shutdown()

    def _search(self) -> None:
        from vmcmc_dist.tuning.controller import run_trials
        from vmcmc_dist.tuning.ledger import Ledger
        from vmcmc_dist.tuning.places import places_of, room_for
        from vmcmc_dist.tuning.population import Population
        from vmcmc_dist.tuning.queue import GenerationQueue, TrialQueue
        from vmcmc_dist.tuning.schedulers import make_scheduler

        sweep, folder = self.sweep, self.folder
        room = room_for(sweep)
        earlier = sorted(folder.trials().values(), key=lambda e: int(e.trial))
        self.ledger = Ledger(folder, sweep, self.search, self.say)
        settings: dict[str, Any] = {
            "room": room,
            "places": places_of(sweep),
            "max_failures": sweep.max_failures,
            "minutes": sweep.minutes,
            "stopping": lambda: bool(self.asked_to_stop),
        }
        queue: TrialQueue
        if sweep.scheduler == "pbt":
            population = Population(sweep, self.base, self.dials, folder, self.say)
            queue = GenerationQueue(
                population, self.ledger.events, self.search, earlier, folder.path, **settings
            )
        else:
            queue = TrialQueue(self.search, earlier, folder.path, **settings)
        if queue.is_finished():
            return
        self.say(f"{room} trials at a time")
        scheduler = make_scheduler(sweep, self.base, folder.events())
        shutil.rmtree(folder.tune, ignore_errors=True)
        run_trials(queue, scheduler, self.ledger, folder.tune, self.stop_now)
        shutil.rmtree(folder.tune, ignore_errors=True)

    def stop_now(self) -> bool:
        """Whether a stop was asked for and the running trials have saved, or had time to."""
        if not self.asked_to_stop:
            return False
        waited = time.monotonic() - self.asked_to_stop
        return waited > STOP_SECONDS or self.ledger.running <= self.ledger.interrupted
