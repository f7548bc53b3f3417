"""CIFAR-10 (Krizhevsky 2009) in its binary layout; the Python pickles are never opened."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from vmcmc_dist.data.config import DataConfig
from vmcmc_dist.data.manifest import LabelInfo
from vmcmc_dist.data.sources.base import NoSplitError, Raw, missing
from vmcmc_dist.errors import DataError

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
BINARY = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
RECORD = 1 + 3 * 32 * 32


class Cifar10:
    """``root`` (or its folder cifar-10-batches-bin): data_batch_1..5.bin, test_batch.bin.

    Each record is one label byte, then 3072 bytes: red, green, blue planes of 32x32.
    """

    name = "cifar10"
    licence = "CIFAR-10: research use (Krizhevsky 2009)"
    labels = LabelInfo("class", CLASSES)
    image_size = 32
    channels = 3

    def __init__(self, cfg: DataConfig, root: Path) -> None:
        if (root / "cifar-10-batches-bin").is_dir():
            root = root / "cifar-10-batches-bin"
        patterns = {"train": ["data_batch_*.bin"], "test": ["test_batch.bin"]}
        patterns["all"] = patterns["train"] + patterns["test"]
        if cfg.split not in patterns:
            raise NoSplitError(f"cifar10 has no split {cfg.split!r}; use train, test or all")
        paths = [p for pattern in patterns[cfg.split] for p in sorted(root.glob(pattern))]
        if not paths:
            pickled = (root / "data_batch_1").exists() or (root / "cifar-10-batches-py").exists()
            what = "only Python pickles, which are not safe to open; the .bin files were"
            raise missing(
                root, what if pickled else f"{patterns[cfg.split][0]}", f"download {BINARY}"
            )
        records = [_records(path) for path in paths]
        self.records = np.concatenate(records)[: cfg.limit]

    def __len__(self) -> int:
        return len(self.records)

    def describe(self, i: int) -> str:
        return f"record {i}"

    def load(self, i: int) -> Raw:
        planes = self.records[i, 1:].reshape(3, 32, 32)
        return Raw(Image.fromarray(planes.transpose(1, 2, 0)), int(self.records[i, 0]))


def _records(path: Path) -> np.ndarray:
    content = np.fromfile(path, dtype=np.uint8)
    if content.size == 0 or content.size % RECORD:
        raise DataError(f"{path}: {content.size} bytes is no multiple of {RECORD}; get {BINARY}")
    records = content.reshape(-1, RECORD)
    if records[:, 0].max() > 9:
        raise DataError(f"{path}: labels above 9; this is not CIFAR-10's binary layout")
    return records
