"""The files of one run on S3: s3://bucket/prefix/NAME holds what a run folder does."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from vmcmc_dist.data.storage import RangeReader, RetryPolicy, objects, small, upload
from vmcmc_dist.data.storage.client import S3
from vmcmc_dist.data.storage.paths import is_remote
from vmcmc_dist.errors import DataError

if TYPE_CHECKING:
    from vmcmc_dist.config import Config


class RunStore:
    """Reads and writes below one prefix, tried again within a budget; safe in several threads.

    Raises, from all methods: DataError that names the object and says what to do.

    Args:
        retry_s: budget of one request that fails, in seconds.
        stall_s: a connection that brings nothing for this long is dropped.
    """

    def __init__(self, url: str, retry_s: float = 120.0, stall_s: float = 15.0):
        self.url = url.rstrip("/")
        self._stall_s = stall_s
        self._s3 = S3(RetryPolicy(seconds=retry_s), stall_s)

    @classmethod
    def of(cls, config: Config) -> RunStore | None:
        """The store of a run with ``out=s3://…``; None for one on a disk."""
        if not is_remote(config.out):
            return None
        url = f"{config.out.rstrip('/')}/{config.name}"
        return cls(url, config.data.retry_s, config.data.stall_s)

    def at(self, name: str) -> str:
        return f"{self.url}/{name}"

    def names(self, below: str = "") -> dict[str, int]:
        """Bytes of each object below a folder, by its name there."""
        url = self.at(below) if below else self.url
        found = objects.find(self._s3, url, missing_ok=True)
        return {name: size for name, (size, _) in found.items()}

    def read(self, name: str) -> bytes | None:
        """A small object, or None if it is not there."""
        found = small.read(self._s3, self.at(name))
        return None if found is None else found.data

    def read_with_age(self, name: str) -> small.Found | None:
        return small.read(self._s3, self.at(name))

    def write(self, name: str, data: bytes) -> None:
        upload.write(self._s3, self.at(name), data)

    def write_new(self, name: str, data: bytes) -> bool:
        """False if there is such an object already."""
        return small.write_new(self._s3, self.at(name), data)

    def upload(self, path: Path, name: str) -> None:
        """A file, whole or not at all; in parts if it is large."""
        upload.upload(self._s3, path, self.at(name))

    def delete(self, name: str) -> None:
        objects.delete(self._s3, self.at(name))

    def abort_uploads(self) -> int:
        """End what killed processes left half uploaded; returns how many there were."""
        return objects.abort_uploads(self._s3, self.url)

    def fetch(self, name: str, path: Path, sha256: str | None = None) -> None:
        """Copy an object to ``path``: whole and, with ``sha256``, checked, or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
        try:
            RangeReader(self._s3.policy, stall_s=self._stall_s).copy(self.at(name), partial)
            if sha256 is not None:
                with partial.open("rb") as file:
                    found = hashlib.file_digest(file, "sha256").hexdigest()
                if found != sha256:
                    raise DataError(
                        f"{self.at(name)}: other bytes than were written (sha256 differs); it is "
                        "damaged in the store"
                    )
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
