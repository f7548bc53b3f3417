"""Fixtures of the data room: a cache of each test's own, small sets of shards."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from webdataset import TarWriter

from vmcmc_dist.data import Manifest, index, open_manifest


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache, empty, of this test alone."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("VMCMC_CACHE", str(folder))
    return folder


def numbered(i: int, size: int = 4) -> np.ndarray:
    """A grey image that carries its number i < 65536 in its first two pixels."""
    image = np.full((size, size), i % 251, dtype=np.uint8)
    image[0, 0], image[0, 1] = divmod(i, 256)
    return image


def png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def grey_png() -> Callable[..., bytes]:
    """(i, size=4) → the numbered grey image as PNG."""
    return lambda i, size=4: png(numbered(i, size))


@pytest.fixture
def make_shards(tmp_path: Path) -> Callable[..., Manifest]:
    """Shards of numbered 4x4 images with the given counts; labels are number % 10.

    Blocks hold ``per_block`` samples (of 2048 bytes each); without it, a shard is one block.
    """

    def make(counts: Sequence[int], per_block: int | None = None) -> Manifest:
        folder = tmp_path / "shards"
        folder.mkdir()
        row = 0
        for s, count in enumerate(counts):
            with open(folder / f"{s:03d}.tar", "wb") as file, TarWriter(file, mtime=0) as tar:
                for _ in range(count):
                    tar.write({"__key__": f"{row:05d}", "png": png(numbered(row)), "cls": row % 10})
                    row += 1
        manifest = open_manifest(str(folder))
        return manifest if per_block is None else recut(manifest, 2048 * per_block)

    return make


def recut(manifest: Manifest, block_bytes: int) -> Manifest:
    """The same shards with blocks of another length."""
    tables = [
        index.index_tar(Path(manifest.path(s)), info.name, block_bytes=block_bytes)[1]
        for s, info in enumerate(manifest.shards)
    ]
    return dataclasses.replace(manifest, blocks=index.joined(tables))


@pytest.fixture
def pair_shards(tmp_path: Path) -> Callable[[list[int]], Manifest]:
    """A WebDataset of pairs from elsewhere: input and target carry the same number."""

    def make(counts: list[int]) -> Manifest:
        folder = tmp_path / "pairs"
        folder.mkdir()
        row = 0
        for s, count in enumerate(counts):
            with open(folder / f"{s:03d}.tar", "wb") as file, TarWriter(file, mtime=0) as tar:
                for _ in range(count):
                    grey = numbered(row)
                    colour = np.stack([grey, 255 - grey, grey], -1)
                    members = {"input.png": png(grey), "target.png": png(colour), "cls": row % 3}
                    tar.write({"__key__": f"{row:05d}", **members})
                    row += 1
        return open_manifest(str(folder))

    return make


@pytest.fixture
def arrays(tmp_path: Path) -> Path:
    """A folder with images.npy of 45 numbered grey 8x8 images, and labels.npy."""
    folder = tmp_path / "raw"
    folder.mkdir()
    np.save(folder / "images.npy", np.stack([numbered(i, 8) for i in range(45)]))
    np.save(folder / "labels.npy", np.arange(45) % 5)
    return folder


@pytest.fixture
def labels_by_name() -> Callable[[Any], list[int | None]]:
    """Labels of a source in the order of its files' names: its own order mixes the classes."""

    def labels(source: Any) -> list[int | None]:
        found = {source.describe(i): source.load(i).label for i in range(len(source))}
        return [found[name] for name in sorted(found)]

    return labels
