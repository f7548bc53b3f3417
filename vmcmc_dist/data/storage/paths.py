"""Local paths and s3:// URLs: which is which, and what of them may be used and shown."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vmcmc_dist.data.config import refuse_credentials
from vmcmc_dist.errors import ConfigError, DataError


def is_remote(path: str) -> bool:
    """True for s3:// URLs; raises ConfigError for any other scheme (`pipe:` above all).

    A URL with credentials inside is refused as well, by an error that does not repeat them.
    """
    if path.startswith("s3://"):
        refuse_credentials(path)
        return True
    scheme = path.split(":", 1)[0] if ":" in path else ""
    if scheme == "pipe" or "://" in path:
        shown = f"{scheme}://…" if "@" in path else path
        raise ConfigError(f"{shown}: only local paths and s3://bucket/prefix are read")
    return False


def bucket_and_key(url: str) -> tuple[str, str]:
    """``s3://bucket/a/b`` → (bucket, a/b); access points (arn:…/NAME) are buckets, too."""
    rest = url[5:]
    if rest.startswith("arn:"):
        head, _, rest = rest.partition("/")
        name, _, key = rest.partition("/")
        return f"{head}/{name}", key
    bucket, _, key = rest.partition("/")
    return bucket, key


@contextmanager
def local_errors(path: str) -> Iterator[None]:
    """Turn failures of the local disk into DataError naming ``path``."""
    try:
        yield
    except FileNotFoundError:
        raise DataError(f"{path}: not found; check the path") from None
    except PermissionError:
        raise DataError(f"{path}: permission denied; check who may read it") from None
    except IsADirectoryError:
        raise DataError(f"{path}: a folder, not a file; check the path") from None


def local(path: str) -> Path:
    """The local path with ``~`` resolved."""
    return Path(path).expanduser()
