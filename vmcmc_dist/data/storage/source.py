"""Temporary."""

from __future__ import annotations

from vmcmc_dist.data import store
from vmcmc_dist.data.config import DataConfig


class _Local:
    def size(self, url):
        return store.size(url)

    def read(self, url, start, length, *, fresh=False):
        with store.open_file(url) as f, store.store_errors(url):
            f.seek(start)
            return f.read(length)


def open_source_of_bytes(cfg: DataConfig):
    return _Local()
