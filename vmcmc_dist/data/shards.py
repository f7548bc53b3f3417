"""Reading one shard: WebDataset's tar stages, with every way to lose a sample closed.

A shard is read whole (samples stay encoded), checked against the manifest's size, count and
sha256, and only members with the extensions below are looked at, so nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import IO, Any

os.environ["WDS_SECURE"] = "1"  # before webdataset is imported: no pipe:, pickle, URL rewriting

import numpy as np
import webdataset
from PIL import Image, UnidentifiedImageError
from webdataset import tariterators
from webdataset.gopen import gopen, gopen_schemes

from vmcmc_dist.data import store
from vmcmc_dist.data.manifest import LabelInfo, Manifest
from vmcmc_dist.errors import DataError

webdataset.utils.enforce_security = True  # also where webdataset was imported before us
gopen_schemes["s3"] = store.open_s3

IMAGES = ("png", "jpg", "jpeg", "webp")
VECTORS = ("npy",)
LABELS = ("cls", "json")
ALLOWED = (*IMAGES, *VECTORS, *LABELS)


INPUT, TARGET = "input", "target"
"""Names of the two images of a pair: members ``KEY.input.EXT`` and ``KEY.target.EXT``."""


@dataclass(frozen=True)
class Encoded:
    """One image or vector as it lies in the shard; ``source`` is the input image of a pair."""

    key: str
    extension: str
    data: bytes
    label: Any
    source: Encoded | None = None


class _Hashing(io.RawIOBase):
    """A reader that hashes all that passes through it."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.sha256, self.bytes = file, hashlib.sha256(), 0

    def read(self, size: int = -1) -> bytes:
        data = self.file.read(size)
        self.sha256.update(data)
        self.bytes += len(data)
        return data

    def drain(self) -> None:
        while self.read(1 << 20):
            pass


def _allowed(name: str) -> bool:
    return name.rsplit(".", 1)[-1].lower() in ALLOWED


def tar_samples(path: str, file: Any) -> Iterator[dict[str, Any]]:
    """Samples of one open tar as WebDataset dictionaries; raises DataError on a torn tar."""

    def source() -> Iterable[dict[str, Any]]:
        yield {"url": path, "stream": file}

    def expand(data: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        return tariterators.tar_file_expander(data, select_files=_allowed)

    try:
        yield from webdataset.DataPipeline(source, expand, tariterators.group_by_keys)
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise DataError(
            f"{path}: torn or not a tar ({error.args[0] if error.args else error}); "
            "copy it again or prepare the data again"
        ) from None


def open_shard(path: str) -> IO[bytes]:
    """Open a shard for reading; s3:// goes through WebDataset's gopen and our s3fs opener."""
    return gopen(path) if store.is_remote(path) else store.open_file(path)


def is_pair(sample: dict[str, Any]) -> bool:
    """True if a WebDataset sample has an input or a target image."""
    return any(f"{name}.{e}" in sample for name in (INPUT, TARGET) for e in IMAGES)


def encoded(path: str, sample: dict[str, Any], labels: LabelInfo, *, pairs: bool) -> Encoded:
    """Pick the image or vector (or both images of a pair) and the label out of a sample."""
    key = sample["__key__"]
    source = None
    if pairs:
        extension = _member(path, sample, TARGET, IMAGES)
        source_extension = _member(path, sample, INPUT, IMAGES)
        source = Encoded(key, source_extension, sample[source_extension], None)
    else:
        extension = _member(path, sample, "", (*IMAGES, *VECTORS))
    label: Any = None
    try:
        if labels.kind == "class":
            label = int(sample["cls"])
        elif labels.kind == "attributes":
            label = json.loads(sample["json"])["attributes"]
    except (KeyError, ValueError, TypeError):
        raise DataError(f"{path}: sample {key} has no readable label ({labels.kind})") from None
    if labels.width is not None and len(label) != labels.width:
        raise DataError(f"{path}: sample {key} has {len(label)} attributes, not {labels.width}")
    return Encoded(key, extension, sample[extension], label, source)


_PAIRS = (
    "; pairs are KEY.input.EXT and KEY.target.EXT, or of any names with data.source=pairs and the "
    "tar itself as data.root"
)


def _member(path: str, sample: dict[str, Any], name: str, extensions: tuple[str, ...]) -> str:
    """The sample's member ``name.EXT``, or ``EXT`` where ``name`` is empty."""
    members = [f"{name}.{e}" if name else e for e in extensions]
    found = next((member for member in members if member in sample), None)
    if found is None:
        has = ", ".join(sorted(m for m in sample if not m.startswith("__"))) or "none"
        raise DataError(
            f"{path}: sample {sample['__key__']} has no {'/'.join(members)} member (it has {has})"
            + (_PAIRS if "." in has else "")
        )
    return found


def read_shard(manifest: Manifest, shard: int, *, verify: bool) -> list[Encoded]:
    """All samples of a shard, still encoded.

    Raises DataError naming the shard if it is missing, torn, of another size, count or checksum.
    """
    info, path = manifest.shards[shard], manifest.path(shard)
    pairs = manifest.source_shape is not None
    with open_shard(path) as file, store.store_errors(path):
        hashing = _Hashing(file)
        samples = [
            encoded(path, s, manifest.labels, pairs=pairs) for s in tar_samples(path, hashing)
        ]
        hashing.drain()
    if hashing.bytes != info.bytes:
        raise DataError(
            f"{path}: {hashing.bytes} bytes, the manifest says {info.bytes}: torn or overwritten; "
            "copy it again or prepare the data again"
        )
    if len(samples) != info.count:
        raise DataError(f"{path}: {len(samples)} samples, the manifest says {info.count}")
    if verify and info.sha256 and hashing.sha256.hexdigest() != info.sha256:
        raise DataError(f"{path}: checksum mismatch; copy it again or prepare the data again")
    return samples


def decode(path: str, sample: Encoded, shape: tuple[int, ...]) -> np.ndarray:
    """One sample as uint8 [C, H, W] or float32 [D]; raises DataError naming shard and member.

    The size is checked in the header, before any pixel is decompressed.
    """
    member = f"{path}: member {sample.key}.{sample.extension}"
    if sample.extension in VECTORS:
        return _vector(member, sample.data, shape)
    if len(shape) != 3:
        raise DataError(f"{member}: an image where vectors of {shape[0]} numbers are expected")
    channels, height, width = shape
    try:
        image = Image.open(io.BytesIO(sample.data))
        if image.size != (width, height) or len(image.getbands()) != channels:
            raise DataError(
                f"{member}: {image.size[0]}x{image.size[1]} with {len(image.getbands())} channels, "
                f"expected {width}x{height} with {channels}; prepare the data again "
                f"with data.image_size={width}"
            )
        pixels = np.asarray(image)
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{member}: does not decode ({error})") from None
    if pixels.dtype != np.uint8:
        raise DataError(f"{member}: {pixels.dtype} pixels, expected 8 bits a channel")
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def _vector(member: str, data: bytes, shape: tuple[int, ...]) -> np.ndarray:
    try:
        vector = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise DataError(f"{member}: not a .npy array ({error})") from None
    if vector.shape != shape or vector.dtype != np.float32:
        raise DataError(f"{member}: {vector.dtype}{vector.shape}, expected float32{shape}")
    return vector
