"""From a config to data: prepared if need be, opened as the right kind of stream."""

from __future__ import annotations

from dataclasses import replace

from vmcmc_dist.data import store
from vmcmc_dist.data.config import DataConfig
from vmcmc_dist.data.densities import DensityStream, density
from vmcmc_dist.data.manifest import NAME, Manifest, holds_shards, open_manifest
from vmcmc_dist.data.prepare import Progress, prepare
from vmcmc_dist.data.stream import ShardStream
from vmcmc_dist.errors import ConfigError, DataError


def ensure_prepared(cfg: DataConfig, progress: Progress | None = None) -> Manifest:
    """The manifest of ``cfg``'s data: found, or prepared first.

    ``toy2d`` needs no shards: its manifest has none and shape (2,). Raises DataError for data that
    is missing or of another shape than the config asks for, ConfigError if it does not say where.
    """
    if cfg.source == "toy2d":
        return Manifest(
            source=f"toy2d:{cfg.density}",
            shape=(2,),
            dtype="float32",
            shards=(),
            licence="drawn from a formula",
        )
    return _checked(_ready(cfg) or prepare(cfg, progress), cfg)


def _ready(cfg: DataConfig) -> Manifest | None:
    """Shards that are used as they are: given as such, or found without any raw data."""
    if cfg.source == "shards":
        path = cfg.root or cfg.shards
        if not path:
            raise ConfigError("data.source=shards needs data.root: the folder of shards")
        return open_manifest(path)
    if cfg.root and cfg.source != "webdataset" and holds_shards(cfg.root):
        return open_manifest(cfg.root)
    if not cfg.root and cfg.source != "faces" and cfg.shards:
        if store.exists(store.join(cfg.shards, NAME)):
            return open_manifest(cfg.shards)
    return None


def _checked(manifest: Manifest, cfg: DataConfig) -> Manifest:
    """Refuse shards of other channels or another number than the config names, and smaller ones;
    images of larger ones are made smaller as they are read.
    """
    if cfg.limit is not None and manifest.num_samples > cfg.limit:
        raise ConfigError(
            f"data.limit={cfg.limit} counts when shards are written, and {manifest.base} holds "
            f"{manifest.num_samples} samples already; drop data.limit, or prepare it again"
        )
    if len(manifest.shape) == 3:
        channels, height, width = manifest.shape
        size = cfg.image_size
        if cfg.channels not in (None, channels):
            raise DataError(
                f"{manifest.base}: its images have channels {channels}, the config says "
                f"data.channels={cfg.channels}; change it, or prepare the data again"
            )
        if size is not None and (height, width) != (size, size):
            if min(height, width) < size or manifest.source_shape is not None:
                raise DataError(
                    f"{manifest.base}: its images have image_size {width}"
                    f"{'' if width == height else f'x{height}'}, the config says "
                    f"data.image_size={size}; change it, or prepare the data again"
                )
            manifest = replace(manifest, shape=(channels, size, size), stored_shape=manifest.shape)
    inputs = manifest.source_shape[0] if manifest.source_shape else None
    if cfg.source == "pairs" and inputs is None:
        raise DataError(f"{manifest.base}: its samples are no pairs; prepare the data again")
    if cfg.input_channels is not None and cfg.input_channels != inputs:
        raise DataError(
            f"{manifest.base}: its input images have {inputs} channels, the config says "
            f"data.input_channels={cfg.input_channels}; change it, or prepare the data again"
        )
    return manifest


def open_stream(
    cfg: DataConfig,
    *,
    seed: int,
    rank: int = 0,
    world_size: int = 1,
    local_batch: int,
    images: int = 0,
    manifest: Manifest | None = None,
) -> ShardStream | DensityStream:
    """The training stream of ``cfg``: x uint8 [B, C, H, W], or float32 [B, D] for vectors.

    Give ``manifest``, as ensure_prepared returned it, where the raw data may not be at hand: on
    the workers of other machines.
    """
    if cfg.source == "toy2d":
        return DensityStream(
            density(cfg.density),
            seed=seed,
            rank=rank,
            world_size=world_size,
            local_batch=local_batch,
            images=images,
        )
    return ShardStream(
        manifest or ensure_prepared(cfg),
        cfg,
        seed=seed,
        rank=rank,
        world_size=world_size,
        local_batch=local_batch,
        images=images,
    )
