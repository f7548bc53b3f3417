"""One function over processes of Ray, outside of training: all at once, or as they come."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from vmcmc_dist.config import Config
from vmcmc_dist.engine.ray_groups import first_line
from vmcmc_dist.engine.ray_launch import start_ray
from vmcmc_dist.errors import ResourceError, UserError


def ray_map(
    function: Callable[..., Any],
    calls: Sequence[tuple[Any, ...]],
    config: Config,
    *,
    cpus: float = 1,
    gpus: float = 0,
) -> list[Any]:
    """``[function(*call) for call in calls]``, each call in a process of its own.

    Joins the Ray of this process or of ``resources.address``; else starts one here, and ends it.

    Raises:
        UserError: what a call raised, a dead process, or a Ray that could not be had.
    """
    result: list[Any] = []
    failed: list[BaseException] = []

    def body() -> None:  # one thread for all of Ray, and not the main one: see RayRun
        import ray

        own = not ray.is_initialized()
        try:
            start_ray(config)
            _check_room(len(calls), cpus, gpus)
            remote = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0)(function)
            result.extend(ray.get([remote.remote(*call) for call in calls]))
        except ray.exceptions.RayTaskError as error:
            failed.append(_cause(error))
        except ray.exceptions.RayError as error:
            failed.append(_died(error))
        except BaseException as error:  # handed to the main thread, which raises it
            failed.append(error)
        finally:
            if own and ray.is_initialized():
                ray.shutdown()

    thread = threading.Thread(target=body, name="ray-map", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(0.2)  # short waits, so that signals are handled
    if failed:
        raise failed[0] from None
    return result


def ray_stream(
    function: Callable[[Any], Any], jobs: Sequence[Any], config: Config, *, cpus: float = 1
) -> Iterator[Any]:
    """``function(job)`` of every job, in whatever order they are done, over all of Ray's CPUs.

    For jobs that may be done twice: one whose process or machine dies is tried again. The function
    is sent to each process once. Ray as for :func:`ray_map`.

    Raises:
        UserError: what a job raised, a process that died again and again, no Ray to be had.
    """
    results: queue.Queue[tuple[str, Any]] = queue.Queue()
    over = threading.Event()

    def body() -> None:  # one thread for all of Ray, and not the main one: see RayRun
        import ray

        own = not ray.is_initialized()
        try:
            start_ray(config)
            _check_room(1, cpus, 0)
            _run_all(function, jobs, cpus, results, over)
            results.put(("end", None))
        except ray.exceptions.RayTaskError as error:
            results.put(("error", _cause(error)))
        except ray.exceptions.RayError as error:
            results.put(("error", _died(error)))
        except BaseException as error:  # handed to the main thread, which raises it
            results.put(("error", error))
        finally:
            if own and ray.is_initialized():
                ray.shutdown()

    thread = threading.Thread(target=body, name="ray-stream", daemon=True)
    thread.start()
    try:
        while True:
            try:
                kind, value = results.get(timeout=0.2)  # short waits, so that signals are handled
            except queue.Empty:
                continue
            if kind == "end":
                return
            if kind == "error":
                raise value from None
            yield value
    finally:
        over.set()
        thread.join(timeout=30)


def _run_all(
    function: Callable[[Any], Any],
    jobs: Sequence[Any],
    cpus: float,
    results: queue.Queue[tuple[str, Any]],
    over: threading.Event,
) -> None:
    """Keep two jobs for every CPU under way until all are done, or nobody wants them."""
    import ray

    held = ray.put(function)
    remote = ray.remote(num_cpus=cpus, max_retries=RETRIES)(_call_held)
    left = list(reversed(jobs))
    running: list[Any] = []
    while (left or running) and not over.is_set():
        room = 2 * max(1, int(ray.cluster_resources().get("CPU", 1) / cpus))
        while left and len(running) < room:
            # in a list, so that Ray hands over the reference and each process gets it once
            running.append(remote.remote([held], left.pop()))
        done, running = ray.wait(running, timeout=0.5)
        for result in ray.get(done):
            results.put(("result", result))
    for reference in running:
        ray.cancel(reference, force=True)


RETRIES = 3
_functions: dict[str, Callable[[Any], Any]] = {}


def _call_held(held: list[Any], job: Any) -> Any:
    """In a process of Ray: the function is got from the object store the first time."""
    import ray

    name = held[0].hex()
    if name not in _functions:
        _functions.clear()
        _functions[name] = ray.get(held[0])
    return _functions[name](job)


def _died(error: BaseException) -> ResourceError:
    return ResourceError(
        f"a process of Ray died ({first_line(error)}). What was finished is kept: run "
        "the same command again to go on."
    )


class RayCall:
    """One call in a process of the Ray that this process is a worker of, on the same machine: it
    reads this one's files, and shares its GPU. Needs no CPU of its own.

    Raises, from :meth:`result`: what the call raised.
    """

    def __init__(self, function: Callable[..., Any], *arguments: Any):
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        once = ray.remote(num_cpus=0, num_gpus=0, max_retries=0, max_calls=1)
        remote = once(function).options(scheduling_strategy=here)
        self._reference = remote.remote(*arguments)

    def running(self) -> bool:
        import ray

        return not ray.wait([self._reference], timeout=0)[0]

    def result(self) -> Any:
        import ray

        try:
            return ray.get(self._reference)
        except ray.exceptions.RayTaskError as error:
            raise _cause(error) from None
        except ray.exceptions.RayError as error:
            raise ResourceError(f"its process died ({first_line(error)})") from None

    def end(self) -> None:
        import ray

        ray.cancel(self._reference, force=True)


def _check_room(calls: int, cpus: float, gpus: float) -> None:
    import ray

    total = ray.cluster_resources()
    for kind, each in (("CPU", cpus), ("GPU", gpus)):
        if each * calls > total.get(kind, 0.0):
            raise ResourceError(
                f"{calls} workers need {each * calls:g} {kind}, Ray has {total.get(kind, 0):g}; "
                "ask for fewer"
            )


def _cause(error: Any) -> BaseException:
    cause = error.cause
    if isinstance(cause, UserError):
        return cause
    return ResourceError(f"a worker failed ({type(cause).__name__}: {first_line(cause)})")
