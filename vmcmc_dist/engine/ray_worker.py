"""What Ray Train runs in each worker's process, and the thread that watches beside it."""

from __future__ import annotations

import faulthandler
import os
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ray.util.placement_group import PlacementGroup

INTERVAL = 1.0
"""Seconds between two looks. One worker of each machine asks Ray; that is little even for 500."""
STDERR = 2


def ray_worker(settings: dict[str, Any]) -> dict[str, float]:
    """One worker: ``settings["body"]``, by default ``train_worker``, with its surroundings."""
    import ray.train
    from ray.train.torch import get_device

    from vmcmc_dist.config import config_from_dict
    from vmcmc_dist.engine.context import WorkerContext
    from vmcmc_dist.engine.ray_desk import Errand
    from vmcmc_dist.engine.run_folder import RunFolder
    from vmcmc_dist.engine.worker import train_worker

    config = settings["config"]
    context = ray.train.get_context()
    rank, size = context.get_world_rank(), context.get_world_size()
    resources = config["resources"]
    errand = None
    if rank == 0:
        errand = Errand.of(settings["desk"], RunFolder.of(config_from_dict(config)))
    watch = Watch(
        hang_timeout=resources["hang_timeout"],
        draining=context.get_local_rank() == 0,
        missing=resources["workers"] - size if rank == 0 and resources["min_workers"] else 0,
        each=settings["each"],
        grow_after=resources["grow_after"],
        errand=None if errand is None else errand.run,
    )
    worker = WorkerContext(
        rank, size, get_device(), settings["group"], notice=watch.noticed, beat=watch.beat
    )
    threads = resources["threads"] or settings["share"]
    try:
        return (settings["body"] or train_worker)(config, settings["manifest"], worker, threads)
    finally:
        watch.close()
        if errand is not None:
            errand.close()


class Watch:
    """A thread that runs an ``errand`` (:class:`~vmcmc_dist.engine.ray_desk.Errand`) and looks,
    once a second, for three things:

    - Ray drains this machine (a spot notice, a scale-down): :meth:`noticed`;
    - there is room for workers that are ``missing``, each of the resources ``each``, for
      ``grow_after`` seconds or for all of them: :meth:`noticed`. It asks for that room by
      placement groups, which an autoscaler sees, and which end with this process;
    - no :meth:`beat` for ``hang_timeout`` seconds: writes where every thread stands into the log,
      and ends the process. (One that is stopped as a whole is found by Ray's health check.)
    """

    def __init__(
        self,
        *,
        hang_timeout: float,
        draining: bool,
        missing: int,
        each: dict[str, float],
        grow_after: float,
        errand: Callable[[], None] | None = None,
    ):
        self.hang_timeout, self.draining, self.grow_after = hang_timeout, draining, grow_after
        self.last = time.monotonic()
        self.room_since = float("inf")
        self.rooms: list[PlacementGroup] = []
        self._missing, self._each, self._errand = missing, each, errand
        self._notice, self._closed = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watch", daemon=True)
        self._thread.start()

    def beat(self) -> None:
        self.last = time.monotonic()

    def noticed(self) -> bool:
        return self._notice.is_set()

    def close(self) -> None:
        """End the thread, with a last errand, and give back the room that it held."""
        self._closed.set()
        self._thread.join(timeout=10)
        if self.rooms:
            from ray.util import remove_placement_group

            for room in self.rooms:
                remove_placement_group(room)

    def _watch(self) -> None:
        while not self._closed.wait(INTERVAL):
            silent = time.monotonic() - self.last
            if silent > self.hang_timeout:
                self._end(silent)
            self._ask(self._look)
        if self._errand is not None:
            self._ask(self._errand)

    def _look(self) -> None:
        if not self.noticed() and (self._drained() or self._room()):
            self._notice.set()
        if self._errand is not None:
            self._errand()

    @staticmethod
    def _ask(what: Callable[[], None]) -> None:
        import ray

        try:
            what()
        except (ray.exceptions.RayError, ConnectionError, TimeoutError) as error:
            # the cluster's head does not answer: Ray ends this process if that lasts
            print(f"watch: {type(error).__name__}: {error}", flush=True)

    def _drained(self) -> bool:
        import ray

        if not self.draining:
            return False
        here = ray.get_runtime_context().get_node_id()
        if here not in ray._private.state.state.get_draining_nodes():
            return False
        print("watch: this machine is about to go; the run is saved and goes on", flush=True)
        return True

    def _room(self) -> bool:
        from ray.util import placement_group, placement_group_table

        if not self._missing:
            return False
        if not self.rooms:
            self.rooms = [placement_group([self._each]) for _ in range(self._missing)]
        there = sum(placement_group_table(room)["state"] == "CREATED" for room in self.rooms)
        now = time.monotonic()
        self.room_since = min(self.room_since, now) if there else float("inf")
        if not there or now - self.room_since < self.grow_after:
            return False
        print(f"watch: there is room for {there} more workers; the run is saved", flush=True)
        return True

    def _end(self, silent: float) -> None:
        os.write(STDERR, f"watch: no progress for {silent:.0f} s; this worker ends\n".encode())
        faulthandler.dump_traceback(STDERR, all_threads=True)
        os._exit(1)
