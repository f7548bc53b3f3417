"""A lock among processes: a file that one of them holds; the kernel lets go of it when it ends."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vmcmc_dist.errors import ResourceError

POLL_SECONDS = 0.2


@contextmanager
def locked(path: Path, *, wait: bool, what: str) -> Iterator[None]:
    """Hold the lock file ``path`` (its folder is there); it is removed in the end.

    Raises ResourceError, saying ``what`` is in the way, if another process holds it and not
    ``wait``, or if the file cannot be made.
    """
    try:
        handle = _acquire(path, wait)
    except BlockingIOError:
        raise ResourceError(what) from None
    except OSError as error:
        raise ResourceError(f"{path}: cannot be locked ({error.strerror})") from None
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)


def _acquire(path: Path, wait: bool) -> int:
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is(handle, path):
                return handle
        except BlockingIOError:
            if not wait:
                os.close(handle)
                raise
            time.sleep(POLL_SECONDS)
        except OSError:
            os.close(handle)
            raise
        os.close(handle)  # held by another, or removed by it in the meantime


def _is(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False
