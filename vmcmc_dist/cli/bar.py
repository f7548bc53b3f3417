"""A progress bar for commands that train something small."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import Progress


@contextmanager
def training_bar(what: str) -> Iterator[Callable[[int, int, float], None]]:
    """Yields ``progress(done, total, loss)``; the bar appears with its first call."""
    with Progress(transient=True) as bar:
        task = None

        def progress(done: int, total: int, loss: float) -> None:
            nonlocal task
            if task is None:
                task = bar.add_task(what, total=total)
            bar.update(task, completed=done, description=f"{what} · loss {loss:.3f}")

        yield progress
