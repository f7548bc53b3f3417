"""The manifest: everything about a set of shards that can be known without reading them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from vmcmc_dist.data import index, store
from vmcmc_dist.data.shard_info import ShardInfo
from vmcmc_dist.errors import DataError

SCHEMA_VERSION = 2
NAME = "manifest.json"


@dataclass(frozen=True)
class LabelInfo:
    """What labels are: none, one class per sample, or a 0/1 vector of named attributes."""

    kind: str = "none"
    names: tuple[str, ...] = ()

    @property
    def width(self) -> int | None:
        """Number of attributes; None for classes and for no labels."""
        return len(self.names) if self.kind == "attributes" else None


@dataclass(frozen=True)
class Manifest:
    """A data set in shards.

    ``shape`` is (C, H, W) for images (dtype uint8) or (D,) for vectors (dtype float32).
    ``source_shape`` is (C', H, W) of the input images, where samples are pairs; else None.
    ``blocks`` is the table of index.npy (index.DTYPE [K]): where the samples lie.
    ``base`` is the folder or s3:// prefix it lies in and is not stored.
    ``small`` counts the raw images that were smaller than ``shape``, and were enlarged.
    ``stored_shape`` is the shape in the shards, where images are made smaller as they are read.
    """

    source: str
    shape: tuple[int, ...]
    dtype: str
    shards: tuple[ShardInfo, ...]
    labels: LabelInfo = field(default_factory=LabelInfo)
    licence: str = "unknown"
    split: str = "all"
    key: str = ""
    bad: tuple[str, ...] = ()
    small: int = 0
    base: str = ""
    source_shape: tuple[int, ...] | None = None
    blocks: np.ndarray = field(
        default_factory=lambda: np.zeros(0, dtype=index.DTYPE), compare=False, repr=False
    )
    stored_shape: tuple[int, ...] | None = None

    @property
    def num_samples(self) -> int:
        """Samples in all shards together."""
        return sum(shard.count for shard in self.shards)

    @property
    def counts(self) -> np.ndarray:
        """Samples of each shard, int64 [S]."""
        return np.array([shard.count for shard in self.shards], dtype=np.int64)

    @property
    def sample_bytes(self) -> int:
        """Bytes of one decoded sample, its input image included."""
        values = int(np.prod(self.shape)) + int(np.prod(self.source_shape or 0))
        return values * np.dtype(self.dtype).itemsize

    @property
    def checksum(self) -> str:
        """sha256 of what the shards hold and how it is to be read."""
        shape = self.stored_shape or self.shape
        content = [self.source, self.split, shape, self.dtype, asdict(self.labels)]
        content += [self.source_shape] if self.source_shape else []
        content += [[s.name, s.count, s.bytes, s.sha256] for s in self.shards]
        content += [self.shape] if self.stored_shape else []
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def path(self, shard: int) -> str:
        """Full path or URL of one shard."""
        return store.join(self.base, self.shards[shard].name)

    def to_json(self) -> str:
        """The text of manifest.json; the same manifest gives the same bytes."""
        pairs = {"source_shape": list(self.source_shape)} if self.source_shape else {}
        return json.dumps(
            {
                "schema_version": SCHEMA_VERSION,
                "source": self.source,
                "licence": self.licence,
                "split": self.split,
                "num_samples": self.num_samples,
                "shape": list(self.shape),
                **pairs,
                "dtype": self.dtype,
                "labels": {"kind": self.labels.kind, "names": list(self.labels.names)},
                "bad": list(self.bad),
                "small": self.small,
                "key": self.key,
                "checksum": self.checksum,
                "index": index.sha256(self.blocks),
                "shards": [asdict(shard) for shard in self.shards],
            },
            indent=1,
        )

    @staticmethod
    def from_json(text: str | bytes, base: str, blocks: bytes) -> Manifest:
        """Read manifest.json and index.npy; raises DataError naming what is wrong with them."""
        where = store.join(base, NAME)
        try:
            record = json.loads(text)
            version = record["schema_version"]
            if version == 1:
                raise DataError(
                    f"{where}: without a block table, as older versions wrote it; run `vmcmc data "
                    f"index {base}`, which reads the shards once and writes it"
                )
            manifest = Manifest(
                source=record["source"],
                shape=tuple(int(n) for n in record["shape"]),
                dtype=str(np.dtype(record["dtype"])),
                shards=tuple(shard_of(where, shard) for shard in record["shards"]),
                labels=LabelInfo(record["labels"]["kind"], tuple(record["labels"]["names"])),
                licence=record["licence"],
                split=record["split"],
                key=record["key"],
                bad=tuple(record["bad"]),
                small=int(record.get("small", 0)),
                base=base,
                source_shape=_optional_shape(record.get("source_shape")),
            )
            checksum, index_sha256 = record["checksum"], record["index"]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{where}: not a manifest of ours ({type(error).__name__}: {error}); "
                "delete it and prepare the data again"
            ) from None
        if version != SCHEMA_VERSION:
            raise DataError(
                f"{where}: schema version {version}, this program reads {SCHEMA_VERSION}; "
                "prepare the data again"
            )
        if manifest.checksum != checksum:
            raise DataError(f"{where}: its checksum does not match; prepare the data again")
        if manifest.num_samples == 0:
            raise DataError(f"{where}: no samples in it; prepare the data again")
        table = store.join(base, index.NAME)
        if hashlib.sha256(blocks).hexdigest() != index_sha256:
            raise DataError(f"{table}: not the table of {NAME}; run `vmcmc data index {base}`")
        return replace(manifest, blocks=_matching(index.from_bytes(blocks, table), manifest, table))


def _matching(blocks: np.ndarray, manifest: Manifest, where: str) -> np.ndarray:
    """The table, if it counts the samples of each shard as the manifest does."""
    counts = np.bincount(blocks["shard"], blocks["count"], minlength=len(manifest.shards))
    if not np.array_equal(counts, manifest.counts):
        raise DataError(f"{where}: counts other samples than {NAME}; run `vmcmc data index`")
    return blocks


def write_manifest(manifest: Manifest, base: str) -> None:
    """Write index.npy and then manifest.json, which makes the set complete, into ``base``."""
    store.write_bytes(store.join(base, index.NAME), index.to_bytes(manifest.blocks))
    store.write_bytes(store.join(base, NAME), manifest.to_json().encode())


def _optional_shape(shape: list[int] | None) -> tuple[int, ...] | None:
    return None if shape is None else tuple(int(n) for n in shape)


def shard_of(where: str, record: dict[str, Any]) -> ShardInfo:
    """One entry of ``shards`` in the manifest ``where``; DataError for a name that leaves it."""
    name = str(record["name"])
    if name.startswith(("/", "~")) or ".." in name.split("/") or ":" in name:
        raise DataError(f"{where}: shard name {name!r} leaves the folder; refused")
    return ShardInfo(name, int(record["count"]), int(record["bytes"]), str(record["sha256"]))


def open_manifest(path: str) -> Manifest:
    """The manifest of a folder or s3:// prefix of shards, or of a manifest.json itself.

    Tars without a manifest of ours (any WebDataset) are read through once; nothing is written:
    `vmcmc data index` writes what was found beside them.
    Raises DataError if there is neither.
    """
    base = path[: -len(NAME)].rstrip("/") or "." if path.endswith(NAME) else path
    where = store.join(base, NAME)
    if store.exists(where):
        table = store.join(base, index.NAME)
        blocks = store.read_bytes(table) if store.exists(table) else b""
        return Manifest.from_json(store.read_bytes(where), base, blocks)
    from vmcmc_dist.data.scan import scan

    return scan(base)


def holds_shards(path: str) -> bool:
    """True if ``path`` is a folder of shards: it has a manifest, or tars and little else."""
    if path.endswith(".zip"):
        return False
    if not store.is_remote(path) and not Path(path).expanduser().is_dir():
        return False
    if store.exists(store.join(path, NAME)):
        return True
    names: Sequence[str] = list(store.list_files(path))
    return (
        bool(names)
        and all(n.endswith((".tar", ".txt", ".json", ".md")) for n in names)
        and any(n.endswith(".tar") for n in names)
    )
