"""What checkpoints cost a training run: time that it stands still, and time that it loses."""

from __future__ import annotations

import dataclasses
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from vmcmc_dist.bench.clock import this_machine, torch_threads
from vmcmc_dist.bench.store import serving_s3
from vmcmc_dist.config import Config
from vmcmc_dist.data.manifest import Manifest
from vmcmc_dist.data.open import ensure_prepared
from vmcmc_dist.engine.bench_scaling import small_config
from vmcmc_dist.engine.context import Restart, WorkerContext
from vmcmc_dist.engine.remote_run import held
from vmcmc_dist.engine.run_folder import RunFolder
from vmcmc_dist.engine.terminal import Terminal
from vmcmc_dist.engine.trainer import Trainer
from vmcmc_dist.engine.worker import join_alone
from vmcmc_dist.errors import ConfigError

TARGET = 0.01
EVERY_S = 600.0
"""The question is one checkpoint in 10 minutes."""
LATENCY_S = 0.02
BUCKET = "bench"
PLAIN_STEPS = 4
ENDLESS = [
    f"train.{key}={10**12}"
    for key in ("images", "log_images", "sample_images", "checkpoint_images")
] + ["train.max_minutes=0", "train.keep=1", "vae.head_start_images=0"]
"""Nothing but steps, and the checkpoints of the measurement."""


class Round(NamedTuple):
    """One checkpoint. All in seconds.

    Attributes:
        step: of training without a checkpoint.
        still: from the end of a step to the start of the next, for the checkpoint (what
            ``time.checkpoint_stall`` of the metrics is made of).
        lost: ``still``, and what the steps until it was whole took longer than as many without.
        written: until it was whole.
    """

    step: float
    still: float
    lost: float
    written: float


@dataclass(frozen=True)
class CheckpointRow:
    """All rounds of one place."""

    place: str
    rounds: list[Round]

    def median(self, what: str) -> float:
        return statistics.median(getattr(round_, what) for round_ in self.rounds)


@dataclass(frozen=True)
class CheckpointBench:
    """All places. ``str()`` is a markdown table."""

    machine: str
    config: Config
    bytes: int
    rounds: int
    rows: list[CheckpointRow]

    def __str__(self) -> str:
        config = self.config
        lines = [
            f"{self.machine}; {config.name}, {config.energy.net} nets, checkpoints of "
            f"{self.bytes / 1e6:,.0f} MB, steps of {self.rows[0].median('step'):.2f} s, "
            f"{self.rounds} rounds, medians",
            "",
            "| checkpoint to | stands still | at one in 10 min | whole after | lost in all "
            "| at one in 10 min |",
            "|---|---:|---:|---:|---:|---:|",
        ]
        for row in self.rows:
            still, lost = row.median("still"), row.median("lost")
            lines.append(
                f"| {row.place} | {still:.3f} s | {still / EVERY_S:.3%} (target {TARGET:.0%}) "
                f"| {row.median('written'):.1f} s | {lost:.2f} s | {lost / EVERY_S:.2%} |"
            )
        return "\n".join(lines)


def bench_checkpoint(
    config: str | None = None,
    settings: Sequence[str] = (),
    *,
    rounds: int = 5,
    threads: int = 1,
    s3: bool = True,
    progress: Callable[[str], None] | None = None,
) -> CheckpointBench:
    """Train with a checkpoint now and then, on this machine's disk and to an S3 server.

    The real trainer, in this process, on random images. A round has four steps without a
    checkpoint, then one checkpoint and steps until it is whole; places take turns. The S3 server
    (moto's) is on loopback, on the same cores, with 20 ms of added latency.

    Raises:
        ConfigError: as :func:`vmcmc_dist.config.load_config`; or a key that is the bench's own.
        ResourceError: no S3 server can be started here.
    """
    own = {setting.partition("=")[0] for setting in ENDLESS}
    if taken := sorted(own & {setting.partition("=")[0] for setting in settings}):
        raise ConfigError(f"{', '.join(taken)}: the bench's own; leave it out")
    with (
        tempfile.TemporaryDirectory(prefix="vmcmc-checkpoint-") as name,
        torch_threads(threads),
        _server(s3) as there,
    ):
        folder = Path(name)
        base = small_config(folder, config, [*settings, *ENDLESS])
        manifest = ensure_prepared(base.data)
        places = {"disk": str(folder)} | ({there: f"s3://{BUCKET}/runs"} if there else {})
        with Terminal(folder / "log.txt"):
            join_alone()
            found: dict[str, list[Round]] = {place: [] for place in places}
            runs = {
                place: _training(dataclasses.replace(base, out=out, name=f"at-{n}"), manifest)
                for n, (place, out) in enumerate(places.items())
            }
            for round_ in range(rounds + 1):  # the first one warms up
                if progress is not None:
                    progress(f"round {round_} of {rounds}")
                for place, run in runs.items():
                    measured = next(run)
                    if round_:
                        found[place].append(measured)
            for run in runs.values():
                run.close()
        size = max(
            sum(f.stat().st_size for f in path.iterdir())
            for path in folder.glob("at-0/checkpoints/0*")
        )
        machine = str(this_machine(torch.device("cpu"))).replace("CPU seconds", "wall seconds")
        rows = [CheckpointRow(place, each) for place, each in found.items()]
        return CheckpointBench(machine, base, size, rounds, rows)


@contextmanager
def _server(s3: bool) -> Iterator[str]:
    """An S3 server that this process's environment points at; what to call it, or ""."""
    if not s3:
        yield ""
        return
    before = dict(os.environ)
    with serving_s3(BUCKET, LATENCY_S) as store:
        os.environ.update(store.environment())
        try:
            yield f"S3, {LATENCY_S * 1000:.0f} ms away"
        finally:
            os.environ.clear()
            os.environ.update(before)


def _training(config: Config, manifest: Manifest) -> Generator[Round, None, None]:
    """Endless rounds of one run."""
    folder = RunFolder.of(config)
    folder.create()
    with held(config, folder, lambda _: None) as config:
        trainer = Trainer(config, WorkerContext(0, 1, torch.device("cpu")), manifest, Restart())
        steps = trainer.run()
        try:
            while True:
                plain = statistics.median(_seconds(steps) for _ in range(PLAIN_STEPS))
                began, stalled = time.monotonic(), trainer.saver.stalled
                trainer.save()
                count = 0
                while trainer.saver.writing or not count:
                    next(steps)
                    count += 1
                taken = time.monotonic() - began
                still = trainer.saver.stalled - stalled
                yield Round(plain, still, taken - count * plain, trainer.saver.took)
        finally:
            steps.close()
            trainer.close()


def _seconds(steps: Generator[Trainer, None, dict[str, float]]) -> float:
    began = time.monotonic()
    next(steps)
    return time.monotonic() - began
