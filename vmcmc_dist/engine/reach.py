"""Whether this machine can write a run's folder and read its data, and how fast."""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from vmcmc_dist.data import store
from vmcmc_dist.data.config import DataConfig
from vmcmc_dist.data.manifest import NAME
from vmcmc_dist.data.storage import RetryPolicy
from vmcmc_dist.errors import DataError

PATIENCE = RetryPolicy(seconds=4.0)
STALL_S = 3.0
MARK_BYTES = 1 << 20
READ_S = 1.0
"""A read rate is taken over this long, or one shard."""
PIECE = 4 << 20


@dataclass(frozen=True)
class Reach:
    """What came of one place.

    Attributes:
        problem: why a run cannot use it from here; empty if it can.
        write, read: bytes per second; 0 where it was not measured.
        note: what is no problem but should be known.
        version: of what was found there; nodes that share the place agree in it.
    """

    problem: str = ""
    write: float = 0.0
    read: float = 0.0
    note: str = ""
    version: str = ""


def reach_out(out: str, mark: str, mine: str) -> Reach:
    """Write, read and delete a file below ``out``.

    Args:
        mark: name of a file that the driver left in ``out``; a local folder that does not show
            it is another machine's.
        mine: name of the file to write, this machine's own.
    """
    store.configure(PATIENCE, STALL_S)
    content = os.urandom(MARK_BYTES)
    try:
        if not store.exists(store.join(out, mark)):
            return Reach("it is not the folder that the driver's machine has under this name")
        place = store.join(out, mine)
        began = time.monotonic()
        store.write_bytes(place, content)
        wrote = time.monotonic()
        same = store.read_bytes(place) == content
        read = time.monotonic()
        store.delete(place)
    except DataError as error:
        return Reach(_why(error, out))
    if not same:
        return Reach("what is read back is not what was written")
    remote = store.is_remote(out)
    free = 0 if remote else shutil.disk_usage(Path(out)).free
    rates = (MARK_BYTES / (wrote - began), MARK_BYTES / (read - wrote)) if remote else (0.0, 0.0)
    return Reach("", *rates, note="" if remote else f"{free / 2**30:,.1f} GiB free")


def leave_mark(out: str, mark: str) -> str:
    """Write the driver's mark; what is wrong with ``out``, or "" if nothing."""
    store.configure(PATIENCE, STALL_S)
    try:
        if not store.is_remote(out):
            Path(out).mkdir(parents=True, exist_ok=True)
        store.write_bytes(store.join(out, mark), b"")
    except DataError as error:
        return _why(error, out)
    except OSError as error:
        return error.strerror or str(error)
    return ""


def take_mark(out: str, mark: str) -> None:
    store.delete(store.join(out, mark))


def reach_data(data: DataConfig, seconds: float = READ_S) -> Reach:
    """Read the manifest of the shards, and as much of the first shard as ``seconds`` give."""
    base = shards_place(data)
    if base is None:
        return Reach(note="nothing to read")
    store.configure(PATIENCE, STALL_S)
    try:
        if not store.exists(store.join(base, NAME)):
            return Reach(note="not prepared yet")
        text = store.read_bytes(store.join(base, NAME))
        shards = json.loads(text).get("shards") or []
        version = f"{len(text)} bytes, {len(shards)} shards"
        if not shards:
            return Reach(version=version)
        path, reader = store.join(base, shards[0]["name"]), store.reader()
        size, at, began = reader.size(path), 0, time.monotonic()
        while at < size and (at == 0 or time.monotonic() - began < seconds):
            at += len(reader.read(path, at, min(PIECE, size - at)))
        return Reach(read=at / max(1e-9, time.monotonic() - began), version=version)
    except DataError as error:
        return Reach(_why(error, base))
    except (ValueError, KeyError, TypeError):
        return Reach(f"{NAME} is not readable; prepare the data again")


def shards_place(data: DataConfig) -> str | None:
    """Where workers read shards from, if the config says it; else ``None``."""
    return data.root if data.source == "shards" else data.shards


def _why(error: DataError, place: str) -> str:
    """The store's message; the place stands before it already."""
    text = str(error)
    for url in (place, place.rstrip("/")):
        text = text.removeprefix(url)
    return text.lstrip(":/ ")
