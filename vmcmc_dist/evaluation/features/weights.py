"""Published weights: found by path or in the cache, or downloaded once; never opened unchecked."""

from __future__ import annotations

import hashlib
import os
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vmcmc_dist.data.config import cache_dir
from vmcmc_dist.errors import CheckpointError, ConfigError, ResourceError

TIMEOUT = 60.0  # seconds without an answer


@dataclass(frozen=True)
class Published:
    """A file of weights as its author published it."""

    file: str
    url: str
    sha256: str

    @property
    def cached(self) -> Path:
        """Where it is kept: ``weights/`` of the cache."""
        return cache_dir() / "weights" / self.file


def fetch(published: Published, path: Path | None = None) -> Path:
    """The checked file: ``path``, else the cache's, else downloaded into the cache.

    Raises:
        CheckpointError: the file is another one (sha256 differs).
        ConfigError: ``path`` is missing. ResourceError: it cannot be downloaded or stored.
    """
    if path is not None:
        if not path.is_file():
            raise ConfigError(f"{path}: no such file of weights; {published.file} was expected")
        return _checked(path, published)
    if not published.cached.is_file():
        _download(published)
    return _checked(published.cached, published)


def load_state(path: Path) -> dict[str, Any]:
    """Tensors by name from a file that ``fetch`` has checked; nothing else is unpickled."""
    return torch.load(path, map_location="cpu", weights_only=True)


def _checked(path: Path, published: Published) -> Path:
    found = _sha256(path)
    if found != published.sha256:
        raise CheckpointError(
            f"{path} is not {published.file}: sha256 {found[:12]}…, expected "
            f"{published.sha256[:12]}…; delete it, or get it from {published.url}"
        )
    return path


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download(published: Published) -> None:
    target = published.cached
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    how = f"download {published.url} elsewhere and put it at {target}, or name its path"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with (
            urllib.request.urlopen(published.url, timeout=TIMEOUT) as answer,
            partial.open("wb") as file,
        ):
            while block := answer.read(1 << 20):
                file.write(block)
        _checked(partial, published)
        partial.replace(target)
    except CheckpointError as error:
        raise CheckpointError(
            f"{published.url} gave something else than {published.file} (sha256 differs): {how}"
        ) from error
    except (urllib.error.URLError, OSError) as error:
        reason = getattr(error, "reason", None) or error
        raise ResourceError(
            f"weights {published.file} are not in the cache and cannot be downloaded ({reason}): "
            f"{how}"
        ) from None
    finally:
        if partial.exists():
            partial.unlink()
