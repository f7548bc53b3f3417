"""Progress of commands: bars with rate and time left, plain lines where stderr is no terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.progress import MofNCompleteColumn as Counts
from rich.progress import TimeRemainingColumn as TimeLeft
from rich.text import Text

LINE_SECONDS = 30.0


def bar_of_user() -> Progress:
    """A bar on stderr, so that stdout holds results alone; none where that is no terminal."""
    console = Console(stderr=True)
    return Progress(transient=True, console=console, disable=not console.is_terminal)


class _Rate(ProgressColumn):
    """How many a second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f}/s")


@contextmanager
def stage_bar() -> Iterator[Callable[[str, int, int], None]]:
    """Yields ``progress(what, done, total)``; each ``what`` has a bar with its rate and the time
    left; where stderr is no terminal, a line every ``LINE_SECONDS``.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines()
        return
    columns = (TextColumn("{task.description}"), BarColumn(), Counts(), _Rate(), TimeLeft())
    with Progress(*columns, transient=True, console=console, speed_estimate_period=120) as bar:
        tasks: dict[str, TaskID] = {}

        def progress(what: str, done: int, total: int) -> None:
            if what not in tasks:  # what was there before does not count for the rate
                tasks[what] = bar.add_task(what, total=total, completed=done)
            bar.update(tasks[what], completed=done, total=total)

        yield progress


class _Lines:
    """``progress`` as lines on stderr."""

    def __init__(self) -> None:
        self.begun: dict[str, tuple[float, int]] = {}
        self.said = time.monotonic()

    def __call__(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        start, first = self.begun.setdefault(what, (self.said, 0 if done < total else done))
        if now - self.said < LINE_SECONDS:
            return
        self.said = now
        rate = (done - first) / max(1e-9, now - start)
        left = f", {duration((total - done) / rate)} left" if rate > 0 else ""
        print(f"{what}: {done:,} of {total:,}, {rate:,.0f}/s{left}", file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """3723 → 1:02:03"""
    minutes, rest = divmod(int(seconds + 0.5), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


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


def say(text: str) -> None:
    """How far a command is: on stderr, so that stdout is its result alone."""
    print(text, file=sys.stderr)
