"""How many bytes a cache's folder takes: a small file that all its processes read and write."""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vmcmc_dist.errors import ConfigError

LEDGER = "vmcmc-block-cache"
"""Name of the ledger; a folder that has it is a cache's."""

_MAGIC = b"vmcmc blocks 1\n\n"
_LAYOUT = struct.Struct("<16s40sQ")  # magic, boot of the machine, bytes
_BOOT = Path("/proc/sys/kernel/random/boot_id")


def _boot() -> bytes:
    """Which boot of the machine this is; empty where that is not known."""
    return _BOOT.read_bytes().strip() if _BOOT.exists() else b""


class Ledger:
    """The total of a cache's folder, for as long as its lock is held (see `locked_ledger`)."""

    def __init__(self, path: Path, fd: int) -> None:
        self._fd = fd
        self._total: int | None = None
        record = os.pread(fd, _LAYOUT.size, 0)
        if record and record[: len(_MAGIC)] != _MAGIC:
            raise ConfigError(f"{path} is not a block cache's; name another data.block_cache")
        if len(record) == _LAYOUT.size:
            _, boot, total = _LAYOUT.unpack(record)
            if boot.rstrip(b"\0") == _boot():  # else what the disk kept of both may not agree
                self._total = total

    @property
    def known(self) -> bool:
        """False for a new ledger, and for one from before the machine went down."""
        return self._total is not None

    @property
    def total(self) -> int:
        """Bytes on disk, never less than there are; more where a process was killed."""
        return self._total or 0

    @total.setter
    def total(self, total: int) -> None:
        self._total = max(0, total)
        os.pwrite(self._fd, _LAYOUT.pack(_MAGIC, _boot(), self._total), 0)


@contextmanager
def locked_ledger(path: Path) -> Iterator[Ledger]:
    """The ledger at ``path``, made if missing, held by this thread alone until the end.

    A file opened anew each time keeps the threads of one process apart as well, and a process
    that dies lets go. Raises ConfigError for a file that is none, OSError where it fails.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield Ledger(path, fd)
    finally:
        fcntl.flock(fd, fcntl.LOCK_UN)  # closing alone would not: a fork may have a copy of fd
        os.close(fd)
