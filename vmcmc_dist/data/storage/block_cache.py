"""Blocks of remote shards on a local disk, shared by all processes of a node.

    FOLDER/vmcmc-block-cache   the ledger: bytes in use; its lock is held at every change of files
    FOLDER/unfinished/NAME     a block being fetched; its lock keeps others from fetching it too
    FOLDER/blocks/ab/NAME      a whole block; its mtime is the time of its last use

NAME is the sha256 of the block's key. No process keeps anything that another needs: the files say
what is there, and how lately it was used; the ledger saves counting them.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from vmcmc_dist.data.storage.cache_ledger import LEDGER, Ledger, locked_ledger
from vmcmc_dist.data.storage.unfinished import claim, is_at, left_behind, unlock
from vmcmc_dist.errors import ConfigError, DataError

PAGE = 4096
"""Sizes of files count in whole pages, as on disk."""

SLACK = 20
"""A full cache is emptied by 1/SLACK of its bound at once, so that it is counted seldom."""

RETRY_SECONDS = 60.0
"""After a failure of the disk, nothing is written for this long."""


class CacheCounts(NamedTuple):
    """What this process saw; ``bytes`` is the size of the whole cache when it last looked."""

    hits: int
    misses: int
    evicted: int
    damaged: int
    bytes: int


def block_key(url: str, version: str, start: int, length: int) -> str:
    """The key of bytes [start, start + length) of the object ``url`` of that version (ETag)."""
    return json.dumps([url, version, start, length])


def on_disk(size: int) -> int:
    """Bytes that a file of ``size`` bytes counts for."""
    return -(-size // PAGE) * PAGE


def _mark_used(fd: int) -> None:
    now = time.time_ns()  # the kernel's own "now" is milliseconds coarse
    os.utime(fd, ns=(now, now))


def _size(path: Path | str) -> int:
    """Bytes of a file; 0 if it has just gone."""
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def _remove(ledger: Ledger, path: Path | str) -> None:
    """Remove a file, if it is still there, and its bytes from the total."""
    size = on_disk(_size(path))
    Path(path).unlink(missing_ok=True)
    if ledger.known:
        ledger.total -= size


class BlockCache:
    """Blocks by key below ``folder``, at most ``max_bytes`` of them, the least lately used dropped.

        cache = BlockCache(Path("/scratch/blocks"), 100 << 30)
        key = block_key("s3://bucket/000.tar", etag, start, length)
        block = cache.get(key, lambda: read(start, length), lambda data: crc(data) == expected)

    The bound holds at every moment, over all processes, unfinished files included; sizes count in
    pages of 4 KiB. Not in it: the folders and inodes (some 400 bytes a block), and a block that
    was dropped while a reader had it open. May be used by many threads.

    A folder that cannot be made, read or written, and a full disk, are said once as a warning;
    blocks then come from ``fetch`` and are not kept, and the disk is tried again every minute.

    Raises ConfigError for a folder that holds other files.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder = Path(folder).expanduser()
        self.max_bytes = max_bytes
        self._blocks = self.folder / "blocks"
        self._unfinished = self.folder / "unfinished"
        self._counting = threading.Lock()
        self._counts = CacheCounts(0, 0, 0, 0, 0)
        self._opened = False
        self._warned = False
        self._resume_at = 0.0
        self._usable()

    @property
    def counts(self) -> CacheCounts:
        """Hits, misses, evicted and damaged blocks of this process; bytes of all."""
        return self._counts

    def get(self, key: str, fetch: Callable[[], bytes], valid: Callable[[bytes], bool]) -> bytes:
        """The block of ``key``: from the disk if it is there and ``valid``, else by ``fetch()``.

        Processes and threads that miss the same block wait for one of them to fetch it. A block
        that is not valid is dropped, counted and fetched again. Errors of ``fetch`` pass through;
        raises DataError if what it gave is not valid.
        """
        name = hashlib.sha256(key.encode()).hexdigest()
        path = self._blocks / name[:2] / name
        data = self._read(path)
        if data is None or not valid(data):
            with self._claimed(name) as fd:
                data = self._read(path)
                if data is not None and not valid(data):
                    self._drop_damaged(path)
                    data = None
                if data is None:
                    return self._fetch(key, fetch, valid, path, fd)
        self._count(hits=1)
        return data

    def _fetch(
        self,
        key: str,
        fetch: Callable[[], bytes],
        valid: Callable[[bytes], bool],
        path: Path,
        fd: int | None,
    ) -> bytes:
        """The block from the store, kept in the claimed file ``fd`` if there is one."""
        self._count(misses=1)
        data = fetch()
        if not valid(data):
            raise DataError(f"{key}: the store's bytes are not what the index says; prepare anew")
        if fd is not None and on_disk(len(data)) <= self.max_bytes:
            with self._failures():
                self._store(fd, path, data)
        return data

    def _read(self, path: Path) -> bytes | None:
        """The file's bytes, marked as used now; None if it is not there."""
        with self._failures():
            try:
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except (FileNotFoundError, NotADirectoryError):
                return None
            try:
                data = os.read(fd, os.fstat(fd).st_size)
                with self._failures():  # a disk that has become read-only still has the block
                    _mark_used(fd)
            finally:
                os.close(fd)
            return data
        return None

    def _store(self, fd: int, path: Path, data: bytes) -> None:
        """Write the claimed file, its room taken beforehand, and put it in its place."""
        size = on_disk(len(data))
        with self._locked() as ledger:
            left = on_disk(os.fstat(fd).st_size)
            if left:  # a killed writer's, claimed anew
                os.ftruncate(fd, 0)
                ledger.total -= left
            if not self._make_room(ledger, size):
                return
            # In this order a kill leaves the ledger too high, which counting mends, never too low.
            ledger.total += size
            try:
                os.ftruncate(fd, len(data))  # so that others count it in full from now on
            except OSError:
                ledger.total -= size
                raise
        view = memoryview(data)
        while view:
            view = view[os.pwrite(fd, view, len(data) - len(view)) :]
        _mark_used(fd)
        with self._locked():
            path.parent.mkdir(exist_ok=True)
            (self._unfinished / path.name).rename(path)

    def _drop_damaged(self, path: Path) -> None:
        """Remove a block that its claimant found damaged."""
        self._count(damaged=1)
        with self._failures(), self._locked() as ledger:
            _remove(ledger, path)

    @contextmanager
    def _claimed(self, name: str) -> Iterator[int | None]:
        """The file of a block to be fetched, locked; None while the disk is not to be used."""
        path, fd = self._unfinished / name, None
        if self._usable():
            with self._failures():
                fd = claim(path)
        try:
            yield fd
        finally:
            if fd is not None:
                with self._failures():
                    self._give_up(fd, path)
                unlock(fd)

    def _give_up(self, fd: int, path: Path) -> None:
        """Remove a claimed file that did not become a block."""
        if not is_at(fd, path):
            return
        if os.fstat(fd).st_size == 0:
            os.unlink(path)
            return
        with self._locked() as ledger:
            _remove(ledger, path)

    def _make_room(self, ledger: Ledger, size: int) -> bool:
        """Drop the least lately used blocks if ``size`` more bytes need it; False if in vain."""
        if ledger.total + size > self.max_bytes:
            blocks = self._take_stock(ledger)
            if ledger.total + size > self.max_bytes:
                blocks.sort()
                for _, path in blocks:
                    if ledger.total + size <= self.max_bytes - self.max_bytes // SLACK:
                        break
                    _remove(ledger, path)
                    self._count(evicted=1)
        return ledger.total + size <= self.max_bytes

    def _take_stock(self, ledger: Ledger) -> list[tuple[int, str]]:
        """All blocks as (last use, path); the ledger is set to what is there."""
        self._sweep(ledger)
        total = sum(on_disk(_size(file.path)) for file in os.scandir(self._unfinished))
        blocks = []
        for folder in os.scandir(self._blocks):
            for file in os.scandir(folder.path):
                stat = file.stat()
                blocks.append((stat.st_mtime_ns, file.path))
                total += on_disk(stat.st_size)
        ledger.total = total
        return blocks

    def _sweep(self, ledger: Ledger) -> None:
        """Remove what killed writers left."""
        for path in self._unfinished.iterdir():
            with left_behind(path) as left:
                if left:
                    _remove(ledger, path)

    @contextmanager
    def _locked(self) -> Iterator[Ledger]:
        """The ledger, its lock held: no other process or thread changes files meanwhile."""
        with locked_ledger(self.folder / LEDGER) as ledger:
            self._unfinished.mkdir(exist_ok=True)
            self._blocks.mkdir(exist_ok=True)
            if not ledger.known:
                self._take_stock(ledger)
            yield ledger
            self._count(bytes=ledger.total)

    def _usable(self) -> bool:
        """False for a while after a failure; makes or takes the folder where that is to do."""
        if time.monotonic() < self._resume_at:
            return False
        if not self._opened:
            with self._failures():
                self._open()
                self._opened = True
        return self._opened

    def _open(self) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        names = os.listdir(self.folder)
        if names and LEDGER not in names:
            raise ConfigError(
                f"{self.folder} holds other files ({min(names)}); name an empty folder, or a new "
                "one, as data.block_cache"
            )
        with self._locked() as ledger:
            self._sweep(ledger)
            self._make_room(ledger, 0)  # for a bound that is lower than the last time

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """A failure of the disk ends what is inside, not the run: it is said, once."""
        try:
            yield
        except OSError as error:
            self._resume_at = time.monotonic() + RETRY_SECONDS
            self._opened = False
            with self._counting:
                first, self._warned = not self._warned, True
            if first:
                warnings.warn(
                    f"data.block_cache: {self.folder}: {error.strerror or error}; blocks come from "
                    f"the store, and the cache is tried again every {RETRY_SECONDS:.0f} s",
                    stacklevel=2,
                )

    def _count(
        self,
        hits: int = 0,
        misses: int = 0,
        evicted: int = 0,
        damaged: int = 0,
        bytes: int | None = None,
    ) -> None:
        with self._counting:
            old = self._counts
            self._counts = CacheCounts(
                old.hits + hits,
                old.misses + misses,
                old.evicted + evicted,
                old.damaged + damaged,
                old.bytes if bytes is None else bytes,
            )
