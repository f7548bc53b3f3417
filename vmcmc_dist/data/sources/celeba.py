"""CelebA (Liu et al., ICCV 2015) as it is distributed, and anything written in its layout."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from vmcmc_dist.data.config import DataConfig
from vmcmc_dist.data.manifest import LabelInfo
from vmcmc_dist.data.sources.base import NoSplitError, Raw, missing
from vmcmc_dist.data.sources.images import EXTENSIONS, ImageFiles
from vmcmc_dist.errors import DataError

FOLDER = "img_align_celeba"
ATTRIBUTES = "list_attr_celeba"
PARTITION = "list_eval_partition"
NOTE = "SOURCE.json"
ALIGNED, CROP = (178, 218), 140
SPLITS = {"train": "0", "valid": "1", "test": "2"}
HOW = (
    "get the aligned images, list_attr_celeba.txt and list_eval_partition.txt from "
    "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html into one folder or zip"
)
LICENCE = "CelebA: non-commercial research only (Liu et al. 2015, MMLAB, CUHK)"


class CelebA:
    """``root``: a folder or zip of img_align_celeba/ (or its zip), the attribute list and the
    partition list (.txt as published, or the .csv of mirrors). A SOURCE.json beside them names a
    look-alike that only shares the layout.
    """

    image_size = 64
    channels = 3

    def __init__(self, cfg: DataConfig, root: Path) -> None:
        files = ImageFiles(root, cfg.max_pixels)
        names = files.names()
        note = _find(names, NOTE)
        self.name, self.licence = "celeba", LICENCE
        if note is not None:
            try:
                about = json.loads(files.read(note))
                self.name, self.licence = str(about["name"]), str(about["licence"])
            except (ValueError, KeyError, TypeError):
                raise DataError(f"{root}: {NOTE} must say name and licence") from None
        partition = _table(files, names, PARTITION, root)
        header, attributes = _header(files, names, root)
        self.labels = LabelInfo("attributes", tuple(header))
        self.files, members = _members(files, names, root, cfg.max_pixels)
        wanted = None if cfg.split == "all" else SPLITS[cfg.split]
        listed = [row for row in partition if wanted is None or row[1] == wanted]
        if not listed:
            raise NoSplitError(f"{root}: {PARTITION} lists no images of split {cfg.split!r}")
        absent = [row[0] for row in listed if row[0] not in attributes]
        if absent:
            raise DataError(f"{root}: {ATTRIBUTES} has no line for {absent[0]}; get it again")
        listed = listed[: cfg.limit] if cfg.limit else listed
        self.paths = [members.get(row[0], row[0]) for row in listed]
        self.attributes = [attributes[row[0]] for row in listed]

    def __len__(self) -> int:
        return len(self.paths)

    def describe(self, i: int) -> str:
        return self.paths[i]

    def load(self, i: int) -> Raw:
        return Raw(centre(self.files.image(self.paths[i])), self.attributes[i])


def centre(image: Image.Image) -> Image.Image:
    """The central 140x140 of a 178x218 image, before it is resized to 64x64.

    The crop of the score-based models (Song et al. 2021, `score_sde`: central_crop(140)); NVAE and
    VAEBM cut 148x148. Images of other sizes are left as they are: square ones are then only
    resized.
    """
    if image.size != ALIGNED:
        return image
    left, top = (ALIGNED[0] - CROP) // 2, (ALIGNED[1] - CROP) // 2
    return image.crop((left, top, left + CROP, top + CROP))


def _find(names: list[str], stem: str) -> str | None:
    for name in names:
        base = name.rsplit("/", 1)[-1]
        if base == stem or base in (f"{stem}.txt", f"{stem}.csv"):
            return name
    return None


def _lines(files: ImageFiles, names: list[str], stem: str, root: Path) -> list[list[str]]:
    name = _find(names, stem)
    if name is None:
        raise missing(root, f"{stem}.txt", HOW)
    text = files.read(name).decode("utf-8", "replace")
    return [line.replace(",", " ").split() for line in text.splitlines() if line.strip()]


def _table(files: ImageFiles, names: list[str], stem: str, root: Path) -> list[list[str]]:
    lines = _lines(files, names, stem, root)
    rows = [row for row in lines if len(row) == 2 and Path(row[0]).suffix in EXTENSIONS]
    if not rows:
        raise DataError(f"{root}: {stem} has no lines of the form `000001.jpg 0`")
    return rows


def _header(
    files: ImageFiles, names: list[str], root: Path
) -> tuple[list[str], dict[str, list[int]]]:
    """Attribute names and, by image, attributes as 0/1 (the files say -1/1)."""
    lines = _lines(files, names, ATTRIBUTES, root)
    if len(lines[0]) == 1 and lines[0][0].isdigit():
        lines = lines[1:]
    header = [name for name in lines[0] if name != "image_id"]
    try:
        table = {row[0]: [int(int(value) > 0) for value in row[1:]] for row in lines[1:]}
    except ValueError as error:
        raise DataError(f"{root}: {ATTRIBUTES}: {error}; get it again") from None
    uneven = [name for name, row in table.items() if len(row) != len(header)]
    if uneven:
        raise DataError(f"{root}: {ATTRIBUTES}: {uneven[0]} has not {len(header)} values")
    return header, table


def _members(
    files: ImageFiles, names: list[str], root: Path, max_pixels: int
) -> tuple[ImageFiles, dict[str, str]]:
    """Where the images are: base name → member. A zip of images inside the folder counts."""
    images = {n.rsplit("/", 1)[-1]: n for n in names if Path(n).suffix.lower() in EXTENSIONS}
    if not images and not files.is_zip and (root / f"{FOLDER}.zip").exists():
        files = ImageFiles(root / f"{FOLDER}.zip", max_pixels)
        images = {n.rsplit("/", 1)[-1]: n for n in files.names()}
    if not images:
        raise missing(root, f"{FOLDER}/*.jpg", HOW)
    return files, images
