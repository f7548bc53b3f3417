"""A folder of images; its class subfolders, if any, become labels."""

from __future__ import annotations

from pathlib import Path

from vmcmc_dist.data.config import DataConfig
from vmcmc_dist.data.manifest import LabelInfo
from vmcmc_dist.data.sources.base import NoSplitError, Raw, missing
from vmcmc_dist.data.sources.images import EXTENSIONS, ImageFiles
from vmcmc_dist.errors import ConfigError

ALIASES = {"train": ("train",), "valid": ("valid", "val", "validation"), "test": ("test",)}


class Folder:
    """``root``: a folder or zip, read recursively. If it has subfolders train/valid/test they are
    the splits; without them everything is `train`. Below that, first-level subfolders are classes
    if every image lies in one and there are at least two.
    """

    licence = "unknown: a folder of the user's"

    def __init__(self, cfg: DataConfig, root: Path) -> None:
        if cfg.image_size is None:
            raise ConfigError("data.source=folder needs data.image_size, e.g. data.image_size=64")
        self.name = f"folder:{root.name}"
        self.image_size, self.channels = cfg.image_size, cfg.channels or 3
        self.files = ImageFiles(root, cfg.max_pixels)
        paths = [n for n in self.files.names() if Path(n).suffix.lower() in EXTENSIONS]
        if not paths:
            raise missing(root, "any image", f"known are {', '.join(sorted(EXTENSIONS))}")
        paths, depth = _of_split(paths, cfg.split, root)
        parts = [path.split("/")[depth:] for path in paths]
        classes = sorted({p[0] for p in parts}) if all(len(p) > 1 for p in parts) else []
        self.labels = LabelInfo("class", tuple(classes)) if len(classes) > 1 else LabelInfo()
        number = {name: i for i, name in enumerate(self.labels.names)}
        self.paths = paths[: cfg.limit]
        self.classes = [number.get(p[0]) for p in parts][: cfg.limit]

    def __len__(self) -> int:
        return len(self.paths)

    def describe(self, i: int) -> str:
        return self.paths[i]

    def load(self, i: int) -> Raw:
        return Raw(self.files.image(self.paths[i]), self.classes[i])


def _of_split(paths: list[str], split: str, root: Path) -> tuple[list[str], int]:
    """The paths of one split and how many leading folders are not classes."""
    tops = {path.split("/", 1)[0] for path in paths if "/" in path}
    known = {alias for aliases in ALIASES.values() for alias in aliases}
    if not tops or not tops <= known:
        if split in ("train", "all"):
            return paths, 0
        raise NoSplitError(f"{root}: no subfolder {split}/; use data.split=train")
    if split == "all":
        return paths, 1
    chosen = [p for p in paths if p.split("/", 1)[0] in ALIASES[split]]
    if not chosen:
        raise NoSplitError(f"{root}: no images in {' or '.join(ALIASES[split])}/")
    return chosen, 1
