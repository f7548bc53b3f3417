"""Raw data as a source that every process can open: local, fetched from s3://, or rendered."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from vmcmc_dist.data import celeba_layout, store
from vmcmc_dist.data.config import DataConfig, cache_dir
from vmcmc_dist.data.file_lock import locked
from vmcmc_dist.data.sources import BY_NAME, OPENERS, Source
from vmcmc_dist.data.sources.celeba import CelebA
from vmcmc_dist.data.storage import RetryPolicy
from vmcmc_dist.data.unfinished import errors_of_writing
from vmcmc_dist.errors import ConfigError

Progress = Callable[[str, int, int], None]


class RawData:
    """A source with the config that opens it.

    Sent to another process, it takes the opened source along where the files are seen from there
    under the same path; else (s3://, built-in faces, the Hugging Face hub) it is opened anew from
    that machine's own cache.
    """

    def __init__(self, cfg: DataConfig, source: Source | None = None) -> None:
        self.cfg, self._source = cfg, source

    @property
    def source(self) -> Source:
        """The source, opened when it is first asked for."""
        if self._source is None:
            self._source = open_source(self.cfg)
        return self._source

    def __getstate__(self) -> dict[str, Any]:
        anew = self.cfg.source in BY_NAME or store.is_remote(self.cfg.root or "")
        return {"cfg": self.cfg, "_source": None if anew else self._source}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        configure_store(self.cfg)


def open_source(cfg: DataConfig, progress: Progress | None = None) -> Source:
    """The raw data of ``cfg``; an s3:// root is first copied to the cache, faces are rendered.

    Raises DataError for data that is missing or in another layout, ConfigError if the config does
    not say where it is.
    """
    if cfg.source not in OPENERS:
        raise ConfigError(f"data.source={cfg.source} has no raw data to prepare")
    if cfg.source == "faces":
        with _cache_lock("faces"):
            root = celeba_layout.builtin_faces(
                cfg.faces, cfg.image_size or CelebA.image_size, processes(cfg), progress
            )
        return OPENERS["faces"](cfg, root)
    given = root_of(cfg)
    if not store.is_remote(given):
        return OPENERS[cfg.source](cfg, Path(given).expanduser())
    with _cache_lock("raw"):
        root = store.fetch(given, cache_dir() / "raw")
    return OPENERS[cfg.source](cfg, root)


def configure_store(cfg: DataConfig) -> None:
    """Treat a store that fails as ``cfg`` says, from now on in this process."""
    store.configure(RetryPolicy(seconds=cfg.retry_s), cfg.stall_s)


def root_of(cfg: DataConfig) -> str:
    """``cfg.root``; raises ConfigError where it is needed and empty."""
    if not cfg.root:
        raise ConfigError(f"data.source={cfg.source} needs data.root: where its files are")
    return cfg.root


def processes(cfg: DataConfig) -> int:
    """Worker processes for preparation."""
    return cfg.prepare_workers or len(os.sched_getaffinity(0))


def _cache_lock(name: str) -> AbstractContextManager[None]:
    """One process of a machine at a time fills the cache; the others then find it filled."""
    with errors_of_writing(str(cache_dir())):
        cache_dir().mkdir(parents=True, exist_ok=True)
    return locked(cache_dir() / f".{name}.lock", wait=True, what="the cache is being filled")
