"""The per-worker loop: data → one iteration of teaching → record → grid → checkpoint."""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vmcmc_dist.config import Config, identity_changes, to_dict
from vmcmc_dist.data.conditions import condition_of, conditions, visible
from vmcmc_dist.data.manifest import Manifest
from vmcmc_dist.data.open import open_stream
from vmcmc_dist.data.scaling import to_model_range
from vmcmc_dist.engine.beside import Beside
from vmcmc_dist.engine.checkpoint import (
    PARTS,
    Checkpoint,
    CheckpointFolder,
    load_checkpoint,
)
from vmcmc_dist.engine.context import Restart, WorkerContext
from vmcmc_dist.engine.ending import Ending
from vmcmc_dist.engine.fence import Fence
from vmcmc_dist.engine.learners import Learners
from vmcmc_dist.engine.meter import Meter, anywhere, sum_over_workers, total_counts
from vmcmc_dist.engine.remote_run import RemoteRun
from vmcmc_dist.engine.run_folder import RunFolder
from vmcmc_dist.engine.samples import make_recorder
from vmcmc_dist.engine.saver import Saver
from vmcmc_dist.engine.schedule import learning_rate
from vmcmc_dist.engine.trackers import Trackers
from vmcmc_dist.errors import CheckpointError, DivergenceError, UserError
from vmcmc_dist.langevin.noise import stream_seed
from vmcmc_dist.models import Condition
from vmcmc_dist.teaching.guard import Guard, ratios, regime
from vmcmc_dist.teaching.noise_plan import NoisePlan
from vmcmc_dist.teaching.step import TeachingPlan, teach


class Trainer:
    """One worker of a run, from its last checkpoint (or the start) to its end.

    Everything that changes is in: ``images``, the two learners, the two averages, the meter,
    the guard, ``seconds``; :meth:`save` and :meth:`restore` handle exactly these.
    """

    def __init__(
        self, config: Config, context: WorkerContext, manifest: Manifest, restart: Restart
    ):
        self.config, self.context, self.restart = config, context, restart
        self.manifest, self.shape = manifest, tuple(manifest.shape)
        self.condition = Condition.of(condition_of(config.condition, manifest))
        self.folder = RunFolder.of(config)
        self.remote = RemoteRun.of(config, self.folder, writes=context.rank == 0)
        self.fence = Fence(self.folder)
        self.fence.check(context.group)
        self.checkpoints = CheckpointFolder(
            self.folder.checkpoints,
            config.train.keep,
            None if self.remote is None else self.remote.copies,
        )
        self.images, self.seconds, self.iteration = 0, 0.0, 0
        self.ending = Ending(config.train, self.folder, context)
        self.score: float | None = None
        self.meter, self.guard = Meter(), Guard(config.guard, rollbacks=restart.rollbacks)
        self.saver = Saver(self.checkpoints, context.device, config.store.failures)
        self._build(self._load())
        self.logged_at, self.logged_stall = time.monotonic(), 0.0
        self.started = time.monotonic()
        self.beside = Beside(config, self.folder, self.checkpoints, self.images, self.context.beat)

    # -- one run --------------------------------------------------------------------------------

    def run(self) -> Generator[Trainer, None, dict[str, float]]:
        """Train to the end, the pause, the time limit, or a request to stop; returns the last
        figures, and ``paused`` where it has.

        Yields itself after each iteration and what is due behind it: whoever drives it may look
        at what was written, save, or leave it there. On a
        notice: saves, and returns with ``left``, to be started again.
        """
        last: dict[str, float] = {}
        ending = self.ending
        if ending.reached(self.images) or ending.asked(self._seconds()):
            outcome = self._outcome() | {"already": 1.0}
            if self.context.rank == 0 and not self.folder.stop.exists():
                self._note(self.beside.finish(self.images))  # a kill may have come before it
            return outcome
        first = True
        while not ending.reached(self.images):
            record = self.iterate()
            self.meter.add(record)
            if first and self.context.rank == 0:
                self.folder.first_step.touch()
            first = False
            self._follow_up()
            if self._due(self.config.train.log_images):
                last = self.log()
            if self._due(self.config.train.sample_images):
                self.sample()
            if self._due(self.config.train.checkpoint_images):
                self.save()
            yield self
        stays = not ending.interrupted and not ending.leaving
        ended = stays and not ending.paused(self.images)
        if self.meter and ended:
            last = self.log()
        if ended and not self._due(self.config.train.sample_images):
            self.sample()
        self.save(wait=True)
        outcome = self._outcome()  # what is evaluated after it is no training
        if ending.leaving:
            return outcome | {"left": 1.0}
        if self.context.rank == 0 and stays:
            self._note(self.beside.finish(self.images))
        return last | outcome

    def _outcome(self) -> dict[str, float]:
        paused = {"paused": 1.0} if self.ending.paused(self.images) else {}
        return {"images": self.images, "seconds": self._seconds(), **paused}

    def iterate(self) -> dict[str, Tensor]:
        """One iteration: a batch of data, both nets learn, the averages follow."""
        self.context.beat()
        train, waiting = self.config.train, time.monotonic()
        x, c = self._next_batch()
        self.data_seconds += time.monotonic() - waiting
        torch.manual_seed(stream_seed(self.seed, "dropout", self.context.rank, self.images))
        head_start = int(self.config.vae.head_start_images)  # the energy's clock starts after it
        for learner, settings, begin in (
            (self.energy, self.config.energy, head_start),
            (self.vae, self.config.vae, 0),
        ):
            rate = learning_rate(settings, max(0, self.images - begin), train.images - begin)
            learner.set_lr(rate * self.restart.lr_scale)
        noise = NoisePlan(
            self.seed,
            self.images,
            rank=self.context.rank,
            world_size=self.context.world_size,
            per_sample=train.noise_per_sample,
            device=self.context.device,
        )
        record = teach(x, self.energy, self.vae, self.plan, noise, c)
        self.images += train.batch_size
        self.iteration += 1
        self.learners.average(self.images)
        return record

    # -- what it writes -------------------------------------------------------------------------

    def log(self) -> dict[str, float]:
        """Close the interval: one record over all workers, checked by the guard."""
        means = self.meter.means()
        self.guard.check_finite(means, self.images)
        now, seconds = time.monotonic(), self._seconds()
        wait = self.data_seconds / max(now - self.interval_started, 1e-9)
        rate = (self.images - self.interval_images) / max(now - self.interval_started, 1e-9)
        stall = (self.saver.stalled - self.logged_stall) / max(now - self.logged_at, 1e-9)
        self.logged_at, self.logged_stall = now, self.saver.stalled
        self._open_interval()
        record = {
            "kind": "train",
            "images": self.images,
            "iteration": self.iteration,
            **means,
            **(ratios(means) if "gap" in means else {}),
            "regime": regime(means, self.config.guard),
            "energy_lr": self.energy.optimizer.param_groups[0]["lr"],
            "vae_lr": self.vae.optimizer.param_groups[0]["lr"],
            "time": {
                "seconds": seconds,
                "images_per_second": rate,
                "data_wait": wait,
                "checkpoint_stall": stall,
                **total_counts(self.stream.counts()),
            },
        }
        if self.context.rank == 0:
            self.fence.check(self.context.group)
            self.folder.append(record)
            self.trackers.write(record)
            self._note(self.beside.collect())
        self.guard.observe(means, self.images)
        return means

    def sample(self) -> None:
        """A grid and its record, by the first worker; the others go on to the next collective."""
        if self.context.rank == 0:
            energy, vae = self.learners.to_sample()
            self.fence.check(self.context.group)
            record = self.samples.write(energy, vae, self.images)
            self.folder.append(record)
            self.trackers.write(record, picture=self.samples.last_picture)
            self.score = record.get(self.config.train.best)
        self._open_interval()

    def save(self, wait: bool = False) -> None:
        """A checkpoint of everything that changes (collective); it is written behind the next
        steps, or before this returns with ``wait``.

        Raises:
            CheckpointError: this or the one before could not be written.
        """
        began = time.monotonic()
        self.saver.settle()
        meter = self.meter.state()
        if not torch.tensor(meter["rows"], dtype=torch.float64).isfinite().all():
            raise DivergenceError(
                f"not finite before the checkpoint at {self.images:,} images; nothing was saved"
            )
        first = self.context.rank == 0
        keep = self.saver.keeper() if first else None
        tensors = self.learners.copy(keep)
        self._follow_up()
        if first and self.saver.problem is None:
            state = {
                "iteration": self.iteration,
                "seconds": self._seconds(),
                "shape": list(self.shape),
                "condition": None if self.condition is None else asdict(self.condition),
                "labels": list(self.manifest.labels.names),
                "meter": meter,
                "guard": self.guard.state(),
                "lr_scale": self.restart.lr_scale,
                "score": self.score,
                "good": self.guard.bad == 0,
            }
            self.fence.check(self.context.group)
            self.saver.start(Checkpoint(self.images, to_dict(self.config), state, tensors))
            if wait or self.config.evaluation.where == "here":
                self.saver.settle()
                self._follow_up()
        self._raise_problem(*anywhere([self._problem() is not None]))
        self.score = None
        self.saver.waited += time.monotonic() - began

    def drop_after_last_good(self) -> int:
        """Remove the checkpoints behind the last good one (first worker); returns its images.

        Raises:
            CheckpointError: the one under way could not be written.
        """
        self.saver.settle()
        if self.saver.problem is not None:
            raise self.saver.problem
        return self.checkpoints.drop_after_last_good()

    def _follow_up(self) -> None:
        """What a checkpoint that has become whole is waited for by; never waits itself."""
        for images in self.saver.finished():
            self._note(self.beside.collect())
            self._note(self.beside.start(images))
        self._note(self.saver.news())

    def _raise_problem(self, failed: bool) -> None:
        if failed:
            raise self._problem() or CheckpointError("the first worker could not save the run")

    def _problem(self) -> UserError | None:
        later = None if self.remote is None else self.remote.problem
        return self.saver.problem or later

    # -- start and resume are one path ----------------------------------------------------------

    def _load(self) -> Checkpoint | None:
        path = self._latest()
        if path is None:
            if self.context.rank == 0:
                self.folder.truncate_metrics(0)
            return None
        saved = load_checkpoint(path)
        changes = identity_changes(saved.config, to_dict(self.config))
        if changes:
            raise CheckpointError(
                f"{self.folder.path} holds a run with another config:\n  "
                + "\n  ".join(changes)
                + "\nGive this run another name=…, or the old settings to go on with that one."
            )
        state = saved.state
        self.images, self.iteration = saved.images, state["iteration"]
        self.seconds, self.score = state["seconds"], state["score"]
        self.meter.load(state["meter"], self.context.rank, self.context.world_size)
        if self.restart.rollbacks == 0:
            self.restart = Restart(state["guard"]["rollbacks"], state["lr_scale"])
            self.guard.load(state["guard"])
        if self.context.rank == 0:
            self.folder.truncate_metrics(self.images)
        return saved

    def _latest(self) -> Path | None:
        """The newest checkpoint; of a run on S3 the first worker's choice, fetched by each node."""
        if self.remote is None:
            return self.checkpoints.latest()
        images = 0
        if self.context.rank == 0:
            if self.restart.rollbacks == 0:
                self.remote.bring()
            newest = self.checkpoints.latest()
            images = int(newest.name) if newest else 0
        if self.context.world_size > 1:
            images = int(sum_over_workers(torch.tensor(float(images), dtype=torch.float64)))
        return self.remote.fetch(images, PARTS) if images else None

    def _build(self, saved: Checkpoint | None) -> None:
        config, context, train = self.config, self.context, self.config.train
        self.seed = stream_seed(config.seed, "run", self.restart.rollbacks)
        torch.manual_seed(stream_seed(self.seed, "weights"))
        self.learners = Learners(config, context, self.shape, self.condition, saved)
        self.energy, self.vae = (self.learners.by_name[name] for name in ("energy", "vae"))
        chains = train.chains or train.batch_size
        self.plan = TeachingPlan(
            config.langevin,
            config.energy,
            config.vae,
            latent_dim=config.vae.latent_dim,
            chains=chains // context.world_size,
            accumulation=train.accumulation,
            precision="fp16" if train.precision == "fp16" else "fp32",  # a copy brings its own
            pin=visible if config.condition.kind == "inpaint" else None,
            agree=self._agree,
        )
        self.stream = open_stream(
            config.data,
            seed=config.seed,
            rank=context.rank,
            world_size=context.world_size,
            local_batch=train.batch_size // context.world_size,
            images=self.images,
            manifest=self.manifest,
        )
        self.batches = iter(self.stream)
        self.samples = make_recorder(config, self.manifest, self.folder, self.condition)
        self.trackers = Trackers(config, self.folder, self.images, active=context.rank == 0)
        self._open_interval()

    def close(self) -> None:
        """Let go of threads, files and hooks; a checkpoint under way is finished."""
        self.saver.settle()
        self.beside.close()
        self.stream.close()
        self.trackers.close()
        if self.remote is not None:
            self.remote.close()
        self.learners.close()

    def _note(self, lines: list[dict[str, Any]]) -> None:
        """Lines of evaluations and of failed uploads into the metrics; of an evaluation the
        figure that marks the best, into its checkpoint.
        """
        for line in lines:
            self.folder.append(line)
            self.trackers.write(line)
            score = line.get("figures", {}).get(self.config.train.best)
            if score is not None:
                self.checkpoints.set_score(line["images"], score)

    # -- small parts ----------------------------------------------------------------------------

    def _next_batch(self) -> tuple[Tensor, Tensor | None]:
        """Data [B, …] in the model's range, and their conditions."""
        batch, device = next(self.batches), self.context.device
        x = to_model_range(batch.x.to(device, non_blocking=True))
        c = conditions(self.config.condition, batch, x, self.config.seed)
        return x, None if c is None else c.to(device, non_blocking=True)

    def _due(self, every: int) -> bool:
        return self.images // every != (self.images - self.config.train.batch_size) // every

    def _seconds(self) -> float:
        return self.seconds + time.monotonic() - self.started

    def _open_interval(self) -> None:
        """Restart the clock of the speed figures; grids are not counted, checkpoints are."""
        self.context.beat()
        self.interval_started, self.interval_images = time.monotonic(), self.images
        self.data_seconds = 0.0

    def _agree(self, error: DivergenceError | None) -> None:
        """All workers together: did a chain diverge anywhere, is it time to stop, or to leave?"""
        mine = self._problem() is not None, error is not None
        lost, failed = self.ending.agree(self.images, self._seconds(), *mine)
        self._raise_problem(lost)
        if failed:
            raise error or DivergenceError("the chains of another worker diverged")
