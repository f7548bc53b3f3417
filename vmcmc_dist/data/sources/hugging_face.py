"""Data sets of the Hugging Face library: saved ones, folders of parquet or arrow files, the hub."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from vmcmc_dist.data.config import DataConfig, cache_dir
from vmcmc_dist.data.fitting import MARGIN
from vmcmc_dist.data.image_header import UndecodableError
from vmcmc_dist.data.manifest import LabelInfo
from vmcmc_dist.data.sources.base import NoSplitError, Raw, missing
from vmcmc_dist.data.sources.folder import ALIASES
from vmcmc_dist.data.sources.images import decode
from vmcmc_dist.errors import ConfigError, DataError, ResourceError

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # before the library is imported

LABELS = ("label", "labels", "class", "fine_label")


class HuggingFace:
    """``root``: a folder written by save_to_disk, a folder of .parquet or .arrow files, or NAME or
    NAME@REVISION on the hub (which is fetched into the library's own cache).

    The images are the only column of them, or ``data.image_column``; the classes the column
    `label`, or ``data.label_column``: numbers, names or ClassLabel. No code of a data set is run
    and nothing is unpickled; images come as encoded bytes and are decoded here, within
    ``data.max_pixels``. Needs the extra `hf`.
    """

    def __init__(self, cfg: DataConfig, root: Path) -> None:
        self.root, self.split, self.max_pixels = cfg.root or str(root), cfg.split, cfg.max_pixels
        self.local, self.side = root if root.exists() else None, cfg.image_size
        self.column, self.label_column = cfg.image_column, cfg.label_column
        data = _opened(self.local, self.root, self.split)
        self._choose(data)
        self.length = min(len(data), cfg.limit or len(data))
        if not self.length:
            raise DataError(f"{self.root}: no samples of split {cfg.split!r}")
        self._data: Any = self._images_only(data)
        self.name = f"huggingface:{root.name}"
        self.licence = str(data.info.license or "unknown: see the data set's page")
        self._read_labels(data)
        first = next((r.value for r in self._decodable()), None)
        if first is None:
            raise DataError(f"{self.root}: none of its first images decodes")
        self.channels = cfg.channels or (1 if first.mode in ("1", "L", "LA") else 3)
        self.image_size = cfg.image_size or min(first.size)

    def _choose(self, data: Any) -> None:
        """The columns of images and of labels."""
        from datasets import Image

        images = [n for n, feature in data.features.items() if isinstance(feature, Image)]
        if self.column is None:
            if len(images) != 1:
                raise ConfigError(
                    f"{self.root}: columns of images: {', '.join(images) or 'none'} (all columns: "
                    f"{', '.join(data.column_names)}); say which with data.image_column"
                )
            self.column = images[0]
        if self.label_column is None:
            self.label_column = next((n for n in LABELS if n in data.features), None)
        for key, name in (("image", self.column), ("label", self.label_column)):
            if name is not None and name not in data.features:
                raise ConfigError(
                    f"data.{key}_column={name}: {self.root} has {', '.join(data.column_names)}"
                )

    def _images_only(self, data: Any) -> Any:
        from datasets import Image

        try:
            return data.select_columns([self.column]).cast_column(self.column, Image(decode=False))
        except (TypeError, ValueError) as error:
            raise ConfigError(f"data.image_column={self.column}: not images ({error})") from None

    def _read_labels(self, data: Any) -> None:
        from datasets import ClassLabel

        self.labels, self.classes = LabelInfo(), None
        if self.label_column is None:
            return
        values = list(data[self.label_column][: self.length])
        if all(value in (None, -1) for value in values):  # how test parts without labels look
            return
        feature = data.features[self.label_column]
        if isinstance(feature, ClassLabel):
            names = tuple(feature.names)
        elif all(isinstance(value, int) for value in values):
            names = tuple(str(c) for c in range(max(values) + 1))
        elif all(isinstance(value, str) for value in values):
            names = tuple(sorted(set(values)))
            number = {name: i for i, name in enumerate(names)}
            values = [number[value] for value in values]
        else:
            raise DataError(f"{self.root}: column {self.label_column!r} is no class a sample")
        if min(values) < 0:
            raise DataError(
                f"{self.root}: column {self.label_column!r} has samples without a class; choose "
                "another split, or another data.label_column"
            )
        self.labels, self.classes = LabelInfo("class", names), [int(value) for value in values]

    def _decodable(self):
        for i in range(min(self.length, 64)):
            try:
                yield self.load(i)
            except UndecodableError:
                continue

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_data": None}

    def __len__(self) -> int:
        return self.length

    def describe(self, i: int) -> str:
        return f"row {i}"

    def load(self, i: int) -> Raw:
        if self._data is None:
            self._data = self._images_only(_opened(self.local, self.root, self.split))
        found = self._data[i][self.column]
        content = None if found is None else found["bytes"]
        if content is None:
            raise UndecodableError(
                f"row {i}: its bytes are not in the data set (paths elsewhere are not followed)"
            )
        at_least = None if self.side is None else MARGIN * self.side
        label = None if self.classes is None else self.classes[i]
        return Raw(decode(content, f"row {i}", self.max_pixels, at_least), label)


def _opened(local: Path | None, root: str, split: str) -> Any:
    try:
        import datasets
    except ImportError:
        raise ResourceError(
            "data.source=huggingface needs the package datasets: pip install 'vmcmc_dist[hf]'"
        ) from None
    datasets.disable_progress_bars()
    try:
        found = _from_files(local) if local is not None else _from_hub(root)
    except (datasets.exceptions.DatasetsError, ValueError, OSError) as error:
        raise DataError(
            f"{root}: cannot be opened as a data set ({type(error).__name__}: "
            f"{str(error).splitlines()[0] if str(error) else ''}); give a folder of save_to_disk, "
            "of .parquet or .arrow files, or a name on the hub that can be reached"
        ) from None
    if not isinstance(found, dict):
        if split in ("train", "all"):
            return found
        raise NoSplitError(f"{root}: one part only; use data.split=train")
    if split == "all":
        return datasets.concatenate_datasets([found[name] for name in sorted(found)])
    name = next((alias for alias in ALIASES[split] if alias in found), None)
    if name is None:
        raise NoSplitError(f"{root}: no split {split!r}; it has {', '.join(found)}")
    return found[name]


def _from_files(folder: Path) -> Any:
    """A data set, or several by split: what the folder holds."""
    import datasets

    if (folder / "dataset_dict.json").exists() or (folder / "state.json").exists():
        return datasets.load_from_disk(str(folder))
    for kind in ("parquet", "arrow"):
        files = sorted(folder.rglob(f"*.{kind}")) if folder.is_dir() else [folder]
        files = [file for file in files if file.suffix == f".{kind}"]
        if files:
            parts: dict[str, list[str]] = {}
            for file in files:
                parts.setdefault(_part(file.relative_to(folder.parent)), []).append(str(file))
            copies = str(cache_dir() / "huggingface")
            return dict(datasets.load_dataset(kind, data_files=parts, cache_dir=copies))
    raise missing(folder, "state.json, or .parquet or .arrow files,", "see data.source=folder")


def _part(path: Path) -> str:
    """The split that a file's folder or the start of its name says; else train."""
    words = [path.name.replace("_", "-").split("-", 1)[0].split(".")[0], *path.parts[1:-1]]
    known = {alias: split for split, aliases in ALIASES.items() for alias in aliases}
    return next((known[word] for word in words if word in known), "train")


def _from_hub(root: str) -> Any:
    import datasets

    name, _, revision = root.partition("@")
    return dict(datasets.load_dataset(name, revision=revision or None))
