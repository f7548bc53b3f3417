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
        # two simple queues make a bounded one: queue.Queue takes many more steps an item
        self._ready: queue.SimpleQueue[tuple[Item | None, BaseException | None]]
        self._ready, self._room = queue.SimpleQueue(), queue.SimpleQueue[None]()
        for _ in range(depth):
            self._room.put(None)
        self._thread: threading.Thread | None = None
        if depth:
            self._thread = threading.Thread(target=self._run, name="vmcmc-prefetch", daemon=True)

    def _run(self) -> None:
        try:
            for item in self._items:
                if not self._has_room():
                    return
                self._ready.put((item, None))
            self._ready.put((None, StopIteration()))
        except BaseException as error:
            self._ready.put((None, error))

    def _has_room(self) -> bool:
        """Waits for it; False once closed."""
        while not self._stopped.is_set():
            try:
                self._room.get(timeout=0.1)
                return True
            except queue.Empty:
                continue
        return False

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
        self._room.put(None)
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
