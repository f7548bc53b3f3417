"""Training batches from prepared shards: every sample once, in a known order, resumable."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType

import numpy as np
import torch

from vmcmc_dist.data.config import DataConfig
from vmcmc_dist.data.manifest import Manifest
from vmcmc_dist.data.order import EpochOrder, coin_flips
from vmcmc_dist.data.prefetch import Prefetcher
from vmcmc_dist.data.rows import Rows
from vmcmc_dist.errors import ConfigError


@dataclass(frozen=True)
class Batch:
    """One rank's share of a global batch.

    x      uint8 [B, C, H, W] images or float32 [B, D] vectors
    y      int64 [B] classes, int64 [B, A] attributes (0/1), or None
    index  int64 [B] global sample index p, counted over epochs: epoch p // N, position p % N
    row    int64 [B] the sample's number in the data set, in the manifest's order
    source uint8 [B, C', H, W] the input images of pairs, mirrored together with x; else None
    """

    x: torch.Tensor
    y: torch.Tensor | None
    index: torch.Tensor
    row: torch.Tensor
    source: torch.Tensor | None = None


class ShardStream:
    """Endless batches of a prepared data set.

    Global batch k holds the samples p in [images + k·B, images + (k+1)·B), B = local_batch ·
    world_size; this rank takes every world_size-th of them, starting with its own number. Epochs
    follow each other without a seam, so nothing is dropped and every rank takes the same steps.
    The order is that of :class:`EpochOrder`: a function of (seed, epoch) alone.

        with ShardStream(manifest, cfg, seed=0, local_batch=64, images=checkpointed) as stream:
            for batch in stream: ...
            checkpointed = stream.images

    Raises DataError, from the iterator, for torn, missing or wrong shards.
    """

    def __init__(
        self,
        manifest: Manifest,
        cfg: DataConfig,
        *,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        local_batch: int,
        images: int = 0,
    ) -> None:
        if not 0 <= rank < world_size:
            raise ConfigError(f"rank {rank} is not in [0, {world_size})")
        if local_batch < 1 or images < 0:
            raise ConfigError("local_batch must be ≥ 1 and images ≥ 0")
        _warn_shared(manifest, cfg, rank, world_size)
        self.manifest = manifest
        self.batch_size = local_batch * world_size
        self.images = images
        batches = _Batches(manifest, cfg, seed, rank, world_size, local_batch, images)
        self._batches = Prefetcher(iter(batches), cfg.prefetch if cfg.workers else 0)
        self._finalizer = weakref.finalize(self, _stop, self._batches, batches.rows)

    def __iter__(self) -> ShardStream:
        return self

    def __next__(self) -> Batch:
        batch = next(self._batches)
        self.images += self.batch_size
        return batch

    def close(self) -> None:
        """Stop all threads. Safe to call twice."""
        self._finalizer()

    def __enter__(self) -> ShardStream:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _stop(batches: Prefetcher[Batch], rows: Rows) -> None:
    batches.close()
    rows.close()


def _warn_shared(manifest: Manifest, cfg: DataConfig, rank: int, world_size: int) -> None:
    streams = min(cfg.streams, len(manifest.shards)) if cfg.shuffle else 1
    if rank != 0 or world_size == 1 or streams % world_size == 0:
        return
    if len(manifest.shards) < world_size:
        samples = max(1, manifest.num_samples // (4 * world_size))
        warnings.warn(
            f"{manifest.base}: {len(manifest.shards)} shards for {world_size} readers: the order "
            "stays right, but every reader reads every shard; prepare the data again with "
            f"data.shard_samples={samples}",
            stacklevel=3,
        )
    else:
        warnings.warn(
            f"data.streams={streams} is not a multiple of {world_size} readers: the order stays "
            f"right, but shards are read by several readers; set data.streams={world_size} or a "
            "multiple (this changes the order)",
            stacklevel=3,
        )


class _Batches:
    """The iterator behind ShardStream, free of it so that a dropped stream can be collected."""

    def __init__(
        self,
        manifest: Manifest,
        cfg: DataConfig,
        seed: int,
        rank: int,
        world_size: int,
        local_batch: int,
        images: int,
    ) -> None:
        self.manifest, self.cfg, self.seed = manifest, cfg, seed
        self.rank, self.world_size, self.local_batch = rank, world_size, local_batch
        self.images = images
        fits = manifest.num_samples * manifest.sample_bytes <= cfg.cache_mb << 20
        self.rows = Rows(manifest, workers=cfg.workers, verify=cfg.verify, resident=fits)
        self._orders: dict[int, EpochOrder] = {}
        self._in_use: dict[int, set[int]] = {}

    def order(self, epoch: int) -> EpochOrder:
        """The order of one epoch; the last two are kept."""
        if epoch not in self._orders:
            self._orders[epoch] = EpochOrder(
                self.manifest.counts,
                seed=self.seed,
                epoch=epoch,
                streams=self.cfg.streams,
                shuffle_shards=self.cfg.shuffle_shards,
                shuffle=self.cfg.shuffle,
            )
            for old in [e for e in self._orders if e < epoch - 1]:
                del self._orders[old]
        return self._orders[epoch]

    def __iter__(self) -> Iterator[Batch]:
        first = self.images
        share = np.arange(self.local_batch, dtype=np.int64) * self.world_size + self.rank
        while True:
            index = first + share
            row, keep = self.plan(index)
            self.rows.request(keep)
            x, y, source = self.rows.fetch(row)
            if self.cfg.flip and x.ndim == 4:
                coins = coin_flips(self.seed, index)[:, None, None, None]
                x = np.where(coins, x[..., ::-1], x)
                source = None if source is None else np.where(coins, source[..., ::-1], source)
            yield Batch(
                torch.from_numpy(x),
                None if y is None else torch.from_numpy(y),
                torch.from_numpy(index),
                torch.from_numpy(row),
                None if source is None else torch.from_numpy(source),
            )
            first += self.local_batch * self.world_size

    def plan(self, index: np.ndarray) -> tuple[np.ndarray, set[int]]:
        """Global indices → rows, and the shards to hold: each stream's group, soon the next too."""
        epoch, position = np.divmod(index, self.manifest.num_samples)
        rows = np.empty_like(index)
        fresh: dict[int, set[int]] = {}
        for e in np.unique(epoch):
            order = self.order(int(e))
            rows[epoch == e], touched = order.rows(position[epoch == e])
            for stream, group, past_half in touched:
                held = fresh.setdefault(stream, set())
                held.update(int(s) for s in order.groups[stream][group])
                if past_half:
                    held.update(self._next_group(int(e), stream, group))
        self._in_use.update(fresh)
        return rows, set().union(*self._in_use.values())

    def _next_group(self, epoch: int, stream: int, group: int) -> list[int]:
        order = self.order(epoch)
        if group + 1 < len(order.groups[stream]):
            return [int(s) for s in order.groups[stream][group + 1]]
        return [int(s) for s in self.order(epoch + 1).groups[stream][0]]
