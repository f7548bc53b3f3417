"""Groups of workers under Ray Train, one after another, until the run is at its end.

Ray Train could restart a group by itself. It is done here, because then

- a failure counts only if nothing was saved since the one before, so a run of weeks on machines
  that come and go does not use up a budget, and one that fails at every start ends soon;
- the number of workers can change without loss: the group saves, leaves, and the next one starts
  (Ray's own elastic policy kills the group, and what it did since its last checkpoint);
- a machine about to go is left in the same way, in the time that its notice gives.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from vmcmc_dist.config import Config, to_dict
from vmcmc_dist.data.manifest import Manifest
from vmcmc_dist.engine.checkpoint import CheckpointFolder
from vmcmc_dist.engine.fence import Fence
from vmcmc_dist.engine.ray_desk import DeskAt
from vmcmc_dist.engine.ray_room import check_cluster, worker_resources, workers_now
from vmcmc_dist.engine.ray_worker import ray_worker
from vmcmc_dist.engine.remote_checkpoints import RemoteCheckpoints
from vmcmc_dist.engine.resources import cpu_count
from vmcmc_dist.engine.run_folder import RunFolder
from vmcmc_dist.engine.run_store import RunStore
from vmcmc_dist.errors import ResourceError, UserError

if TYPE_CHECKING:
    from vmcmc_dist.engine.context import WorkerContext

Body = Callable[[dict[str, Any], Manifest, "WorkerContext", int], dict[str, float]]
"""What runs in each worker: by default ``train_worker``, or a benchmark in its place."""

WORKER_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # its work is done by Watch
    "DS_BUILD_OPS": "0",
}
ELASTIC_TRY = 15.0
"""Seconds to wait for a number of workers that should fit; then they are counted anew."""


class Groups:
    """The groups of one run.

    Args:
        say: takes a line for the user.
        ended: whether nobody wants the run any more.
    """

    def __init__(
        self,
        config: Config,
        manifest: Manifest,
        body: Body | None = None,
        say: Callable[[str], Any] = print,
        ended: Callable[[], bool] = lambda: False,
    ):
        self.config, self.manifest, self.body, self.say, self.ended = (
            config, manifest, body, say, ended
        )  # fmt: skip
        resources = config.resources
        self.on_cluster = resources.address is not None
        self.each = worker_resources(config)
        self.folder = RunFolder.of(config)
        self.fence = Fence(self.folder)
        url = self.folder.url
        self.copies = None if url is None else RemoteCheckpoints(RunStore(url))
        self.desk: DeskAt | None = None
        self.limit = resources.max_failures
        if self.limit < 0:
            self.limit = 3 if self.on_cluster else 0
        self.patience = resources.start_timeout or (900.0 if self.on_cluster else 45.0)

    def run(self) -> dict[str, float]:
        """Until a group ends the run; the first worker's result.

        Raises:
            UserError: what a worker raised, or workers that died, or could not start, too often.
        """
        check_cluster(self.config, self.each)
        if self.on_cluster and self.copies is not None:
            self.desk = DeskAt.open(self.folder)
        failures, saved, waiting_since = 0, self._saved(), time.monotonic()
        while True:
            size = workers_now(self.config, self.each)
            self._note("start", workers=size)
            try:
                result = self._group(size)
            except NoRoom as error:
                if time.monotonic() - waiting_since > self.patience:
                    raise ResourceError(str(error)) from None
                self._note("no room", workers=size)
                continue
            except WorkersFailed as error:
                now = self._saved()
                if not error.announced:
                    failures = 1 if now > saved else failures + 1
                saved = now
                self._note("failure", reason=str(error.cause), announced=error.announced)
                final = isinstance(error.cause, UserError) and not error.died
                if final or failures > self.limit or self.ended():
                    raise error.cause from None
                self.say(f"{error.short}; the workers start again from {saved:,} images")
            else:
                self._note("left" if "left" in result else "end")
                if "left" not in result:
                    return result
                self.say(f"the workers left at {self._saved():,} images, saved; others go on")
            waiting_since = time.monotonic()

    def _group(self, size: int) -> dict[str, float]:
        """One group, from its start to its end."""
        import ray
        from ray.train.v2.api.exceptions import (
            ControllerError,
            TrainingFailedError,
            WorkerGroupError,
        )

        trainer = self._trainer(size)
        try:
            return trainer.fit().return_value  # type: ignore[attr-defined]
        except WorkerGroupError as error:
            raise WorkersFailed.of(error.worker_failures, self.folder) from None
        except ControllerError as error:
            kind = type(error.controller_failure).__name__
            if kind == "WorkerGroupStartupTimeoutError":
                raise NoRoom(self._no_room(size)) from None
            died = kind == "WorkerGroupStartupFailedError"
            raise WorkersFailed(self._strange(error), died=died) from None
        except (TrainingFailedError, ray.exceptions.RayError) as error:
            raise WorkersFailed(self._strange(error), died=True) from None

    def _trainer(self, size: int):
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchTrainer

        from vmcmc_dist.engine.ray_torch import NodeTorchConfig

        resources = self.config.resources
        gpu = resources.device == "cuda"
        elastic = 0 < resources.min_workers < resources.workers
        wait = min(ELASTIC_TRY, self.patience) if elastic else self.patience
        os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = str(wait)
        os.environ["RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S"] = str(resources.hang_timeout)
        return TorchTrainer(
            ray_worker,  # type: ignore[arg-type]
            train_loop_config={
                "config": to_dict(self.config),
                "manifest": self.manifest,
                "share": max(1, cpu_count() // resources.workers),
                "each": self.each,
                "group": self.fence.pass_on(),
                "desk": self.desk,
                "body": self.body,
            },
            scaling_config=ScalingConfig(
                num_workers=size, use_gpu=gpu, resources_per_worker=self.each
            ),
            torch_config=NodeTorchConfig(
                backend="cpu:gloo,cuda:nccl" if gpu else "gloo",
                timeout_s=max(1, round(resources.hang_timeout)),
            ),
            run_config=RunConfig(
                name="ray",
                storage_path=self.folder.place,
                failure_config=FailureConfig(
                    max_failures=0,
                    controller_failure_limit=0,  # type: ignore[call-arg]
                ),
                # On this machine the workers inherit it; asked for, it costs another process start.
                worker_runtime_env=(  # type: ignore[call-arg]
                    {"env_vars": WORKER_ENVIRONMENT} if self.on_cluster else None
                ),
            ),
        )

    def _saved(self) -> int:
        if self.copies is not None:  # the first worker may be on another machine
            return max((int(name) for name in self.copies.states()), default=0)
        latest = CheckpointFolder(self.folder.checkpoints).latest()
        return 0 if latest is None else int(latest.name)

    def _note(self, event: str, **more: Any) -> None:
        """A line of ``groups.jsonl``: when groups started and ended, and why."""
        line = {"time": time.time(), "event": event, "images": self._saved(), **more}
        with (self.folder.path / "groups.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")

    def _no_room(self, size: int) -> str:
        needed = ", ".join(f"{size * each:g} {kind}" for kind, each in self.each.items())
        return (
            f"no room for {size} workers ({needed}) within {self.patience:g} s: the cluster is "
            "busy, or has lost machines. Wait for them, ask for fewer workers, set "
            "resources.min_workers, or a longer resources.start_timeout; the run is safe up to "
            f"{self._saved():,} images"
        )

    def _strange(self, error: BaseException) -> ResourceError:
        return ResourceError(
            f"Ray could not run the workers: {first_line(error)}. Details: {self.folder.log}"
        )


class NoRoom(Exception):
    """The workers could not be placed."""


class WorkersFailed(Exception):
    """A group's end. ``died``: processes or machines, as against what a worker raised."""

    def __init__(self, cause: UserError, *, died: bool, announced: bool = False, short: str = ""):
        super().__init__(str(cause))
        self.cause, self.died, self.announced = cause, died, announced
        self.short = short or str(cause)

    @classmethod
    def of(cls, failures: dict[int, Exception], folder: RunFolder) -> WorkersFailed:
        """What the workers raised, as one error for the user."""
        causes = {rank: getattr(f, "_base_exc", f) for rank, f in failures.items()}
        for cause in causes.values():
            if isinstance(cause, UserError):
                return cls(cause, died=False)
        deaths = [getattr(c, "health_check_failure", c) for c in causes.values()]
        announced = any(getattr(death, "preempted", False) for death in deaths)
        rank, cause = next(iter(causes.items()))
        short = f"worker {rank} died ({type(cause).__name__}: {first_line(cause)})"
        error = ResourceError(
            f"{short}. The run is safe up to its last checkpoint; run the same command again to "
            f"go on. Details: {folder.log}"
        )
        return cls(error, died=True, announced=announced, short=short)


def first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return shorten(lines[-1], 300, placeholder=" …") if lines else type(error).__name__
