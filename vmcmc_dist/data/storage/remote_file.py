"""An object on S3 as a file to read from front to back, or here and there."""

from __future__ import annotations

import io
from typing import IO, Any, cast

from vmcmc_dist.data.storage.ranges import RangeReader

READ_AHEAD = 8 << 20


class RemoteFile(io.RawIOBase):
    """One object of a RangeReader as a raw, seekable file; each read is one ranged read.

    Raises DataError where the object is missing, not permitted, or fails beyond the budget.
    """

    def __init__(self, reader: RangeReader, url: str) -> None:
        self._reader, self._url, self._at = reader, url, 0
        self._size = reader.size(url)

    @property
    def name(self) -> str:
        return self._url

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        count = max(0, min(len(view), self._size - self._at))
        if count:
            view[:count] = self._reader.read(self._url, self._at, count)
            self._at += count
        return count


def open_remote(reader: RangeReader, url: str) -> IO[bytes]:
    """Open an s3:// object for reading, with a buffer of 8 MiB (or of its size) ahead."""
    file = RemoteFile(reader, url)
    return cast(IO[bytes], io.BufferedReader(file, min(READ_AHEAD, max(1, file._size))))
