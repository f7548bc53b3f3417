"""Ray joined or started, and a run launched on it, in a thread beside the main one."""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psutil

from vmcmc_dist.config import Config
from vmcmc_dist.data.manifest import Manifest
from vmcmc_dist.engine.ray_groups import WORKER_ENVIRONMENT, Body, Groups
from vmcmc_dist.engine.ray_preflight import preflight
from vmcmc_dist.engine.resources import cpu_count
from vmcmc_dist.errors import ResourceError

ALONE = {"RAY_worker_niceness": "0"}
"""On a Ray of our own the workers are what the machine is there for (Ray's default niceness of 15
starves them beside anything else)."""


def start_ray(config: Config, dashboard: bool = False, quiet: bool = False) -> None:
    """Join the cluster of ``resources.address``, or start one on this machine.

    ``dashboard``: start it too, on loopback. Ray asks it what is left of a group of workers whose
    starter was killed; without it their places are never given back.

    Raises:
        ResourceError: no cluster at that address, or none could be started.
    """
    import ray

    if ray.is_initialized():
        return
    address = config.resources.address
    for key, value in (WORKER_ENVIRONMENT if address else WORKER_ENVIRONMENT | ALONE).items():
        os.environ.setdefault(key, value)
    try:
        if address:
            ray.init(address=address, logging_level=logging.ERROR, log_to_driver=not quiet)
        else:
            ray.init(
                address="local",
                num_cpus=cpu_count(),
                include_dashboard=dashboard,
                logging_level=logging.ERROR,
            )
    except (ConnectionError, RuntimeError, ValueError) as error:
        where = f"join the Ray cluster at {address}" if address else "start Ray on this machine"
        raise ResourceError(f"could not {where}: {error}") from None


def look_over(config: Config, say: Callable[[str], Any]) -> None:
    """Join the cluster, look at all of it, print the page, and leave.

    Raises:
        ResourceError: no such cluster, or what it cannot do for this run.
    """
    import ray

    start_ray(config, quiet=True)
    try:
        preflight(config, say, "full")
    finally:
        ray.shutdown()


def end_leftovers() -> None:
    """End what Ray Train left running on our own Ray; its shutdown would wait 15 s for them.

    Not Ray's agents: a node ends with its agents, and then, with status 1, the process that
    started it.
    """
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            name = process.name()
            if name.startswith("ray::") and not name.endswith("Agent"):
                process.kill()


class RayRun:
    """Ray in a thread of its own: it starts at once, and launches when the data is there.

    One thread for all of Ray, since the kernel ends Ray's processes with the thread that started
    them (and Ray then ends this one); and not the main thread, since Ray would take over Ctrl-C.
    """

    def __init__(
        self,
        config: Config,
        body: Body | None = None,
        say: Callable[[str], Any] = print,
    ):
        self._config, self._body_of_worker, self._say = config, body, say
        self._own = not config.resources.address
        self._data: queue.Queue[Manifest | None] = queue.Queue()
        self._result: dict[str, Any] | None = None
        self._error: BaseException | None = None
        self._launched, self._done, self._ended, self._closing = (
            threading.Event() for _ in range(4)
        )
        self._looked = threading.Event()
        self._thread = threading.Thread(target=self._body, name="ray-train", daemon=True)
        self._thread.start()

    def checked(self) -> None:
        """Wait for the pre-flight of a cluster; raises what it refuses. None on our own Ray."""
        while not self._own and not self._looked.wait(0.2) and not self._done.is_set():
            pass
        if self._error is not None:
            raise self._error

    def run(self, manifest: Manifest) -> dict[str, float]:
        """Launch the workers on prepared data and wait for their end."""
        self._data.put(manifest)
        while not self._done.wait(0.2):  # short waits, so that signals are handled
            pass
        if self._error is not None:
            raise self._error
        assert self._result is not None
        return self._result

    def close(self) -> None:
        """Shut Ray down, whether or not it came to a launch, or is left in the middle of one."""
        self._data.put(None)
        self._ended.set()  # what fails now is not started again
        until = time.monotonic() + 10
        while not self._done.wait(0.2) and time.monotonic() < until:
            if self._launched.is_set() and self._own:
                end_leftovers()  # the launch then fails
        self._closing.set()
        self._thread.join(timeout=20)

    def _body(self) -> None:
        try:
            start_ray(self._config)
            if not self._own and self._config.resources.preflight != "none":
                preflight(self._config, self._say)
            self._looked.set()
            manifest = self._data.get()
            if manifest is not None:
                self._launched.set()
                groups = Groups(
                    self._config, manifest, self._body_of_worker, self._say, self._ended.is_set
                )
                self._result = groups.run()
        except BaseException as error:  # handed to the main thread, which raises it
            self._error = error
        self._done.set()
        self._closing.wait()
        import ray

        if ray.is_initialized():
            if self._own:
                end_leftovers()
            ray.shutdown()
