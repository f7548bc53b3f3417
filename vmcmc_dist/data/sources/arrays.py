"""NumPy arrays: images or vectors in .npy files. Never unpickled."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from vmcmc_dist.data.config import DataConfig
from vmcmc_dist.data.manifest import LabelInfo
from vmcmc_dist.data.sources.base import NoSplitError, Raw, missing
from vmcmc_dist.errors import DataError


class Arrays:
    """``root``: one .npy, or a folder with SPLIT.npy (else images.npy, vectors.npy) and optionally
    SPLIT_labels.npy (else labels.npy).

    Images: uint8 [N, H, W], [N, H, W, C] or [N, C, H, W] with C = 1 or 3. Vectors: float32 [N, D].
    Labels: integers [N].
    """

    licence = "unknown: arrays of the user's"

    def __init__(self, cfg: DataConfig, root: Path) -> None:
        self.name = f"arrays:{root.stem}"
        path, labels = _paths(root, cfg.split)
        self.path, self.limit = path, cfg.limit
        self.values = _open(path)[: cfg.limit]
        self.channels_first = False
        if self.values.ndim == 2 and self.values.dtype == np.float32:
            self.image_size, self.channels = None, 0
            if not np.isfinite(self.values).all():
                raise DataError(f"{path}: values that are not finite")
        else:
            self._check_images()
        self.classes = None
        self.labels = LabelInfo()
        if labels is not None:
            self.classes = _open(labels)[: cfg.limit]
            if self.classes.shape != (len(self.values),) or self.classes.dtype.kind not in "iu":
                raise DataError(f"{labels}: expected {len(self.values)} integers, one a sample")
            if self.classes.min() < 0:
                raise DataError(f"{labels}: negative classes")
            names = tuple(str(c) for c in range(int(self.classes.max()) + 1))
            self.labels = LabelInfo("class", names)

    def _check_images(self) -> None:
        shape, dtype = self.values.shape, self.values.dtype
        if dtype != np.uint8 or len(shape) not in (3, 4):
            raise DataError(
                f"{self.path}: {dtype}{shape}; expected uint8 images [N,H,W(,C)] or [N,C,H,W], "
                "or float32 vectors [N,D]"
            )
        if len(shape) == 4 and shape[-1] not in (1, 3):
            if shape[1] not in (1, 3):
                raise DataError(f"{self.path}: {shape} has neither 1 nor 3 channels")
            self.channels_first = True
        self.channels = 1 if len(shape) == 3 else shape[1 if self.channels_first else -1]
        self.image_size = shape[-1] if self.channels_first else shape[2]

    def __getstate__(self) -> dict:
        return {**self.__dict__, "values": None}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self.values = _open(self.path)[: self.limit]

    def __len__(self) -> int:
        return len(self.values)

    def describe(self, i: int) -> str:
        return f"{self.path.name}[{i}]"

    def load(self, i: int) -> Raw:
        label = None if self.classes is None else int(self.classes[i])
        value = np.asarray(self.values[i])
        if self.image_size is None:
            return Raw(value, label)
        if self.channels_first:
            value = value.transpose(1, 2, 0)
        return Raw(
            Image.fromarray(
                value[..., 0]
                if value.ndim == 3 and value.shape[-1] == 1
                else np.ascontiguousarray(value)
            ),
            label,
        )


def _paths(root: Path, split: str) -> tuple[Path, Path | None]:
    if split in ("valid", "test") and not (root / f"{split}.npy").is_file():
        raise NoSplitError(f"{root}: no {split}.npy, so no split {split!r}; use data.split=train")
    if root.is_file():
        labels = root.with_name(f"{root.stem}_labels.npy")
        return root, labels if labels.exists() else None
    stems = [split, "images", "vectors"]
    path = next((root / f"{s}.npy" for s in stems if (root / f"{s}.npy").exists()), None)
    if path is None:
        raise missing(root, " or ".join(f"{s}.npy" for s in stems), "save one with numpy.save")
    names = [f"{path.stem}_labels.npy", "labels.npy"]
    return path, next((root / n for n in names if (root / n).exists()), None)


def _open(path: Path) -> np.ndarray:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise DataError(f"{path}: not a .npy array ({error})") from None
    if array.ndim == 0 or len(array) == 0:
        raise DataError(f"{path}: no samples in it")
    return array
