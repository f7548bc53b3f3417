"""Progress for the user: a bar in a terminal, plain lines elsewhere, both read from the metrics.

The workers write ``metrics.jsonl``; this reads it. So progress is shown the same way whoever
runs the workers, and nothing that trains waits for a terminal.
"""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from vmcmc_dist.config import Config
from vmcmc_dist.engine.run_folder import complete_lines
from vmcmc_dist.teaching.guard import BALANCED

PLAIN_SECONDS = 10.0


class TrainingProgress:
    """Follows the metrics of a run in a thread until closed.

    ``first_step_seconds`` tells when the first record of this start arrived.
    """

    def __init__(self, console: Console, config: Config, metrics: Path):
        self.console, self.config, self.metrics = console, config, metrics
        self._file: BinaryIO | None = None  # kept open, so that its inode cannot come back
        if metrics.exists():
            self._file = metrics.open("rb")
            self._file.seek(0, os.SEEK_END)
        earlier = complete_lines(metrics) if metrics.exists() else []
        self._told = {rollback_text(r) for r in earlier if r["kind"] == "rollback"}
        self._stop = threading.Event()
        self._printed = 0.0
        self._unseen: dict[str, Any] | None = None  # a record that no line was printed of
        self._bar = (
            Progress(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                TextColumn("{task.fields[figures]}"),
                TimeElapsedColumn(),
                console=console,
            )
            if console.is_terminal
            else None
        )

    def __enter__(self) -> TrainingProgress:
        if self._bar:
            self._bar.start()
            self._task = self._bar.add_task(
                "starting the workers", total=self.config.train.goal, figures=""
            )
        else:
            self.console.print("starting the workers")
        self._thread = threading.Thread(target=self._follow, name="progress", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._read(final=True)
        self._close()
        if self._bar:
            self._bar.stop()

    def say(self, text: str) -> None:
        """A line above the bar."""
        self.console.print(text)

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _say_once(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self.say(text)

    def _follow(self) -> None:
        while not self._stop.wait(0.25):
            self._read()

    def _read(self, final: bool = False) -> None:
        if not self.metrics.exists():
            return
        if self._file is None or not os.path.samestat(
            os.fstat(self._file.fileno()), self.metrics.stat()
        ):  # records were dropped: a new file
            self._close()
            self._file = self.metrics.open("rb")
        start = self._file.tell()
        text = self._file.read()
        text = text[: text.rfind(b"\n") + 1]
        self._file.seek(start + len(text))
        records = [json.loads(line) for line in text.splitlines()]
        for record in records:
            if record["kind"] == "rollback":
                self._say_once(rollback_text(record))
            if "failed" in record:
                self.say(f"evaluation at {record['images']:,} images failed: {record['failed']}")
        training = [r for r in records if r["kind"] == "train"]
        if training:
            self._unseen = training[-1]
        if self._unseen is not None:
            self._show(self._unseen, final)

    def _show(self, record: dict[str, Any], final: bool) -> None:
        text = figures(record, self.config)
        if self._bar:
            done = max(record["images"], time_share(record, self.config))
            self._bar.update(self._task, completed=done, figures=text, description="training")
            self._unseen = None
        elif final or time.monotonic() - self._printed >= PLAIN_SECONDS:
            self._printed, self._unseen = time.monotonic(), None
            self.console.print(text, soft_wrap=True)


def rollback_text(record: dict[str, Any]) -> str:
    """What the user is told of a roll-back."""
    return (
        f"rolled back from {record['from_images']:,} to {record['images']:,} images, "
        f"learning rates × {record['lr_scale']:g}: {record['reason']}"
    )


def time_share(record: dict[str, Any], config: Config) -> float:
    """Progress by the time limit, in images; 0 without a limit."""
    limit = config.train.max_minutes * 60
    return config.train.goal * min(1.0, record["time"]["seconds"] / limit) if limit else 0.0


def figures(record: dict[str, Any], config: Config) -> str:
    """``12,800 images · 310 img/s · gap +0.5 · balanced · ETA 6 min``."""
    speed = record["time"]["images_per_second"]
    left = (config.train.goal - record["images"]) / max(speed, 1e-9)
    if config.train.max_minutes:
        left = min(left, max(0.0, config.train.max_minutes * 60 - record["time"]["seconds"]))
    parts = [
        f"{record['images']:,} images",
        f"{speed:,.0f} img/s",
        f"gap {record['gap']:+.3g}" if "gap" in record else f"ELBO {-record['vae_loss']:.3g}",
        record["regime"] if record["regime"] == BALANCED else f"[yellow]{record['regime']}[/]",
        *data_figures(record["time"]),
        f"ETA {duration(left)}",
    ]
    return " · ".join(parts)


def data_figures(time: dict[str, Any]) -> list[str]:
    """What is worth a look about the data: the share of time that steps waited for it, bad samples,
    reads that were tried again.
    """
    parts = [f"data {time['data_wait']:.1%} of time"]
    if time.get("data_bad"):
        parts.append(f"[yellow]{time['data_bad']:,} bad samples[/]")
    if time.get("data_retries"):
        parts.append(f"{time['data_retries']:,} reads again")
    return parts


def duration(seconds: float) -> str:
    """``45 s``, ``6 min``, ``3 h 20 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60)} min"
