"""Files on local disk and on S3 under one set of names, with errors that say what to do."""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import fsspec

from vmcmc_dist.data.storage import objects
from vmcmc_dist.data.storage import upload as put
from vmcmc_dist.data.storage.client import S3, s3_filesystem
from vmcmc_dist.data.storage.paths import is_remote, local_errors
from vmcmc_dist.data.storage.ranges import RangeReader
from vmcmc_dist.data.storage.remote_file import open_remote
from vmcmc_dist.data.storage.retry import RetryPolicy
from vmcmc_dist.errors import DataError

__all__ = [
    "configure",
    "delete",
    "exists",
    "fetch",
    "filesystem",
    "is_remote",
    "join",
    "list_files",
    "listing_fingerprint",
    "open_file",
    "open_s3",
    "read_bytes",
    "reader",
    "store_errors",
    "upload",
    "write_bytes",
]

_settings = {"s3": S3()}


def _s3() -> S3:
    return _settings["s3"]


def join(base: str, name: str) -> str:
    """``base/name`` for a local folder or an s3:// prefix."""
    return f"{base.rstrip('/')}/{name}" if is_remote(base) else str(Path(base).expanduser() / name)


def configure(policy: RetryPolicy, stall_s: float) -> None:
    """How the functions of this file treat a store that fails, from now on in this process."""
    _settings["s3"] = S3(policy, stall_s)


def filesystem(path: str) -> tuple[Any, str]:
    """The fsspec filesystem of ``path`` (made anew in every process) and the path inside it."""
    if is_remote(path):
        return s3_filesystem(), path[5:]
    return fsspec.core.url_to_fs(str(Path(path).expanduser()))


@contextmanager
def store_errors(path: str) -> Iterator[None]:
    """Turn failures of the local disk into DataError naming ``path``.

    Reads from s3:// raise DataError by themselves.
    """
    with local_errors(path):
        yield


def reader() -> RangeReader:
    """A reader that pins versions from now on, with the settings of this process."""
    s3 = _s3()
    return RangeReader(s3.policy, stall_s=s3.stall_s, on_retry=s3.on_retry)


def open_file(path: str) -> IO[bytes]:
    """Open for reading in binary; raises DataError where it is missing or not permitted."""
    if is_remote(path):
        return open_remote(reader(), path)
    with local_errors(path):
        return open(Path(path).expanduser(), "rb")


def open_s3(url: str, mode: str = "rb", bufsize: int = 8192, **_: Any) -> IO[bytes]:
    """WebDataset's opener for s3:// URLs."""
    return open_file(url)


def read_bytes(path: str) -> bytes:
    """The whole of a small file."""
    if is_remote(path):
        return reader().read_all(path)
    with local_errors(path):
        return Path(path).expanduser().read_bytes()


def write_bytes(url: str, data: bytes) -> str:
    """Write a file: whole, or not at all. Returns the ETag of s3:// objects, else ""."""
    if is_remote(url):
        return put.write(_s3(), url, data)
    path = Path(url).expanduser()
    partial = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    with local_errors(url):
        try:
            partial.write_bytes(data)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    return ""


def delete(path: str) -> None:
    """Delete one file, or find it gone; raises DataError when refused."""
    if is_remote(path):
        objects.delete(_s3(), path)
        return
    with local_errors(path):
        Path(path).expanduser().unlink(missing_ok=True)


def exists(path: str) -> bool:
    """True if the file is there; a missing bucket or a refusal raises DataError."""
    if is_remote(path):
        return objects.exists(_s3(), path)
    return Path(path).expanduser().exists()


def list_files(path: str, *, missing_ok: bool = False) -> dict[str, tuple[int, str]]:
    """Files below ``path``: relative name → (bytes, version), sorted; version is mtime or ETag.

    Raises DataError if the folder or bucket is missing or not permitted; a folder or prefix that
    is not there is empty with ``missing_ok``.
    """
    if is_remote(path):
        return objects.find(_s3(), path, missing_ok=missing_ok)
    root = Path(path).expanduser()
    if missing_ok and not root.exists():
        return {}
    if not root.exists():
        raise DataError(f"{path}: no such file or folder; check data.root")
    if root.is_file():
        return {root.name: (root.stat().st_size, str(root.stat().st_mtime_ns))}
    files = {}
    for folder, folders, names in os.walk(root, onerror=_unreadable):
        folders.sort()
        for name in sorted(names):
            full = os.path.join(folder, name)
            with local_errors(full):
                stat = os.stat(full)
            files[os.path.relpath(full, root)] = (stat.st_size, str(stat.st_mtime_ns))
    return files


def _unreadable(error: OSError) -> None:
    """A folder that is passed over would be lost without a word."""
    raise DataError(f"{error.filename}: {error.strerror}; check who may read it")


def listing_fingerprint(files: dict[str, tuple[int, str]]) -> str:
    """sha256 over names, sizes and versions: changes when any raw file does."""
    lines = "\n".join(f"{name}\t{size}\t{version}" for name, (size, version) in files.items())
    return hashlib.sha256(lines.encode()).hexdigest()


def fetch(url: str, folder: Path) -> Path:
    """A local copy of an s3:// file or folder below ``folder``; copied once per version."""
    files = list_files(url)
    if not files:
        raise DataError(f"{url}: nothing there; check the prefix")
    target = folder / listing_fingerprint(files)[:16]
    if not target.exists():
        partial = target.with_name(f".{target.name}.{os.getpid()}")
        reads = reader()
        alone = list(files) == [url.rsplit("/", 1)[-1]] and exists(url)
        try:
            for name, (_, listed) in files.items():
                local = partial / name
                if not local.resolve().is_relative_to(partial.resolve()):
                    raise DataError(f"{url}: object name {name!r} leaves the folder; refused")
                local.parent.mkdir(parents=True, exist_ok=True)
                source = url if alone else join(url, name)
                reads.copy(source, local)
                if listed.strip('"') != reads.version(source).strip('"'):
                    raise DataError(f"{source}: changed while {url} was copied; start again")
            partial.rename(target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    only = list(files)
    return target / only[0] if len(only) == 1 and "/" not in only[0] else target


def upload(local: Path, url: str) -> str:
    """Copy one local file to s3://, whole or not at all; returns its ETag.

    Raises DataError when refused, or after the budget.
    """
    is_remote(url)
    return put.upload(_s3(), local, url)
