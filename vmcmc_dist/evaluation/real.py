"""Real data for the tasks: what was trained on, and what the model has not seen.

real = real_images(config.data, "train", limit=10_000)
real.images        # uint8 [10000, C, H, W]; float32 [n, 2] of toy2d
x, c = held_out(model, 500, seed=0)
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from vmcmc_dist.data import Batch, DataConfig, DensityStream, Manifest, density, ensure_prepared
from vmcmc_dist.data.conditions import conditions
from vmcmc_dist.data.given_rows import read_rows
from vmcmc_dist.data.manifest import LabelInfo
from vmcmc_dist.data.scaling import to_model_range
from vmcmc_dist.data.sources.base import NoSplitError
from vmcmc_dist.langevin import stream_seed
from vmcmc_dist.trained import Trained

Split = Literal["train", "valid", "test", "held out"]
DRAWN = 10_000  # points of a density where no limit is given
LAST = 0.1  # share that is held out of data without a split for it


@dataclass
class Real:
    """Real samples in the data's order.

    Attributes:
        images: uint8 [N, C, H, W]; float32 [N, D] for vectors.
        labels: int64 classes [N] or attributes 0/1 [N, A]; None where there are none.
        checksum: of exactly these samples.
        split: which part of the data they are, in words.
        label_info: what the labels are called.
        rows: int64 [N], their numbers in the split.
        inputs: the input images of pairs, uint8 [N, C', H, W]; None where there are none.
    """

    images: Tensor
    labels: Tensor | None
    checksum: str
    split: str
    label_info: LabelInfo
    rows: Tensor
    inputs: Tensor | None = None

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class Part:
    """Rows of a manifest that make up a split."""

    manifest: Manifest
    rows: np.ndarray
    name: str

    @property
    def checksum(self) -> str:
        """The manifest's, or with the rows' where they are not all of it."""
        if len(self.rows) == self.manifest.num_samples:
            return self.manifest.checksum
        digest = hashlib.sha256(self.manifest.checksum.encode())
        digest.update(self.rows.astype(np.int64).tobytes())
        return digest.hexdigest()


def real_images(data: DataConfig, split: Split, limit: int | None = None, seed: int = 0) -> Real:
    """Samples of a split, at most ``limit`` (which ones: by ``seed``), never mirrored.

    ``train`` is what the model was trained on, ``data.limit`` included; ``held out`` the test
    split, else the validation split, else the last tenth of the training data (``split`` says
    which).

    Raises:
        NoSplitError: the data set has no such split. DataError: it cannot be read.
    """
    if data.source == "toy2d":
        return _drawn(data, split, limit or DRAWN, seed)
    part = find_part(data, split)
    part = dataclasses.replace(part, rows=_chosen(part.rows, limit, seed))
    batches = list(read_rows(part.manifest, data, part.rows))
    return Real(
        torch.cat([batch.x for batch in batches]),
        _joined([batch.y for batch in batches]),
        part.checksum,
        part.name,
        part.manifest.labels,
        torch.from_numpy(part.rows),
        _joined([batch.source for batch in batches]),
    )


def _joined(parts: list[Tensor | None]) -> Tensor | None:
    there = [part for part in parts if part is not None]
    return torch.cat(there) if there else None


def real_batches(
    data: DataConfig, split: Split, batch_size: int = 500, limit: int | None = None, seed: int = 0
) -> Iterator[Batch]:
    """The samples of :func:`real_images`, never all in memory; ``index`` is the row."""
    if data.source == "toy2d":
        real = _drawn(data, split, limit or DRAWN, seed)
        yield Batch(real.images, None, real.rows, real.rows)
        return
    part = find_part(data, split)
    part = dataclasses.replace(part, rows=_chosen(part.rows, limit, seed))
    yield from read_rows(part.manifest, data, part.rows, batch_size)


def held_out(model: Trained, n: int, seed: int = 0) -> tuple[Tensor, Tensor | None]:
    """n held-out samples x [n, …] in [-1, 1] and the conditions that go with them.

    Fewer than n where the data set has not so many; in another order for every seed.
    """
    data, condition = model.config.data, model.config.condition
    real = real_images(data, "held out", limit=n, seed=seed)
    x = to_model_range(real.images)
    batch = Batch(real.images, real.labels, real.rows, real.rows, real.inputs)
    c = conditions(condition, batch, x, seed)
    order = torch.randperm(len(real), generator=torch.Generator().manual_seed(seed))
    return x[order], None if c is None else c[order]


def find_part(data: DataConfig, split: Split) -> Part:
    """Where a split lies; NoSplitError where there is none."""
    if split != "held out":
        manifest = _manifest(data, split)
        return Part(manifest, np.arange(manifest.num_samples), manifest.split)
    for name in ("test", "valid"):
        try:
            part = find_part(data, name)  # type: ignore[arg-type]
        except NoSplitError:
            continue
        seen = data.split in ("all", name)
        trained = " (the model was trained on it)" if seen else ""
        return dataclasses.replace(part, name=f"{name}{trained}")
    manifest = _manifest(data, "train")
    count = manifest.num_samples
    rows = np.arange(count - max(1, round(LAST * count)), count)
    return Part(manifest, rows, "the last tenth of the training data (no split is held out)")


def held_out_name(data: DataConfig) -> str:
    """Which part of the data counts as held out."""
    return "fresh draws" if data.source == "toy2d" else find_part(data, "held out").name


def data_checksum(data: DataConfig) -> str:
    """Of the training data."""
    return ensure_prepared(_of_training(data)).checksum


def _of_training(data: DataConfig) -> DataConfig:
    return dataclasses.replace(data, shuffle=False, flip=False)


def _manifest(data: DataConfig, split: str) -> Manifest:
    cfg = _of_training(data)
    if split in ("train", data.split):
        return ensure_prepared(cfg)
    if not data.root and data.source != "faces":
        raise NoSplitError(f"{data.shards} holds shards of split {data.split!r} alone")
    manifest = ensure_prepared(dataclasses.replace(cfg, split=split, shards=None, limit=None))  # type: ignore[arg-type]
    known = ensure_prepared(cfg)
    if manifest.split != split or manifest.checksum == known.checksum:  # shards used as they are
        raise NoSplitError(f"{manifest.base} holds shards of split {manifest.split!r} alone")
    return manifest


def _chosen(rows: np.ndarray, limit: int | None, seed: int) -> np.ndarray:
    if limit is None or limit >= len(rows):
        return rows
    generator = np.random.default_rng(seed)
    return rows[np.sort(generator.choice(len(rows), limit, replace=False))]


def _drawn(data: DataConfig, split: str, n: int, seed: int) -> Real:
    """Fresh points of a density; other ones for every split and seed."""
    number = stream_seed(seed, "real", split) % 2**31
    stream = DensityStream(density(data.density), seed=number, local_batch=n)
    checksum = hashlib.sha256(f"{data.density} {split} {n} {seed}".encode()).hexdigest()
    return Real(next(iter(stream)).x, None, checksum, "fresh draws", LabelInfo(), torch.arange(n))
