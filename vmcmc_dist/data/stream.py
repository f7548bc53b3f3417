"""Training batches from prepared shards: every sample once, in a known order, resumable."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType

import numpy as np
import torch

from vmcmc_dist.data.blocks import Blocks
from vmcmc_dist.data.config import DataConfig
from vmcmc_dist.data.ledger import Ledger
from vmcmc_dist.data.manifest import Manifest
from vmcmc_dist.data.order import EpochOrder, Reach, coin_flips
from vmcmc_dist.data.prefetch import Prefetcher
from vmcmc_dist.data.rows import Decoded, Rows
from vmcmc_dist.data.storage.source import Source
from vmcmc_dist.errors import ConfigError, DataError

PLANNED = 32  # batches at the most whose samples are looked up at once
AT_ONCE = 4 << 20  # decoded bytes; so many small batches are decoded together


@dataclass(frozen=True)
class Batch:
    """One rank's share of a global batch.

    x      uint8 [B, C, H, W] images (channels last in memory) or float32 [B, D] vectors
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

    A bad sample (its image or label cannot be read) is named in the log, counted in ``ledger``
    and replaced by the next good one of its window, so that batches keep their size.

    Raises DataError, from the iterator, for torn, missing or wrong shards, and for more bad
    samples than ``cfg.max_bad`` allows.
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
        self.source = source_of(cfg)
        batches = _Batches(manifest, cfg, self.source, seed, rank, world_size, local_batch, images)
        self.ledger, self._blocks = batches.ledger, batches.rows.blocks
        self._plan, self._share = batches.plan, batches.share
        self._batches = Prefetcher(iter(batches), cfg.prefetch if cfg.workers else 0)
        self._finalizer = weakref.finalize(self, _stop, self._batches, batches.rows)

    def __iter__(self) -> ShardStream:
        return self

    def __next__(self) -> Batch:
        batch = next(self._batches)
        self.images += self.batch_size
        return batch

    def first_plan(self) -> tuple[np.ndarray, list[int]]:
        """Rows int64 [B] of the first batch, and the blocks to hold for it, in the order of need.

        Reads nothing. Only before the first batch is asked for.
        """
        return self._plan(self.images + self._share, ahead=False)

    def counts(self) -> dict[str, int]:
        """Of this reader since its start: ``data_bad`` (distinct samples), and, of the store,
        ``data_requests``, ``data_retries``, ``data_bytes``; of the block cache, if there is one,
        ``cache_hits``, ``cache_misses``, ``cache_damaged``.
        """
        stats, cache = self.source.stats, self.source.cache_counts
        counts = {
            "data_bad": len(self.ledger.bad),
            "data_requests": stats.requests,
            "data_retries": stats.retries,
            "data_bytes": stats.bytes,
        }
        if cache is not None:
            counts |= {
                "cache_hits": cache.hits,
                "cache_misses": cache.misses,
                "cache_damaged": cache.damaged,
            }
        return counts

    def held_bytes(self) -> int:
        """Bytes of encoded blocks in memory, those under way included."""
        return self._blocks.held_bytes()

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


def source_of(cfg: DataConfig) -> Source:
    """Where the bytes of a config's shards come from."""
    return Source(
        retry_s=cfg.retry_s,
        stall_s=cfg.stall_s,
        cache_folder=cfg.block_cache,
        cache_bytes=int(cfg.block_cache_gb * 2**30),
    )


def memory_bound(manifest: Manifest, cfg: DataConfig, world_size: int) -> int:
    """Bytes of encoded blocks that one reader holds at the most: the windows in use of its
    streams, and the next window of each.
    """
    blocks = manifest.blocks
    if not len(blocks):
        return 0
    streams = min(cfg.streams, len(blocks)) if cfg.shuffle else 1
    own = -(-streams // world_size) if streams % world_size == 0 else streams
    window = cfg.shuffle_blocks if cfg.shuffle else 1
    return min(2 * window * own, len(blocks)) * int(blocks["bytes"].max())


def _warn_shared(manifest: Manifest, cfg: DataConfig, rank: int, world_size: int) -> None:
    streams = min(cfg.streams, len(manifest.blocks)) if cfg.shuffle else 1
    if rank != 0 or world_size == 1 or streams % world_size == 0:
        return
    if len(manifest.blocks) < world_size:
        warnings.warn(
            f"{manifest.base}: {len(manifest.blocks)} blocks for {world_size} readers: the order "
            "stays right, but every reader reads every block",
            stacklevel=3,
        )
    else:
        warnings.warn(
            f"data.streams={streams} is not a multiple of {world_size} readers: the order stays "
            f"right, but blocks are read by several readers; set data.streams={world_size} or a "
            "multiple (this changes the order)",
            stacklevel=3,
        )


class _Batches:
    """The iterator behind ShardStream, free of it so that a dropped stream can be collected."""

    def __init__(
        self,
        manifest: Manifest,
        cfg: DataConfig,
        source: Source,
        seed: int,
        rank: int,
        world_size: int,
        local_batch: int,
        images: int,
    ) -> None:
        self.manifest, self.cfg, self.seed = manifest, cfg, seed
        self.rank, self.world_size, self.local_batch = rank, world_size, local_batch
        self.images = images
        self.share = np.arange(local_batch, dtype=np.int64) * world_size + rank
        fits = manifest.num_samples * manifest.sample_bytes <= cfg.cache_mb << 20
        blocks = Blocks(
            manifest, source, readers=cfg.readers if cfg.workers else 0, verify=cfg.verify
        )
        self.rows = Rows(
            manifest, blocks, workers=cfg.workers, resident=fits, max_pixels=cfg.max_pixels
        )
        self.ledger = Ledger(
            manifest.num_samples,
            rank=rank,
            world_size=world_size,
            images=images,
            max_bad=cfg.max_bad,
        )
        self._streams = min(cfg.streams, len(manifest.blocks)) if cfg.shuffle else 1
        self._mean_block = manifest.num_samples / max(1, len(manifest.blocks))
        self._orders: dict[int, EpochOrder] = {}
        self._in_use: dict[int, list[int]] = {}

    def order(self, epoch: int) -> EpochOrder:
        """The order of one epoch; the last two are kept."""
        if epoch not in self._orders:
            self._orders[epoch] = EpochOrder(
                self.manifest.blocks["count"],
                seed=self.seed,
                epoch=epoch,
                streams=self.cfg.streams,
                shuffle_blocks=self.cfg.shuffle_blocks,
                shuffle=self.cfg.shuffle,
            )
            for old in [e for e in self._orders if e < epoch - 1]:
                del self._orders[old]
        return self._orders[epoch]

    def __iter__(self) -> Iterator[Batch]:
        first = self.images
        step = self.local_batch * self.world_size
        most = self._decoded_together()
        together, ahead = 1, False  # the first batch is waited for: nothing else is fetched yet
        while True:
            starts = first + step * np.arange(together, dtype=np.int64)
            index = (starts[:, None] + self.share).reshape(-1)
            rows, wanted = self.plan(index, ahead=ahead)
            self.rows.request(wanted)
            for k in range(0, together, most):
                part = slice(k * self.local_batch, (k + most) * self.local_batch)
                yield from self._batches_of(index[part], rows[part])
            first += step * together
            together, ahead = self._batches_together(), bool(self.cfg.workers)

    def _batches_together(self) -> int:
        """How many batches to plan at once: up to a quarter of what the windows hold."""
        held = self._streams * self.cfg.shuffle_blocks * self._mean_block
        return int(np.clip(held / 4 / (self.local_batch * self.world_size), 1, PLANNED))

    def _decoded_together(self) -> int:
        """How many batches to decode at once, since each costs some steps however small it is: no
        more than are made ahead anyway.
        """
        if not self.cfg.workers:
            return 1
        size = self.local_batch * self.manifest.sample_bytes
        return int(np.clip(AT_ONCE // size, 1, self.cfg.prefetch))

    def _batches_of(self, index: np.ndarray, row: np.ndarray) -> Iterator[Batch]:
        """One or several batches."""
        made, bad = self.rows.fetch(row)
        self.ledger.give(index, row)
        for place, why in sorted(bad.items()):
            self.ledger.note_bad(int(index[place]), int(row[place]), why)
            row[place] = self._stand_in(int(index[place]), made, place)
        if self.cfg.flip and len(self.manifest.shape) == 3:
            self._flip(index, made)
        for start in range(0, len(index), self.local_batch):
            part = slice(start, start + self.local_batch)
            yield batch_of(made.take(part), index[part], row[part])

    def plan(self, index: np.ndarray, *, ahead: bool) -> tuple[np.ndarray, list[int]]:
        """Global indices → rows, and the blocks to hold, in the order of need.

        Of each stream: the windows that the batch touches, and, to read ``ahead``, those that
        follow and those that the next ``prefetch`` batches touch.
        """
        epoch, position = np.divmod(index, self.manifest.num_samples)
        rows = np.empty_like(index)
        now: dict[int, list[int]] = {}
        soon: dict[int, list[int]] = {}
        for e in range(int(epoch[0]), int(epoch[-1]) + 1):
            order = self.order(e)
            rows[epoch == e], touched = order.rows(position[epoch == e])
            for reach in touched:
                touches = now.setdefault(reach.stream, [])
                touches += order.blocks(reach.stream, reach.first, reach.last + 1).tolist()
                soon[reach.stream] = self._ahead(e, reach) if ahead else []
        for stream, blocks in now.items():
            self._in_use[stream] = blocks + soon[stream]
        return rows, [b for blocks in now.values() for b in blocks] + self._held()

    def _ahead(self, epoch: int, reach: Reach) -> list[int]:
        """The blocks of a stream that will be needed soon, in this epoch and the next: those of the
        next window, which so has the time of a whole one to come, and of the batches made ahead.
        """
        order, stream = self.order(epoch), reach.stream
        lead = -(-self.cfg.prefetch * self.local_batch * self.world_size // order.streams)
        end = order.windows(stream)
        stop = max(order.window_of(stream, reach.place + lead) + 1, reach.last + 2)
        blocks = order.blocks(stream, reach.last + 1, stop).tolist()
        if stop > end:
            following = self.order(epoch + 1)
            beyond = max(0, lead - order.left_after(stream, reach.place) - 1)
            stop = min(following.window_of(stream, beyond) + 1, following.windows(stream))
            blocks += following.blocks(stream, 0, stop).tolist()
        return blocks

    def _held(self) -> list[int]:
        return [b for blocks in self._in_use.values() for b in blocks]

    def _stand_in(self, index: int, made: Decoded, place: int) -> int:
        """Fill the place of a bad sample with the next good one of its window; returns its row."""
        epoch, position = divmod(index, self.manifest.num_samples)
        order = self.order(epoch)
        stream, window, offset = order.place(position)
        rows = order.window_rows(stream, window)
        self.rows.request(order.blocks(stream, window).tolist() + self._held())
        for step in range(1, len(rows)):
            row = rows[(offset + step) % len(rows)]
            one, bad = self.rows.fetch(np.array([row]))
            if not bad:
                made.put(np.array([place]), one)
                return int(row)
        raise DataError(
            f"none of the {len(rows)} samples of one window is good; see what `vmcmc data verify "
            f"{self.manifest.base}` says"
        )

    def _flip(self, index: np.ndarray, made: Decoded) -> None:
        coins = np.flatnonzero(coin_flips(self.seed, index))
        for values in (made.x, made.source):
            if values is not None:
                values[coins] = values[coins, :, ::-1]


def batch_of(made: Decoded, index: np.ndarray, row: np.ndarray) -> Batch:
    """Decoded samples as a batch over the same memory."""
    return Batch(
        _channels_first(made.x),
        None if made.y is None else torch.from_numpy(made.y),
        torch.from_numpy(index),
        torch.from_numpy(row),
        None if made.source is None else _channels_first(made.source),
    )


def _channels_first(values: np.ndarray) -> torch.Tensor:
    """[B, H, W, C] → [B, C, H, W] over the same memory; vectors pass."""
    tensor = torch.from_numpy(values)
    return tensor.permute(0, 3, 1, 2) if tensor.ndim == 4 else tensor
