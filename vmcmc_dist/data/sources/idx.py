"""MNIST (LeCun et al. 1998) and Fashion-MNIST (Xiao et al. 2017) in their idx files."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from vmcmc_dist.data.config import DataConfig
from vmcmc_dist.data.manifest import LabelInfo
from vmcmc_dist.data.sources.base import NoSplitError, Raw, missing
from vmcmc_dist.errors import DataError

PARTS = {"train": ("train",), "test": ("t10k",), "all": ("train", "t10k")}
IMAGES_MAGIC, LABELS_MAGIC = 2051, 2049


class Idx:
    """``root``: {train,t10k}-images-idx3-ubyte and -labels-idx1-ubyte, raw or .gz."""

    name: str
    licence: str
    labels: LabelInfo
    where: str
    image_size = 28
    channels = 1

    def __init__(self, cfg: DataConfig, root: Path) -> None:
        if cfg.split not in PARTS:
            raise NoSplitError(f"{self.name} has no split {cfg.split!r}; use train, test or all")
        how = f"get the four idx files from {self.where}"
        parts = PARTS[cfg.split]
        images = [_idx(root, f"{p}-images-idx3-ubyte", IMAGES_MAGIC, how) for p in parts]
        classes = [_idx(root, f"{p}-labels-idx1-ubyte", LABELS_MAGIC, how) for p in parts]
        self.images = np.concatenate(images)[: cfg.limit]
        self.classes = np.concatenate(classes)[: cfg.limit]
        if len(self.images) != len(self.classes):
            raise DataError(f"{root}: {len(self.images)} images but {len(self.classes)} labels")

    def __len__(self) -> int:
        return len(self.images)

    def describe(self, i: int) -> str:
        return f"image {i}"

    def load(self, i: int) -> Raw:
        return Raw(Image.fromarray(self.images[i]), int(self.classes[i]))


class Mnist(Idx):
    """Handwritten digits, 28x28 grey."""

    name = "mnist"
    licence = "MNIST: CC BY-SA 3.0 (LeCun, Cortes, Burges)"
    labels = LabelInfo("class", tuple("0123456789"))
    where = "https://ossci-datasets.s3.amazonaws.com/mnist/"


class FashionMnist(Idx):
    """Articles of clothing, 28x28 grey."""

    name = "fashion_mnist"
    licence = "Fashion-MNIST: MIT (Zalando SE)"
    labels = LabelInfo(
        "class",
        (
            "T-shirt/top",
            "Trouser",
            "Pullover",
            "Dress",
            "Coat",
            "Sandal",
            "Shirt",
            "Sneaker",
            "Bag",
            "Ankle boot",
        ),
    )
    where = "https://github.com/zalandoresearch/fashion-mnist"


def _idx(root: Path, name: str, magic: int, how: str) -> np.ndarray:
    """One idx file: big-endian int32 magic and sizes, then bytes."""
    path = next((p for p in (root / f"{name}.gz", root / name) if p.is_file()), None)
    if path is None:
        raise missing(root, f"{name} (or .gz)", how)
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == ".gz" else content
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({error}); {how}") from None
    dims = magic & 0xFF
    header = np.frombuffer(content[: 4 * (1 + dims)], dtype=">i4")
    if len(header) != 1 + dims or header[0] != magic:
        raise DataError(f"{path}: not an idx file of {dims} dimensions; {how}")
    sizes = [int(n) for n in header[1:]]
    pixels = np.frombuffer(content, dtype=np.uint8, offset=4 * (1 + dims))
    if pixels.size != np.prod(sizes):
        raise DataError(f"{path}: torn, {pixels.size} of {np.prod(sizes)} bytes; {how}")
    return pixels.reshape(sizes)
