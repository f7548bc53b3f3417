"""Items of an iterator made ahead by one thread, with errors that surface and a clean stop."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Prefetcher(Generic[Item]):
    """Keeps up to ``depth`` items ready; 0 = no thread. An error ends it, in the caller."""

    def __init__(self, items: Iterator[Item], depth: int) -> None:
        self._items = items
        self._stopped = threading.Event()
        self._ready: queue.Queue[tuple[Item | None, BaseException | None]] = queue.Queue(
            max(1, depth)
        )
        self._thread: threading.Thread | None = None
        if depth:
            self._thread = threading.Thread(target=self._run, name="vmcmc-prefetch", daemon=True)

    def _run(self) -> None:
        try:
            for item in self._items:
                self._put((item, None))
                if self._stopped.is_set():
                    return
            self._put((None, StopIteration()))
        except BaseException as error:
            self._put((None, error))

    def _put(self, entry: tuple[Item | None, BaseException | None]) -> None:
        while not self._stopped.is_set():
            try:
                self._ready.put(entry, timeout=0.1)
                return
            except queue.Full:
                continue

    def __iter__(self) -> Iterator[Item]:
        return self

    def __next__(self) -> Item:
        if self._stopped.is_set():
            raise StopIteration
        if self._thread is None:
            return next(self._items)
        if not self._thread.is_alive() and self._thread.ident is None:
            self._thread.start()
        item, error = self._get()
        if error is not None:
            self._stopped.set()
            raise error
        return item  # type: ignore[return-value]

    def _get(self) -> tuple[Item | None, BaseException | None]:
        while True:
            try:
                return self._ready.get(timeout=1.0)
            except queue.Empty:
                if self._stopped.is_set():
                    return None, StopIteration()

    def close(self) -> None:
        """Stop the thread; waits for it for at most two seconds. Safe to call twice."""
        self._stopped.set()
        if self._thread is not None and self._thread.is_alive():
            self._thread.join(timeout=2.0)
