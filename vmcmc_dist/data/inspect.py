"""A look at a data set: counts, shapes, labels, and a picture of samples."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from vmcmc_dist.data.config import DataConfig
from vmcmc_dist.data.manifest import Manifest
from vmcmc_dist.data.stream import ShardStream
from vmcmc_dist.errors import DataError

MARGIN = 2
BATCH_BYTES = 8 << 20
"""Decoded samples held at once, a few times over."""


@dataclass(frozen=True)
class Inspection:
    """What ``inspect`` found. ``histogram``: samples per class, or with each attribute; ``small``:
    raw images that were enlarged; ``bad``: raw images that did not decode.
    """

    source: str
    licence: str
    split: str
    num_samples: int
    shape: tuple[int, ...]
    dtype: str
    shards: int
    blocks: int
    bytes: int
    bad: int
    small: int
    histogram: dict[str, int]
    mean: float
    std: float
    source_shape: tuple[int, ...] | None = None


def inspect(manifest: Manifest, *, grid: Path | None = None, side: int = 8) -> Inspection:
    """Read every sample once; if ``grid`` is given, write a PNG of side x side samples there,
    pairs as the input with its target to the right.

    ``mean`` and ``std`` are of all values, in the data's own units (0–255 for images).
    Raises DataError for a torn or missing shard.
    """
    if not manifest.shards:
        raise DataError(f"{manifest.source}: drawn afresh, it has no shards to inspect")
    names = manifest.labels.names
    counts = np.zeros(len(names), dtype=np.int64)
    total = squares = values = 0.0
    picture: list[np.ndarray] = []
    shown_in_all = side * side
    cfg = replace(DataConfig(), shuffle=False, cache_mb=0, prefetch=1)
    batch_size = max(1, min(256, BATCH_BYTES // max(1, manifest.sample_bytes)))
    left = manifest.num_samples
    with ShardStream(manifest, cfg, seed=0, local_batch=batch_size) as stream:
        for batch in stream:
            taken = min(left, len(batch.x))
            x = batch.x[:taken].numpy()
            s, q = _sums(x)
            total, squares, values = total + s, squares + q, values + x.size
            if batch.y is not None:
                y = batch.y[:taken].numpy()
                counts += np.bincount(y, minlength=len(names)) if y.ndim == 1 else y.sum(0)
            shown = min(taken, shown_in_all - len(picture))
            if grid is not None and shown:
                picture += list(_side_by_side(batch.x[:shown].numpy(), batch.source).copy())
            left -= taken
            if left <= 0:
                break
    if grid is not None and len(manifest.shape) == 3:
        write_grid(np.stack(picture), grid, side)
    mean = total / values
    return Inspection(
        source=manifest.source,
        licence=manifest.licence,
        split=manifest.split,
        num_samples=manifest.num_samples,
        shape=manifest.shape,
        dtype=manifest.dtype,
        shards=len(manifest.shards),
        blocks=len(manifest.blocks),
        bytes=sum(shard.bytes for shard in manifest.shards),
        bad=len(manifest.bad),
        small=manifest.small,
        histogram=dict(zip(names, (int(c) for c in counts), strict=True)),
        mean=mean,
        std=float(np.sqrt(max(0.0, squares / values - mean * mean))),
        source_shape=manifest.source_shape,
    )


def _sums(x: np.ndarray) -> tuple[float, float]:
    """Sum of the values and of their squares; exact for bytes."""
    if x.dtype == np.uint8:
        often = sum(np.bincount(one.ravel(), minlength=256) for one in x)
        level = np.arange(256, dtype=np.int64)
        return float((often * level).sum()), float((often * level * level).sum())
    wide = x.astype(np.float64)
    return float(wide.sum()), float((wide * wide).sum())


def _side_by_side(x: np.ndarray, source: torch.Tensor | None) -> np.ndarray:
    """[N, C, H, W] with the input images, if there are any, to the left: [N, 1 or 3, H, 2W]."""
    if source is None:
        return x
    left = source[: len(x)].numpy()
    channels = max(left.shape[1], x.shape[1])
    return np.concatenate([np.repeat(a, channels // a.shape[1], 1) for a in (left, x)], 3)


def write_grid(images: np.ndarray, path: Path, columns: int) -> None:
    """A PNG of uint8 images [N, C, H, W] in rows of ``columns``, white between them."""
    number, channels, height, width = images.shape
    rows = -(-number // columns)
    sheet = np.full(
        (rows * (height + MARGIN) + MARGIN, columns * (width + MARGIN) + MARGIN, channels),
        255,
        dtype=np.uint8,
    )
    for i, image in enumerate(images):
        top = MARGIN + (i // columns) * (height + MARGIN)
        left = MARGIN + (i % columns) * (width + MARGIN)
        sheet[top : top + height, left : left + width] = image.transpose(1, 2, 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sheet[..., 0] if channels == 1 else sheet).save(path)
