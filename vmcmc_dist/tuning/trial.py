"""A trial as Ray Tune sees it: a process that trains one run after the other."""

from __future__ import annotations

import os
import time
from typing import Any

from ray import tune

from vmcmc_dist.config import Config, fill, load_config, override
from vmcmc_dist.engine.run_folder import RunFolder
from vmcmc_dist.engine.terminal import Terminal
from vmcmc_dist.errors import DivergenceError, UserError
from vmcmc_dist.tuning.config import Sweep
from vmcmc_dist.tuning.folder import DIVERGED, DONE, FAILED, NO_DIALS, RUNNING, SweepFolder
from vmcmc_dist.tuning.training import News, Training, left_at, start_training, why_nothing

Result = dict[str, Any]


class TrainingTrial(tune.Trainable):
    """Serves the trials of a sweep, one at a time.

    Its config: ``sweep`` (the folder), ``trial`` (its number), ``until`` (images, where it is saved
    and ends for now; 0: it trains to the end), and the dials' values by key.
    A result holds the metrics, ``images``, ``status``, and what goes into the table of trials.
    """

    def setup(self, config: dict[str, Any]) -> None:
        os.environ["OMP_NUM_THREADS"] = "1"  # of what it starts; its own threads are the config's
        self.base: Config | None = None
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._end()
        self._begin(new_config)
        return True

    def _begin(self, config: dict[str, Any]) -> None:
        self.begun = time.time()
        self.training: Training | None = None
        self.terminal: Terminal | None = None
        self.last: Result = {}
        self.told_start = False
        self.number, self.until = config["trial"], config.get("until", 0)
        self.settings = {k: v for k, v in config.items() if k not in NO_DIALS}
        self.folder = SweepFolder(config["sweep"])
        self.run_folder: RunFolder = self.folder.trial(self.number)

    def step(self) -> Result:
        """Train to the next figure; what cannot be mended by trying again ends the trial."""
        if self.last.get("interrupted"):
            time.sleep(0.2)  # the search is about to end
            return self.last
        try:
            self.last = self._step()
        except DivergenceError as error:
            self.last = self._ended(DIVERGED, str(error))
        except UserError as error:
            self.last = self._ended(FAILED, str(error))
        if self.last["done"]:
            self._end()
            self.last["told"]["end"] = time.time()
        return self.last

    def _step(self) -> Result:
        if self.folder.stop.exists():
            if self.training is None:
                return self._result(News(0, interrupted=True), RUNNING)
            self.run_folder.stop.touch()
        if self.training is None:
            self._read_config()
            if self.until and (told := left_at(self.run_folder, self.until, self.sweep.metrics)):
                return self._result(told, RUNNING, waits=True)
            self._start()
        assert self.training is not None
        news = self.training.advance()
        if news.interrupted:
            return self._result(news, RUNNING)
        if not news.ended:
            return self._result(news, RUNNING)
        missing = any(name not in news.figures for name in self.sweep.metrics)
        if missing or news.images < self.until:  # those that it has are of before
            return self._ended(FAILED, why_nothing(self.config_of_run))
        return self._result(news, RUNNING, waits=True) if self.until else self._result(news, DONE)

    def _start(self) -> None:
        self.config_of_run = self._config()
        self.run_folder.create()
        self.terminal = Terminal(self.run_folder.log)
        self.terminal.__enter__()
        self.training = start_training(self.config_of_run, self.sweep.metrics)

    def _read_config(self) -> None:
        """The sweep's files, once per process."""
        if self.base is None:
            self.base = load_config(self.folder.config)
            self.sweep = fill(Sweep, [], self.folder.sweep)

    def _config(self) -> Config:
        """The sweep's config with this trial's values."""
        assert self.base is not None
        place = {
            "name": self.number,
            "out": str(self.folder.path / "trials"),
            "train.pause_images": self.until,
        }
        return override(self.base, {**self.settings, **place})

    def _result(self, news: News, status: str, waits: bool = False) -> Result:
        found = {name: news.figures[name] for name in self.sweep.metrics if name in news.figures}
        result: Result = {
            **found,
            "images": news.images,
            "status": status,
            "done": waits or (news.ended and not news.interrupted),
            "interrupted": news.interrupted,
            "waits": waits,
            "told": {"figures": news.figures, "seconds": news.seconds, "reason": ""},
        }
        if self.training is not None and self.training.started and not self.told_start:
            self.told_start = True
            result["told"] |= {
                "start_seconds": self.training.started - self.begun,
                "begun": self.begun,
                "first_step": self.training.started,
            }
        return result

    def _ended(self, status: str, reason: str) -> Result:
        told = self.last.get("told", {"figures": {}, "seconds": 0.0})
        return {
            "images": self.last.get("images", 0),
            "status": status,
            "done": True,
            "interrupted": False,
            "waits": False,
            "told": {**told, "reason": reason},
        }

    def _end(self) -> None:
        """Let go of the run; the process stays."""
        try:
            if self.training is not None:
                self.training.close()
        finally:
            self.training = None
            if self.terminal is not None:
                self.terminal.__exit__(None, None, None)
                self.terminal = None

    def cleanup(self) -> None:
        self._end()
