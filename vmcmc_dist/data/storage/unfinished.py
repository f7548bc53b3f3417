"""Files being written, each of which is the lock of what it will become.

A process that writes ``NAME`` holds an flock on ``folder/NAME``; whoever wants the same waits for
it. The lock goes with the process, so a file that nobody holds is what a killed writer left.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path


def is_at(fd: int, path: Path) -> bool:
    """True while ``path`` still names the open file ``fd``."""
    try:
        there = os.stat(path)
    except FileNotFoundError:
        return False
    return os.path.samestat(there, os.fstat(fd))


def unlock(fd: int) -> None:
    """Let go and close; closing alone would not let go where a fork has a copy of ``fd``."""
    fcntl.flock(fd, fcntl.LOCK_UN)
    os.close(fd)


def claim(path: Path) -> int:
    """The file at ``path``, made if missing, open and locked; waits while another holds it.

    End with `unlock`, after moving the file or removing it.
    """
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with ExitStack() as unless_ours:
            unless_ours.callback(unlock, fd)
            fcntl.flock(fd, fcntl.LOCK_EX)
            if is_at(fd, path):
                unless_ours.pop_all()
                return fd
        # the one who held it moved or removed it; there is a new one to lock


@contextmanager
def left_behind(path: Path) -> Iterator[bool]:
    """True if ``path`` is a killed writer's; nobody else can claim it before the end."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        yield False
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        yield False
        return
    try:
        yield is_at(fd, path)
    finally:
        unlock(fd)
