"""Files on local disk and on S3 under one set of names, with errors that say what to do."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import fsspec

from vmcmc_dist.errors import ConfigError, DataError

BLOCK_BYTES = 8 << 20


def is_remote(path: str) -> bool:
    """True for s3:// URLs; raises ConfigError for any other scheme (`pipe:` above all)."""
    if path.startswith("s3://"):
        return True
    scheme = path.split(":", 1)[0] if ":" in path else ""
    if scheme == "pipe" or "://" in path:
        raise ConfigError(f"{path}: only local paths and s3://bucket/prefix are read")
    return False


def join(base: str, name: str) -> str:
    """``base/name`` for a local folder or an s3:// prefix."""
    return f"{base.rstrip('/')}/{name}" if is_remote(base) else str(Path(base).expanduser() / name)


def filesystem(path: str) -> tuple[Any, str]:
    """The fsspec filesystem of ``path`` (made anew in every process) and the path inside it."""
    if is_remote(path):
        import s3fs  # noqa: F401  (registers s3:// before url_to_fs; heavy, so only when needed)
    else:
        path = str(Path(path).expanduser())
    return fsspec.core.url_to_fs(path)


@contextmanager
def store_errors(path: str) -> Iterator[None]:
    """Turn storage failures into DataError naming ``path``; credentials never enter the message."""
    if not is_remote(path):
        try:
            yield
        except FileNotFoundError:
            raise DataError(f"{path}: not found; check the path") from None
        except PermissionError:
            raise DataError(f"{path}: permission denied; check who may read it") from None
        return
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        EndpointConnectionError,
        NoCredentialsError,
    )

    bucket = path[5:].split("/", 1)[0]
    try:
        yield
    except FileNotFoundError:
        raise DataError(
            f"{path}: no such bucket or object; check the name of bucket {bucket!r} and the "
            "prefix, and AWS_ENDPOINT_URL if the store is not AWS"
        ) from None
    except PermissionError:
        raise DataError(
            f"{path}: access denied; set AWS_PROFILE or AWS_ACCESS_KEY_ID and "
            f"AWS_SECRET_ACCESS_KEY to an account that may list and read bucket {bucket!r}"
        ) from None
    except NoCredentialsError:
        raise DataError(
            f"{path}: no credentials; set AWS_PROFILE, or AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY"
        ) from None
    except EndpointConnectionError:
        raise DataError(
            f"{path}: the store cannot be reached; check the network and AWS_ENDPOINT_URL"
        ) from None
    except (BotoCoreError, ClientError, TimeoutError, ConnectionError) as error:
        raise DataError(f"{path}: the store failed ({type(error).__name__}); try again") from None
    except OSError as error:
        raise DataError(f"{path}: the store failed ({error.strerror or 'I/O error'})") from None


def open_file(path: str) -> IO[bytes]:
    """Open for reading in binary; raises DataError where it is missing or not permitted."""
    with store_errors(path):
        if not is_remote(path):
            return open(Path(path).expanduser(), "rb")
        fs, inner = filesystem(path)
        return fs.open(inner, "rb", block_size=BLOCK_BYTES, cache_type="readahead")


def open_s3(url: str, mode: str = "rb", bufsize: int = 8192, **_: Any) -> IO[bytes]:
    """WebDataset's opener for s3:// URLs, through s3fs."""
    return open_file(url)


def read_bytes(path: str) -> bytes:
    """The whole of a small file."""
    with open_file(path) as file, store_errors(path):
        return file.read()


def exists(path: str) -> bool:
    """True if the file is there; a missing bucket or a refusal raises DataError."""
    if not is_remote(path):
        return Path(path).expanduser().exists()
    fs, inner = filesystem(path)
    with store_errors(path):
        return bool(fs.isfile(inner))


def list_files(path: str) -> dict[str, tuple[int, str]]:
    """Files below ``path``: relative name → (bytes, version), sorted; version is mtime or ETag.

    Raises DataError if the folder or bucket is missing or not permitted.
    """
    if is_remote(path):
        fs, inner = filesystem(path)
        fs.invalidate_cache()
        with store_errors(path):
            found = fs.find(inner, detail=True)
            if not found and not fs.exists(inner):
                raise FileNotFoundError(path)
        return {
            name[len(inner) :].lstrip("/") or name.rsplit("/", 1)[-1]: (
                int(info["size"]),
                str(info.get("ETag", "")),
            )
            for name, info in sorted(found.items())
        }
    root = Path(path).expanduser()
    if not root.exists():
        raise DataError(f"{path}: no such file or folder; check data.root")
    if root.is_file():
        return {root.name: (root.stat().st_size, str(root.stat().st_mtime_ns))}
    files = {}
    for folder, folders, names in os.walk(root):
        folders.sort()
        for name in sorted(names):
            full = os.path.join(folder, name)
            stat = os.stat(full)
            files[os.path.relpath(full, root)] = (stat.st_size, str(stat.st_mtime_ns))
    return files


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
        fs, inner = filesystem(url)
        try:
            with store_errors(url):
                for name in files:
                    local = partial / name
                    if not local.resolve().is_relative_to(partial.resolve()):
                        raise DataError(f"{url}: object name {name!r} leaves the folder; refused")
                    local.parent.mkdir(parents=True, exist_ok=True)
                    alone = len(files) == 1 and inner.endswith(name)
                    fs.get_file(inner if alone else f"{inner}/{name}", str(local))
            partial.rename(target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    only = list(files)
    return target / only[0] if len(only) == 1 and "/" not in only[0] else target


def upload(local: Path, url: str) -> None:
    """Copy one local file to s3://; raises DataError when refused."""
    fs, inner = filesystem(url)
    with store_errors(url):
        fs.put_file(str(local), inner)


def write_bytes(path: str, data: bytes) -> None:
    """Write a small file, whole or not at all; raises DataError when refused."""
    with store_errors(path):
        if is_remote(path):
            fs, inner = filesystem(path)
            fs.pipe_file(inner, data)
            return
        target = Path(path).expanduser()
        partial = target.with_name(f".{target.name}.{os.getpid()}")
        partial.write_bytes(data)
        partial.replace(target)


def download(url: str, path: Path) -> None:
    """Copy one s3:// object to a new local file; raises DataError when refused."""
    fs, inner = filesystem(url)
    with store_errors(url):
        fs.get_file(inner, str(path))


def size(path: str) -> int:
    """Bytes of one file."""
    if not is_remote(path):
        with store_errors(path):
            return Path(path).expanduser().stat().st_size
    fs, inner = filesystem(path)
    with store_errors(path):
        return int(fs.info(inner)["size"])
