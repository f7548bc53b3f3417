"""One function over many jobs: in this process or in several; results as they come."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from typing import Any, TypeVar

from vmcmc_dist.errors import ResourceError

Job = TypeVar("Job")
Result = TypeVar("Result")

Mapper = Callable[[Callable[[Any], Any], Sequence[Any]], Iterator[Any]]
"""``mapper(function, jobs)`` yields ``function(job)`` of every job, in any order; the function is
picklable and is sent to each process once.
"""

_held: dict[str, Callable[[Any], Any]] = {}


def here(function: Callable[[Job], Result], jobs: Sequence[Job]) -> Iterator[Result]:
    """One after the other, in this process."""
    return map(function, jobs)


def in_processes(workers: int) -> Mapper:
    """Over ``workers`` spawned processes, which end with this one, however it ends."""

    def mapper(function: Callable[[Job], Result], jobs: Sequence[Job]) -> Iterator[Result]:
        pool = ProcessPoolExecutor(
            min(workers, len(jobs)), get_context("spawn"), initializer=_hold, initargs=(function,)
        )
        try:
            with _without_ctrl_c():
                futures = [pool.submit(_call, job) for job in jobs]
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool:
            raise ResourceError(
                "a process that prepares shards died: out of memory, or started from a script "
                "without `if __name__ == '__main__':`; set data.prepare_workers=1. Finished "
                "shards are kept: run the same command again to go on"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)

    return mapper


@contextmanager
def _without_ctrl_c() -> Iterator[None]:
    """Processes that start meanwhile ignore Ctrl-C until :func:`_hold`, and print no traceback."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _hold(function: Callable[[Any], Any]) -> None:
    _held["function"] = function
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C reaches us too: end without a word
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A killed parent would leave its workers waiting for ever."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _call(job: Any) -> Any:
    return _held["function"](job)
