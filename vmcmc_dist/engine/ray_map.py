"""One function over several processes of Ray, outside of training."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from vmcmc_dist.config import Config
from vmcmc_dist.engine.ray_launch import first_line, start_ray
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
            failed.append(
                ResourceError(
                    f"a process of Ray died ({first_line(error)}). What was finished is kept: run "
                    "the same command again to go on."
                )
            )
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


class RayCall:
    """One call in a process of the Ray that this process is a worker of; needs no CPU of its own.

    Raises, from :meth:`result`: what the call raised.
    """

    def __init__(self, function: Callable[..., Any], *arguments: Any):
        import ray

        once = ray.remote(num_cpus=0, num_gpus=0, max_retries=0, max_calls=1)
        remote = once(function)
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
