"""Ranged reads of shards, local or on S3: the right bytes of one version, or a clear error."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from vmcmc_dist.data.storage import objects
from vmcmc_dist.data.storage.client import S3, Stats
from vmcmc_dist.data.storage.paths import is_remote, local_errors
from vmcmc_dist.data.storage.retry import RetryPolicy
from vmcmc_dist.data.storage.transfer import Transfer, Version, too_short
from vmcmc_dist.errors import DataError, ResourceError

PART_BYTES = 8 << 20


class RangeReader:
    """Reads parts of files and objects, from many threads at once.

        reader = RangeReader(RetryPolicy(seconds=cfg.retry_s), stall_s=cfg.stall_s)
        block = reader.read("s3://bucket/set/shard-000000.tar", start=512, length=1 << 19)

    Transient failures are tried again by ``policy``, from the byte they were met at. Each file is
    pinned to the version first seen (ETag, or size and time of change): bytes of two versions are
    never mixed. Nothing is opened before the first read, and a forked process connects anew.

    Raises DataError naming the file for all that retries do not mend, and for a file that ends
    before the bytes asked for; ConfigError for a URL of another scheme or with credentials.
    """

    def __init__(
        self,
        policy: RetryPolicy | None = None,
        *,
        stall_s: float = 15.0,
        on_retry: Callable[[str], None] | None = None,
    ) -> None:
        self._s3 = S3(policy or RetryPolicy(), stall_s)
        if on_retry is not None:
            self._s3.on_retry = on_retry
        self._pins: dict[str, Version] = {}

    @property
    def stats(self) -> Stats:
        """Requests, bytes, retries and seconds waited of S3 reads in this process (and before a
        fork)."""
        now = self._s3.stats
        return Stats(now.requests, now.bytes, now.retries, now.waited_s)

    def read(self, url: str, start: int, length: int) -> bytes:
        """Exactly ``length`` bytes from ``start`` on."""
        return (
            self._read_remote(url, start, start + length)
            if is_remote(url)
            else self._read_local(url, start, length)
        )

    def read_all(self, url: str) -> bytes:
        """The whole of a file, by one request where nothing fails."""
        if is_remote(url):
            return self._read_remote(url, 0, None)
        return b"".join(self.stream(url))

    def stream(self, url: str, start: int = 0) -> Iterator[bytes]:
        """The file from ``start`` on in parts of 8 MiB, the next one under way meanwhile."""
        size = self.size(url)
        ends = [(at, min(size, at + PART_BYTES)) for at in range(start, size, PART_BYTES)]
        if len(ends) < 2 or not is_remote(url):
            for at, end in ends:
                yield self.read(url, at, end - at)
            return
        thread = ThreadPoolExecutor(1, "vmcmc-ahead")
        try:
            ahead = thread.submit(self._read_remote, url, *ends[0])
            for following in ends[1:]:
                now, ahead = ahead, thread.submit(self._read_remote, url, *following)
                yield now.result()
            yield ahead.result()
        finally:
            thread.shutdown(wait=False, cancel_futures=True)

    def copy(self, url: str, path: Path) -> int:
        """Write the whole file to ``path``; returns its bytes.

        ``path`` is written in place: give a name that nobody reads, and rename it afterwards.
        Raises ResourceError where it cannot be written.
        """
        count = 0
        parts = self.stream(url)
        try:
            with open(path, "wb") as file:
                for part in parts:
                    count += file.write(part)
        except OSError as error:
            raise ResourceError(
                f"{path}: cannot be written ({error.strerror}); free some of the disk, or check "
                "who may write there"
            ) from None
        return count

    def version(self, url: str) -> str:
        """What changes when the file does: the pinned ETag, or size and time of change."""
        return self._pin_of(url).etag

    def size(self, url: str) -> int:
        """Bytes of the file, in the pinned version."""
        return self._pin_of(url).size

    def _pin_of(self, url: str) -> Version:
        pinned = self._pins.get(url)
        if pinned is None:
            if is_remote(url):
                pinned = self._pins.setdefault(url, objects.head(self._s3, url))
            else:
                with local_errors(url):
                    pinned = self._pin_local(url, os.stat(Path(url).expanduser()))
        return pinned

    def _read_remote(self, url: str, start: int, end: int | None) -> bytes:
        transfer = Transfer(
            url,
            start,
            end,
            self._pins.get(url),
            lambda seen: self._pins.setdefault(url, seen),
            self._s3.stats,
        )
        return self._s3.insist(url, transfer.attempt, lambda: transfer.position)

    def _read_local(self, path: str, start: int, length: int) -> bytes:
        with local_errors(path):
            handle = os.open(os.path.expanduser(path), os.O_RDONLY | os.O_CLOEXEC)
            try:
                size = self._pin_local(path, os.fstat(handle)).size
                if start + length > size:
                    failure = too_short(size, start + length)
                    raise DataError(f"{path}: {failure.what}; {failure.hint}")
                data = os.pread(handle, length, start)
                while len(data) < length:  # more than 2 GiB, or a network disk
                    more = os.pread(handle, length - len(data), start + len(data))
                    if not more:
                        raise DataError(f"{path}: became shorter while it was read")
                    data += more
                return data
            finally:
                os.close(handle)

    def _pin_local(self, path: str, found: os.stat_result) -> Version:
        seen = Version(f"{found.st_size}-{found.st_mtime_ns}", found.st_size)
        pinned = self._pins.setdefault(path, seen)
        if pinned != seen:
            raise DataError(
                f"{path}: overwritten while it was read; start again to read the new version, and "
                "write changed shards to a new folder, never over those of a run"
            )
        return pinned
