"""What a trial costs beside its training, against what Ray costs without any.

    record = bench_tune(trials=300, kills=5)
    print(record.table())

Four measures on one Ray of this machine: bare calls of warm actors; Ray Tune alone with trials
that do nothing; our queue, table and loop with trials that do nothing; and real trainings of tiny
nets, whose processes are killed at random.
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
import signal
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

from vmcmc_dist.engine.resources import cpu_count
from vmcmc_dist.engine.run_folder import describe_commit
from vmcmc_dist.engine.terminal import Terminal
from vmcmc_dist.tuning.config import Sweep, base_config
from vmcmc_dist.tuning.folder import DONE, SweepFolder
from vmcmc_dist.tuning.run import SweepRun
from vmcmc_dist.tuning.search import RandomSearch
from vmcmc_dist.tuning.space import dials

CONFIG = """\
data: {source: toy2d, density: gaussians}
energy: {net: mlp, width: 8, depth: 1, lr: 1e-3}
vae: {net: mlp, width: 8, depth: 1, latent_dim: 2, sigma: 0.3, lr: 1e-3, data_weight: 0.5}
langevin: {steps: 2, step_size: 0.2}
train: {images: 64, batch_size: 16, log_images: 64, sample_images: 64, checkpoint_images: 32,
        precision: fp32, keep: 1, pictures: false}
"""
SPACE = {"langevin.step_size": {"log": [0.1, 2.0]}, "energy.lr": {"log": [1e-4, 1e-2]}}
SAMPLES = 20
FLOOR_TRIALS = 200


@dataclass
class TuneBench:
    """Figures of a measurement; seconds unless the name says otherwise.

    Attributes:
        actor_call: one call of a warm actor, there and back.
        tune_trial: a trial of Ray Tune that does nothing, in slot-seconds (wall × slots / trials).
        empty_trial: the same through our queue and table.
        start: warm process: from the trial's begin to the end of its first iteration.
        cold_start: the same in a process's first trial, without the process's own start.
        work: from the end of the first iteration to the trial's end, checkpoint and figures too.
        gap: in one process, from a trial's end to the next one's begin.
        real_trial: slot-seconds of a real trial, kills and cold starts included.
        memory_mb, table_kb: of this process and of the table, at equal parts of the search.
    """

    trials: int
    slots: int
    kills: int = 0
    commit: str | None = None
    actor_call: float = 0.0
    tune_trial: float = 0.0
    empty_trial: float = 0.0
    start: float = 0.0
    start_p95: float = 0.0
    cold_start: float = 0.0
    work: float = 0.0
    gap: float = 0.0
    gap_p95: float = 0.0
    real_trial: float = 0.0
    wall: float = 0.0
    done: int = 0
    retried: int = 0
    ended: list[int] = field(default_factory=list)
    memory_mb: list[float] = field(default_factory=list)
    trial_memory_mb: list[float] = field(default_factory=list)
    table_kb: list[float] = field(default_factory=list)

    def table(self) -> str:
        """Rows of Markdown."""
        ms = {
            "call of a warm actor": self.actor_call,
            "empty trial, Ray Tune alone": self.tune_trial,
            "empty trial, our queue and table": self.empty_trial,
            "start to first iteration, warm (median)": self.start,
            "start to first iteration, warm (95 %)": self.start_p95,
            "the same, first trial of a process": self.cold_start,
            "end to next start (median)": self.gap,
            "end to next start (95 %)": self.gap_p95,
            "training after the first iteration, figures, checkpoints": self.work,
            "whole trial, kills and cold starts included": self.real_trial,
        }
        rows = ["| per trial | ms |", "|---|---|"]
        rows += [f"| {what} | {1000 * value:,.1f} |" for what, value in ms.items()]
        rows.append(
            f"\n{self.done:,} of {self.trials:,} trials done on {self.slots} slots in "
            f"{self.wall:.0f} s; {self.kills} processes killed, {self.retried} trials went on.\n"
            f"Driver {self.memory_mb[0]:.0f} → {self.memory_mb[-1]:.0f} MB, trial process "
            f"{self.trial_memory_mb[0]:.0f} → {self.trial_memory_mb[-1]:.0f} MB, table "
            f"{self.table_kb[-1]:.0f} kB ({1024 * self.table_kb[-1] / max(1, self.ended[-1]):.0f} "
            "bytes a trial)."
        )
        return "\n".join(rows)

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")


def bench_tune(
    trials: int = 300,
    kills: int = 5,
    minutes: float = 0.0,
    seed: int = 0,
    out: Path = Path("build/bench_tune.json"),
    say: Callable[[str], Any] = print,
) -> TuneBench:
    """Measure; after ``minutes`` of the real trials no more of them are begun (0: no limit).

    The figures are written to ``out`` again and again as the search goes on.
    """
    with tempfile.TemporaryDirectory(prefix="vmcmc-bench-") as folder:
        path = Path(folder)
        (path / "stub.yaml").write_text(CONFIG)
        sweep = Sweep(
            name="bench", out=folder, config=str(path / "stub.yaml"), space=SPACE, trials=trials,
            metric="kl_data_model", max_failures=5, seed=seed, minutes=minutes,
        )  # fmt: skip
        bench = Bench(sweep, kills, out, say)
        with Terminal(path / "log.txt") as terminal:
            bench.say = lambda text: terminal.console.print(text, markup=False)
            try:
                bench.run()
            finally:
                bench.close()
        return bench.record


class Bench(SweepRun):
    """The measures, in the thread that holds Ray."""

    def __init__(self, sweep: Sweep, kills: int, out: Path, say: Callable[[str], Any]):
        base = base_config(sweep)
        found = dials(sweep.space, base)
        folder = SweepFolder(sweep.folder)
        super().__init__(sweep, base, folder, found, RandomSearch(found, sweep), None, say)
        self.kills, self.out = kills, out
        self.record = TuneBench(sweep.trials, cpu_count(), commit=describe_commit())

    def _search(self) -> None:
        trials, record = min(self.sweep.trials, FLOOR_TRIALS), self.record
        record.actor_call = bare_calls(trials)
        self.say(f"call of a warm actor: {1000 * record.actor_call:.1f} ms")
        record.tune_trial = plain_tune(trials, record.slots)
        self.say(f"empty trial of Ray Tune: {1000 * record.tune_trial:.1f} ms")
        from vmcmc_dist.tuning.empty import EmptyTrial

        few = SweepFolder(self.sweep.folder.parent / "empty")
        wall = self._trials(few, EmptyTrial, {}, trials)
        record.empty_trial = wall * record.slots / trials
        self.say(f"empty trial, our queue and table: {1000 * record.empty_trial:.1f} ms")
        self._real()

    def _real(self) -> None:
        from vmcmc_dist.tuning.trial import TrainingTrial

        times: dict[str, dict[str, float]] = {}
        killer = Killer(self.kills, self.sweep.trials, self.sweep.seed)
        began = time.monotonic()

        def follow(ended: int) -> None:
            if self._sample(ended, killer):
                self._fill(killer, times, time.monotonic() - began)

        self.follow = follow
        wall = self._trials(self.folder, TrainingTrial, times, self.sweep.trials)
        self._fill(killer, times, wall)

    def _fill(self, killer: Killer, times: dict[str, dict[str, float]], wall: float) -> None:
        """All figures as they are now, written down: a bench that is cut off leaves them."""
        record, events = self.record, self.folder.trials()
        record.done = sum(e.status == DONE for e in events.values())
        record.wall, record.real_trial = wall, wall * record.slots / max(1, record.done)
        record.kills = killer.killed
        record.retried = sum(e.failures > 0 for e in events.values())
        calm = {n: t for n, t in times.items() if not events[n].failures and "end" in t}
        fill_times(record, calm)
        record.write(self.out)

    def _trials(
        self, folder: SweepFolder, kind: type, times: dict[str, dict[str, float]], trials: int
    ) -> float:
        """Wall seconds of a search of ``trials`` trials of this kind."""
        from ray.tune.schedulers import FIFOScheduler

        from vmcmc_dist.tuning.controller import run_trials
        from vmcmc_dist.tuning.ledger import Ledger
        from vmcmc_dist.tuning.places import places_of, room_for
        from vmcmc_dist.tuning.queue import TrialQueue

        folder.create()
        folder.write(self.sweep, self.base)
        ended = 0

        def count(_: str) -> None:
            nonlocal ended
            ended += 1
            self.follow(ended)

        search = RandomSearch(self.dials, dataclasses.replace(self.sweep, trials=trials))
        ledger = Ledger(folder, self.sweep, search, count, times)
        queue = TrialQueue(
            search,
            [],
            folder.path,
            room=room_for(self.sweep),
            places=places_of(self.sweep),
            max_failures=self.sweep.max_failures,
            minutes=self.sweep.minutes,
        )
        began = time.monotonic()
        run_trials(queue, FIFOScheduler(), ledger, folder.tune, lambda: False, kind)
        return time.monotonic() - began

    follow: Callable[[int], None] = staticmethod(lambda ended: None)

    def _sample(self, ended: int, killer: Killer) -> bool:
        """Kill if it is time; whether this was a moment to look at memory and table."""
        killer.look(ended)
        every = max(2, self.sweep.trials // SAMPLES)
        if ended % every:
            return False
        record = self.record
        record.ended.append(ended)
        record.memory_mb.append(round(psutil.Process().memory_info().rss / 1e6, 1))
        sizes = [p.memory_info().rss / 1e6 for p in trial_processes()]
        record.trial_memory_mb.append(round(max(sizes, default=0.0), 1))
        record.table_kb.append(round(self.folder.table.stat().st_size / 1024, 1))
        self.say(f"{ended:,} of {self.sweep.trials:,} trials, {killer.killed} killed")
        return True


class Killer:
    """Kills the process of a random trial, ``kills`` times at random moments of the search."""

    def __init__(self, kills: int, trials: int, seed: int):
        self.rng = random.Random(seed)
        self.due = sorted(self.rng.sample(range(trials // 20, trials), kills))
        self.killed = 0

    def look(self, ended: int) -> None:
        """At this many ended trials: kill if it is time, a moment later."""
        while self.due and ended >= self.due[0]:
            self.due.pop(0)
            threading.Timer(self.rng.random(), self._kill).start()

    def _kill(self) -> None:
        found = trial_processes()
        if found:
            os.kill(self.rng.choice(found).pid, signal.SIGKILL)
            self.killed += 1


def trial_processes() -> list[psutil.Process]:
    """Processes of trials that this process's Ray runs."""
    children = psutil.Process().children(recursive=True)
    return [p for p in children if p.is_running() and "TrainingTrial" in " ".join(_words(p))]


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


def fill_times(record: TuneBench, times: dict[str, dict[str, float]]) -> None:
    """Medians of the parts of a trial; trials that were killed are not among ``times``."""
    by_process: dict[float, list[dict[str, float]]] = {}
    for one in sorted(times.values(), key=lambda t: t["begun"]):
        by_process.setdefault(one["pid"], []).append(one)
    cold = [ts[0] for ts in by_process.values()]
    warm = [t for ts in by_process.values() for t in ts[1:]]
    pairs = [(a, b) for ts in by_process.values() for a, b in zip(ts, ts[1:], strict=False)]
    starts = [t["first_step"] - t["begun"] for t in warm]
    gaps = [b["begun"] - a["end"] for a, b in pairs]
    if not pairs:
        return
    record.start, record.start_p95 = middle_and_p95(starts)
    record.gap, record.gap_p95 = middle_and_p95(gaps)
    record.cold_start = statistics.median(t["first_step"] - t["begun"] for t in cold)
    record.work = statistics.median(t["end"] - t["first_step"] for t in warm)


def middle_and_p95(values: list[float]) -> tuple[float, float]:
    ordered = sorted(values)
    return statistics.median(ordered), ordered[int(0.95 * (len(ordered) - 1))]


def bare_calls(calls: int) -> float:
    """Seconds of one call of a warm actor, one after the other."""
    import ray

    from vmcmc_dist.tuning.empty import EmptyActor

    actor: Any = ray.remote(num_cpus=1)(EmptyActor).remote()  # type: ignore[attr-defined]
    ray.get(actor.step.remote())
    began = time.monotonic()
    for _ in range(calls):
        ray.get(actor.step.remote())
    seconds = (time.monotonic() - began) / calls
    ray.kill(actor)
    return seconds


def plain_tune(trials: int, slots: int) -> float:
    """Slot-seconds of a trial of Ray Tune as it is, processes reused, without its loggers."""
    from ray import tune

    from vmcmc_dist.tuning.empty import EmptyTrial

    with tempfile.TemporaryDirectory(prefix="vmcmc-tune-") as folder:
        began = time.monotonic()
        tune.run(
            EmptyTrial, name="floor", num_samples=trials, storage_path=folder, reuse_actors=True,
            resources_per_trial={"cpu": 1}, verbose=0,
        )  # fmt: skip
        return (time.monotonic() - began) * slots / trials
