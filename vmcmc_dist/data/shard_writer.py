"""Shards: samples fitted, encoded, written by WebDataset's TarWriter, put in their place."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import socket
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

from vmcmc_dist.data import store
from vmcmc_dist.data.config import DataConfig, cache_dir
from vmcmc_dist.data.fitting import MODES, STORED
from vmcmc_dist.data.index import DTYPE, index_tar
from vmcmc_dist.data.shard_info import ShardInfo
from vmcmc_dist.data.sources.base import Raw, Source, UndecodableError
from vmcmc_dist.data.sources.images import square
from vmcmc_dist.data.tar import INPUT, TARGET
from vmcmc_dist.data.unfinished import Unfinished, Written, errors_of_writing
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


@dataclass(frozen=True)
class ShardSet:
    """One set of shards that is being written: where, under which key, in which coding."""

    out: str
    key: str
    coding: Coding


@dataclass(frozen=True)
class Part:
    """One shard: shard ``number`` of set ``set`` holds samples[...] of the source."""

    set: int
    number: int
    samples: range

    @property
    def name(self) -> str:
        return f"shard-{self.number:06d}.tar"


def coding(cfg: DataConfig, source: Source) -> Coding:
    """Shape and format of the shards of ``source`` under ``cfg``."""
    if source.image_size is None:
        return Coding(source.load(0).value.shape, "npy", 0)  # type: ignore[union-attr]
    size, channels = cfg.image_size or source.image_size, cfg.channels or source.channels
    if channels not in MODES:
        raise ConfigError(f"data.channels={channels}: images have 1 or 3 channels")
    png = cfg.format == "png" or (cfg.format == "auto" and size <= PNG_UP_TO)
    code = Coding((channels, size, size), "png" if png else "jpg", cfg.jpeg_quality)
    input_channels = cfg.input_channels or getattr(source, "input_channels", None)
    if not input_channels:
        return code
    extension = "jpg" if cfg.format == "jpeg" else "png"  # auto: edges and label maps stay exact
    inputs = Coding((input_channels, size, size), extension, cfg.jpeg_quality)
    return dataclasses.replace(code, source=inputs)


def fit(image: Image.Image, shape: tuple[int, ...]) -> Image.Image:
    """Centre crop to a square, then an antialiased (Lanczos) resize to shape (C, H, W).

    Raises UndecodableError for pixels of more than 8 bits a channel.
    """
    channels, side, _ = shape
    if image.mode[0] in "IF":
        raise UndecodableError(f"pixels of mode {image.mode}, not of 8 bits a channel")
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


def members(raw: Raw, code: Coding) -> dict[str, bytes]:
    """The members of a sample by extension: its image (both images of a pair) and its label."""
    value = encode(raw.value, code)
    if raw.source is None or code.source is None:
        return {code.extension: value, **_label(raw.label)}
    return {
        f"{INPUT}.{code.source.extension}": encode(raw.source, code.source),
        f"{TARGET}.{code.extension}": value,
        **_label(raw.label),
    }


def is_small(raw: Raw, code: Coding) -> bool:
    """True if the raw image is smaller than its place in the shard, and so is enlarged."""
    if len(code.shape) != 3 or not isinstance(raw.value, Image.Image):
        return False
    stored = raw.value.info.get(STORED, (1, *raw.value.size))[1:]
    return (raw.short or min(stored)) < code.shape[1]


def write_parts(
    source: Source, sets: Sequence[ShardSet], parts: Sequence[Part]
) -> list[tuple[int, Written]]:
    """Write shards, of one set or several, loading each of their samples once; returns each with
    the number of its set.

    A shard is written beside its place (for s3://: in the cache) and then put there, whole, with
    its record. Raises DataError for raw data that cannot be read, ResourceError for a full disk.
    """
    done: list[tuple[int, Written]] = []
    for folder in {temporary_folder(s.out, Unfinished(s.out, s.key)) for s in sets}:
        _sweep(folder)
    with ExitStack() as stack:
        shards: dict[Part, _Shard] = {}
        for i in _samples(parts):
            here = [part for part in parts if i in part.samples]
            samples = _coded(source, i, [sets[part.set].coding for part in here])
            for part, sample in zip(here, samples, strict=True):
                if part not in shards:
                    shards[part] = _Shard(part, sets[part.set], stack)
                shards[part].add(i, sample)
                if i == part.samples[-1]:
                    done.append((part.set, shards.pop(part).finish()))
    return done


@dataclass(frozen=True)
class ShardJob:
    """Write samples[...] of a source to one tar."""

    path: Path
    samples: range
    coding: Coding


def write_shard(source: Source, job: ShardJob) -> Written:
    """Write one tar in its place; raises OSError if it cannot be written."""
    shard = _Tar(job.path, job.path.name)
    try:
        for i in job.samples:
            shard.add(i, _coded(source, i, [job.coding])[0])
        return shard.finish(job.samples)
    finally:
        shard.abandon()


def _samples(parts: Iterable[Part]) -> list[int]:
    return sorted(set().union(*(part.samples for part in parts)))


@dataclass(frozen=True)
class _Sample:
    """A sample as one set wants it; ``bad`` names one that does not decode."""

    members: dict[str, bytes]
    small: bool = False
    bad: str = ""


def _coded(source: Source, i: int, codings: list[Coding]) -> list[_Sample]:
    try:
        raw = source.load(i)
        return [_Sample(members(raw, code), is_small(raw, code)) for code in codings]
    except UndecodableError:
        return [_Sample({}, bad=source.describe(i))] * len(codings)
    except OSError as error:
        raise DataError(f"{source.describe(i)}: {error.strerror or error}") from None


class _Tar:
    """A tar that samples are added to."""

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name
        self.bad: list[str] = []
        self.count = self.small = 0
        self.file = open(path, "wb")
        self.tar = TarWriter(self.file, encoder=False, mtime=MTIME)

    def add(self, i: int, sample: _Sample) -> None:
        if sample.bad:
            self.bad.append(sample.bad)
            return
        self.tar.write({"__key__": f"{i:09d}", **sample.members})
        self.count += 1
        self.small += sample.small

    def finish(self, samples: range) -> Written:
        """Its record; without one sample, the file is of no use."""
        self.tar.close()
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()
        info, blocks = ShardInfo(self.name, 0, 0), np.zeros(0, dtype=DTYPE)
        if self.count:
            info, blocks = index_tar(self.path, self.name)
        bad = tuple(self.bad)
        return Written(self.name, samples.start, samples.stop, info, blocks, bad, self.small)

    def abandon(self) -> None:
        """Close it, whole or not; what cannot be written any more is not wanted."""
        with suppress(OSError, ValueError):
            self.tar.close()
        with suppress(OSError):
            self.file.close()


class _Shard:
    """A shard that grows in a temporary file, which is deleted whatever happens."""

    def __init__(self, part: Part, target: ShardSet, stack: ExitStack) -> None:
        self.part, self.target = part, target
        self.unfinished = Unfinished(target.out, target.key)
        path = temporary_folder(target.out, self.unfinished) / _own(part, target.key)
        stack.callback(path.unlink, missing_ok=True)
        with errors_of_writing(target.out):
            self.tar = _Tar(path, part.name)
        stack.callback(self.tar.abandon)

    def add(self, i: int, sample: _Sample) -> None:
        with errors_of_writing(self.target.out):
            self.tar.add(i, sample)

    def finish(self) -> Written:
        with errors_of_writing(self.target.out):
            written = self.tar.finish(self.part.samples)
            if self.tar.count:
                self._put(store.join(self.target.out, self.part.name))
        self.unfinished.keep(written)
        return written

    def _put(self, place: str) -> None:
        if store.is_remote(place):
            store.upload(self.tar.path, place)
            self.tar.path.unlink()
        else:
            os.replace(self.tar.path, place)


def temporary_folder(out: str, unfinished: Unfinished) -> Path:
    """Where the shards of this machine grow: beside their records, or in the cache for s3://."""
    if not store.is_remote(out):
        return Path(out).expanduser() / unfinished.folder
    folder = cache_dir() / "preparing"
    with errors_of_writing(str(folder)):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def _own(part: Part, key: str) -> str:
    return f"{key[:12]}-{part.name}.{socket.gethostname()}.{os.getpid()}"


def _sweep(folder: Path) -> None:
    """Delete what processes of this machine that are gone left half written."""
    for path in folder.glob(f"*.tar.{socket.gethostname()}.*"):
        pid = path.suffix[1:]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            path.unlink(missing_ok=True)


def _label(label: Any) -> dict[str, bytes]:
    if label is None:
        return {}
    if isinstance(label, int):
        return {"cls": str(label).encode()}
    return {"json": json.dumps({"attributes": label}, separators=(",", ":")).encode()}
