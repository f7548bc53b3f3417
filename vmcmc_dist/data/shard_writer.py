"""One shard: samples fitted to size, encoded, written by WebDataset's TarWriter."""

from __future__ import annotations

import dataclasses
import io
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vmcmc_dist.data.config import DataConfig
from vmcmc_dist.data.index import DTYPE, index_tar
from vmcmc_dist.data.shard_info import ShardInfo
from vmcmc_dist.data.sources.base import Raw, Source, UndecodableError
from vmcmc_dist.data.sources.images import MODES, square
from vmcmc_dist.data.sources.pairs import Pairs
from vmcmc_dist.data.tar import INPUT, TARGET
from vmcmc_dist.errors import ConfigError, DataError

os.environ["WDS_SECURE"] = "1"  # before webdataset is imported: no pipe:, pickle, URL rewriting

from webdataset import TarWriter

MTIME = 0  # of every member, so that the bytes depend on the samples alone
PNG_UP_TO = 32


@dataclass(frozen=True)
class Coding:
    """How images are stored: shape (C, H, W) or (D,), and png, jpg or npy; so for the input
    images of pairs.
    """

    shape: tuple[int, ...]
    extension: str
    quality: int
    source: Coding | None = None

    @property
    def estimated_bytes(self) -> int:
        """Bytes per sample in the tar, on the safe side."""
        values = int(np.prod(self.shape))
        share = {"png": 1.0, "jpg": 0.5, "npy": 4.0}[self.extension]
        return int(values * share) + 3072 + (self.source.estimated_bytes if self.source else 0)


@dataclass(frozen=True)
class ShardJob:
    """Write samples[...] of a source to one tar."""

    path: Path
    samples: range
    coding: Coding


def coding(cfg: DataConfig, source: Source) -> Coding:
    """Shape and format of the shards of ``source`` under ``cfg``."""
    if source.image_size is None:
        return Coding(source.load(0).value.shape, "npy", 0)  # type: ignore[union-attr]
    size, channels = cfg.image_size or source.image_size, cfg.channels or source.channels
    if channels not in MODES:
        raise ConfigError(f"data.channels={channels}: images have 1 or 3 channels")
    png = cfg.format == "png" or (cfg.format == "auto" and size <= PNG_UP_TO)
    code = Coding((channels, size, size), "png" if png else "jpg", cfg.jpeg_quality)
    if not isinstance(source, Pairs):
        return code
    extension = "jpg" if cfg.format == "jpeg" else "png"  # auto: edges and label maps stay exact
    inputs = Coding((source.input_channels, size, size), extension, cfg.jpeg_quality)
    return dataclasses.replace(code, source=inputs)


def fit(image: Image.Image, shape: tuple[int, ...]) -> Image.Image:
    """Centre crop to a square, then an antialiased (Lanczos) resize to shape (C, H, W)."""
    channels, side, _ = shape
    if image.mode != MODES[channels]:
        image = image.convert(MODES[channels])
    return square(image, side)


def encode(value: Image.Image | np.ndarray, code: Coding) -> bytes:
    """The bytes of one member."""
    buffer = io.BytesIO()
    if isinstance(value, np.ndarray):
        np.save(buffer, value, allow_pickle=False)
    elif code.extension == "png":
        fit(value, code.shape).save(buffer, "PNG")
    else:
        fit(value, code.shape).save(buffer, "JPEG", quality=code.quality, subsampling=0)
    return buffer.getvalue()


@dataclass(frozen=True)
class Written:
    """A shard on the disk: its record, its blocks (index.DTYPE [K]), and what did not decode."""

    info: ShardInfo
    blocks: np.ndarray
    bad: list[str]


def write_shard(source: Source, job: ShardJob) -> Written:
    """Write one tar."""
    bad: list[str] = []
    count = 0
    with open(job.path, "wb") as file, TarWriter(file, encoder=False, mtime=MTIME) as tar:
        for i in job.samples:
            try:
                raw = source.load(i)
                members = _images(raw, job.coding)
            except UndecodableError:
                bad.append(source.describe(i))
                continue
            except OSError as error:
                raise DataError(f"{job.path.parent}: {error.strerror or error}") from None
            tar.write({"__key__": f"{i:09d}", **members, **_label(raw.label)})
            count += 1
    if not count:
        return Written(ShardInfo(job.path.name, 0, 0), np.zeros(0, dtype=DTYPE), bad)
    info, blocks = index_tar(job.path, job.path.name)
    return Written(info, blocks, bad)


def _images(raw: Raw, code: Coding) -> dict[str, bytes]:
    """The members of a sample that hold its image, or both images of a pair."""
    value = encode(raw.value, code)
    if raw.source is None or code.source is None:
        return {code.extension: value}
    return {
        f"{INPUT}.{code.source.extension}": encode(raw.source, code.source),
        f"{TARGET}.{code.extension}": value,
    }


def _label(label: Any) -> dict[str, bytes]:
    if label is None:
        return {}
    if isinstance(label, int):
        return {"cls": str(label).encode()}
    return {"json": json.dumps({"attributes": label}, separators=(",", ":")).encode()}
