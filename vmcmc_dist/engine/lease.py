"""Who may write to a run on S3: one process at a time, and never two.

    .lease/000001.json, 000002.json, …      one object for each process that ever held the run

The highest number holds it. A new one is written only if it is not there yet (If-None-Match: *),
so of several that want it one gets it. The holder writes its object anew (heartbeat) every sixth
of ``seconds``; one whose object is older than ``seconds``, by the store's clock, is taken to be
dead, and the next number may be written. A holder that sees a higher number than its own has
lost the run and writes no more. What it may still be writing then is below its own number, and
no one reads it.
"""

from __future__ import annotations

import json
import os
import platform
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from vmcmc_dist.engine.run_store import RunStore
from vmcmc_dist.errors import DataError, ResourceError

BEATS = 6
"""Heartbeats within the time after which a silent holder is taken to be dead."""


class Lease:
    """The right to write to a run, by its number; ``check`` before each thing that others see."""

    def __init__(self, store: RunStore, number: int):
        self.store, self.number = store, number

    def check(self) -> None:
        """ResourceError if the run has passed to another process."""
        newest = max(_numbers(self.store), default=0)
        if newest > self.number:
            by = _told(self.store, newest)
            raise ResourceError(
                f"{self.store.url} was taken over by {by}, since this process had not been heard "
                "of for too long; it writes no more and ends. The other one goes on from the last "
                "checkpoint."
            )


class HeldLease(Lease):
    """A lease with its heartbeat, until :meth:`release`."""

    def __init__(self, store: RunStore, number: int, seconds: float):
        super().__init__(store, number)
        self._record = _this_process()
        self._every, self._beats = seconds / BEATS, 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)
        self._thread.start()

    def release(self) -> None:
        """Let the next process have the run at once."""
        self._over.set()
        self._thread.join()
        try:
            self.check()
            self._write(released=True)
        except (DataError, ResourceError) as error:
            print(f"the lease of the run was not given back: {error}", flush=True)

    def _beat(self) -> None:
        while not self._over.wait(self._every):
            try:
                self.check()
                self._write()
            except DataError as error:  # the next one may get through; others wait that long
                print(f"heartbeat: {error}", flush=True)
            except ResourceError as error:
                print(error, flush=True)  # the workers are told as they save
                return

    def _write(self, **more: Any) -> None:
        self._beats += 1
        self.store.write(_name(self.number), _encoded(self._record, beat=self._beats, **more))


def acquire(store: RunStore, seconds: float, say: Callable[[str], Any]) -> HeldLease:
    """Wait for the run and hold it.

    Raises:
        ResourceError: another process trains it, as its heartbeat says.
        DataError: the bucket is not there, or not ours.
    """
    waiting: tuple[int, bytes, float] | None = None
    while True:
        number = max(_numbers(store), default=0)
        found = store.read_with_age(_name(number)) if number else None
        if found is not None:
            holder = json.loads(found.data)
            if waiting is None or waiting[:2] != (number, found.data):
                if waiting is not None and waiting[0] == number and not holder.get("released"):
                    raise ResourceError(
                        f"another process is training {store.url} ({_words(holder)}); wait for "
                        "it, stop it, or give this run another name=…"
                    )
                waiting = (number, found.data, time.monotonic())
                free = holder.get("released") or _is_dead(holder)
                if not free and (found.age is None or found.age <= seconds):
                    say(
                        f"{store.url} is held by {_words(holder)}, which may be dead: waiting up "
                        f"to {seconds - (found.age or 0):.0f} s for a sign of life"
                    )
            watched = time.monotonic() - waiting[2]
            silent = watched if found.age is None else max(watched, found.age)
            if not (holder.get("released") or _is_dead(holder)) and silent <= seconds:
                time.sleep(min(1.0, seconds / BEATS / 2))
                continue
        if _take(store, number + 1):
            return HeldLease(store, number + 1, seconds)
        waiting = None


def _take(store: RunStore, number: int) -> bool:
    record = _encoded(_this_process(), beat=0)
    try:
        if store.write_new(_name(number), record):
            return True
    except DataError as error:
        if "501" not in str(error):
            raise
        raise ResourceError(
            f"{store.url}: this store cannot write an object only if it is not there (If-None-"
            "Match), so two processes could not be kept from one run; use another store, or a "
            "local out=… and copy the run"
        ) from None
    return store.read(_name(number)) == record  # ours, if only the answer was lost


def _numbers(store: RunStore) -> list[int]:
    return [int(name.split(".")[0]) for name in store.names(".lease") if name[:1].isdigit()]


def _name(number: int) -> str:
    return f".lease/{number:06d}.json"


def _told(store: RunStore, number: int) -> str:
    found = store.read(_name(number))
    return "another process" if found is None else _words(json.loads(found))


def _words(holder: dict[str, Any]) -> str:
    return f"process {holder['pid']} on {holder['host']}, since {holder['since']}"


def _encoded(record: dict[str, Any], **more: Any) -> bytes:
    return json.dumps(record | more).encode()


def _this_process() -> dict[str, Any]:
    return {
        "host": platform.node(),
        "machine": _machine(),
        "pid": os.getpid(),
        "started": psutil.Process().create_time(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
    }


def _machine() -> str | None:
    """What tells whether process numbers of another record are of this machine: the boot, and
    the namespace of processes."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def _is_dead(holder: dict[str, Any]) -> bool:
    """Whether it was a process of this machine that has ended."""
    if holder["machine"] is None or holder["machine"] != _machine():
        return False
    try:
        return psutil.Process(holder["pid"]).create_time() != holder["started"]
    except psutil.NoSuchProcess:
        return True
