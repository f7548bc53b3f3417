"""Folders of images: the machinery that the layouts share, and the plain folder with classes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from vmcmc_dist.data.config import DataConfig
from vmcmc_dist.data.image_header import UndecodableError
from vmcmc_dist.data.manifest import LabelInfo
from vmcmc_dist.data.sources.base import NoSplitError, Raw, missing
from vmcmc_dist.data.sources.images import EXTENSIONS, ImageFiles
from vmcmc_dist.errors import ConfigError

ALIASES = {"train": ("train",), "valid": ("valid", "val", "validation"), "test": ("test",)}
PARTS = {alias: split for split, aliases in ALIASES.items() for alias in aliases}
"""Name of a subfolder → the split that it is."""


class Listed:
    """A source of image files, each with a class or none: what every folder comes down to."""

    channels = 3

    def __init__(
        self,
        cfg: DataConfig,
        files: ImageFiles,
        paths: Sequence[str],
        classes: Sequence[str | None],
        *,
        name: str,
        licence: str,
        image_size: int | None,
    ) -> None:
        """``classes`` are names, numbered in their order of sorting; fewer than two are none.

        Images of several classes are mixed: a reader shuffles within windows, and the first
        ``data.limit`` images must not be those of the first classes alone.
        """
        self.name, self.licence, self.files = name, licence, files
        names = sorted({c for c in classes if c is not None})
        self.labels = LabelInfo("class", tuple(names)) if len(names) > 1 else LabelInfo()
        number = {c: i for i, c in enumerate(self.labels.names)}
        order = mixed(paths) if len(names) > 1 else list(range(len(paths)))
        chosen = order[: cfg.limit]
        self.paths = [paths[i] for i in chosen]
        self.classes = [None if (c := classes[i]) is None else number.get(c) for i in chosen]
        self.channels = cfg.channels or self.channels
        self.image_size = image_size or cfg.image_size or self.own_size()

    def __len__(self) -> int:
        return len(self.paths)

    def describe(self, i: int) -> str:
        return self.paths[i]

    def load(self, i: int) -> Raw:
        return Raw(self.files.image(self.paths[i]), self.classes[i])

    def own_size(self) -> int:
        """Shorter side of the first image that decodes."""
        for path in self.paths:
            try:
                return min(self.files.image(path).size)
            except UndecodableError:
                continue
        raise missing(self.files.root, "an image that decodes", "check data.root")


class Folder(Listed):
    """``root``: a folder or zip, read recursively. If it has subfolders train/valid/test they are
    the splits; without them everything is `train`. Below that, first-level subfolders are classes
    if every image lies in one and there are at least two.
    """

    def __init__(self, cfg: DataConfig, root: Path) -> None:
        if cfg.image_size is None:
            raise ConfigError("data.source=folder needs data.image_size, e.g. data.image_size=64")
        files = ImageFiles(root, cfg.max_pixels, cfg.image_size)
        paths, depth = of_split(images_of(files), cfg.split, root)
        super().__init__(
            cfg,
            files,
            paths,
            classes_of(paths, depth),
            name=f"folder:{root.name}",
            licence="unknown: a folder of the user's",
            image_size=cfg.image_size,
        )


def mixed(paths: Sequence[str]) -> list[int]:
    """Places of the paths in the order of their SHA-256: as good as by chance, and the same on any
    machine and with any version of anything."""
    return sorted(range(len(paths)), key=lambda i: hashlib.sha256(paths[i].encode()).digest())


def images_of(files: ImageFiles, below: str = "") -> list[str]:
    """Names of the image files below a folder; raises DataError if there are none."""
    paths = [n for n in files.names() if PurePosixPath(n).suffix.lower() in EXTENSIONS]
    paths = [n for n in paths if n.startswith(below)]
    if not paths:
        raise missing(files.root, f"{below}any image", f"known are {', '.join(sorted(EXTENSIONS))}")
    return paths


def classes_of(paths: Sequence[str], depth: int) -> list[str | None]:
    """The folder behind the first ``depth`` of each path, if every path has one there."""
    parts = [path.split("/")[depth:] for path in paths]
    return [p[0] for p in parts] if all(len(p) > 1 for p in parts) else [None] * len(parts)


def by_number(paths: Sequence[str]) -> list[str]:
    """Paths in the order of the numbers that their files are named by, 2.jpg before 10.jpg."""

    def key(path: str) -> tuple[bool, int, str]:
        stem = PurePosixPath(path).stem
        return (not stem.isdecimal(), int(stem) if stem.isdecimal() else 0, path)

    return sorted(paths, key=key)


def of_split(paths: list[str], split: str, root: Path) -> tuple[list[str], int]:
    """The paths of one split and how many leading folders are not classes."""
    tops = {path.split("/", 1)[0] for path in paths if "/" in path}
    if not tops or not tops <= PARTS.keys():
        if split in ("train", "all"):
            return paths, 0
        raise NoSplitError(f"{root}: no subfolder {split}/; use data.split=train")
    if split == "all":
        return paths, 1
    chosen = [p for p in paths if p.split("/", 1)[0] in ALIASES[split]]
    if not chosen:
        raise NoSplitError(f"{root}: no images in {' or '.join(ALIASES[split])}/")
    return chosen, 1
