"""A progress bar for commands that train something small."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress, TaskID


def bar_of_user() -> Progress:
    """A bar on stderr, so that stdout holds results alone; none where that is no terminal."""
    console = Console(stderr=True)
    return Progress(transient=True, console=console, disable=not console.is_terminal)


@contextmanager
def stage_bar() -> Iterator[Callable[[str, int, int], None]]:
    """Yields ``progress(what, done, total)``; each ``what`` has a bar with its time left."""
    with bar_of_user() as bar:
        tasks: dict[str, TaskID] = {}

        def progress(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done, total=total)

        yield progress


@contextmanager
def training_bar(what: str) -> Iterator[Callable[[int, int, float], None]]:
    """Yields ``progress(done, total, loss)``; the bar appears with its first call."""
    with bar_of_user() as bar:
        task = None

        def progress(done: int, total: int, loss: float) -> None:
            nonlocal task
            if task is None:
                task = bar.add_task(what, total=total)
            bar.update(task, completed=done, description=f"{what} · loss {loss:.3f}")

        yield progress
