"""ImageNet (ILSVRC 2012, Russakovsky et al. 2015) as it is unpacked."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from vmcmc_dist.data.config import DataConfig
from vmcmc_dist.data.sources.base import NoSplitError, missing
from vmcmc_dist.data.sources.folder import ALIASES, Listed, images_of
from vmcmc_dist.data.sources.images import ImageFiles
from vmcmc_dist.errors import DataError

SYNSET = re.compile(r"n\d{8}")
HOW = (
    "give the folder that holds train/ (n01440764/*.JPEG, …) and val/, see "
    "https://image-net.org/challenges/LSVRC/2012/"
)
TRUTHS = (
    "LOC_val_solution.csv", "imagenet_2012_validation_synset_labels.txt", "val.txt",
    "ILSVRC2012_validation_ground_truth.txt",
)  # fmt: skip
"""Files that say the classes of a flat val/, beside it or above; the last one counts the classes
in an order of its own, which map_clsloc.txt (`n02119789 1 kit_fox`) must tell."""


class ImageNet(Listed):
    """``root``: train/SYNSET/*.JPEG and val/, with SYNSET folders or flat with one of TRUTHS;
    the folder may lie in ILSVRC/Data/CLS-LOC/. Classes are the synset ids, sorted.

    CMYK files and PNGs that are named .JPEG, as it has some, are read as what they are.
    """

    def __init__(self, cfg: DataConfig, root: Path) -> None:
        files = ImageFiles(root, cfg.max_pixels, cfg.image_size or 256)
        paths = images_of(files)
        if cfg.split == "test":
            raise NoSplitError("imagenet has no classes of split 'test'; use train or valid")
        splits = ("train", "valid") if cfg.split == "all" else (cfg.split,)
        chosen: list[tuple[str, str]] = []
        for split in splits:
            found = [p for p in paths if _of(p, split)]
            if not found:
                raise NoSplitError(f"{root}: no images in {' or '.join(ALIASES[split])}/; {HOW}")
            chosen += _with_classes(found, files, root)
        super().__init__(
            cfg,
            files,
            [path for path, _ in chosen],
            [synset for _, synset in chosen],
            name="imagenet",
            licence="ImageNet: non-commercial research and education only",
            image_size=cfg.image_size or 256,
        )


def _of(path: str, split: str) -> bool:
    """Whether a path is of a split: train/… or ILSVRC/Data/CLS-LOC/train/…"""
    folders = path.split("/")[:-1]
    return any(folder in ALIASES[split] for folder in folders[:4])


def _with_classes(paths: list[str], files: ImageFiles, root: Path) -> list[tuple[str, str]]:
    folders = [path.split("/")[-2] for path in paths]
    if all(SYNSET.fullmatch(folder) for folder in folders):
        return list(zip(paths, folders, strict=True))
    if any(SYNSET.fullmatch(folder) for folder in folders):
        raise DataError(f"{root}: some images lie in folders of synsets, others do not; {HOW}")
    truth = _truth(files, root, paths)
    stems = [path.rsplit("/", 1)[-1].split(".")[0] for path in paths]
    unknown = [stem for stem in stems if stem not in truth]
    if unknown:
        raise DataError(f"{root}: no class is given for {unknown[0]}; get {TRUTHS[0]} again")
    return [(path, truth[stem]) for path, stem in zip(paths, stems, strict=True)]


def _truth(files: ImageFiles, root: Path, paths: list[str]) -> dict[str, str]:
    """Image's stem → synset, of a flat folder."""
    texts = {n.rsplit("/", 1)[-1]: n for n in files.names() if n.endswith((".txt", ".csv"))}
    stems = sorted(path.rsplit("/", 1)[-1].split(".")[0] for path in paths)
    for name in TRUTHS:
        if name in texts:
            lines = files.read(texts[name]).decode("utf-8", "replace").split("\n")
            rows = [line.replace(",", " ").split() for line in lines if line.strip()]
            return READERS[name](rows, stems, files, texts, root)
    raise missing(root, f"the classes of val/ (one of {', '.join(TRUTHS)})", HOW)


def _solution(rows, stems, files, texts, root) -> dict[str, str]:
    """`ILSVRC2012_val_00048981,n03995372 85 1 499 272`"""
    return {row[0]: row[1] for row in rows if len(row) > 1 and SYNSET.fullmatch(row[1])}


def _synsets(rows, stems, files, texts, root) -> dict[str, str]:
    """A synset a line, in the order of the files."""
    return dict(zip(stems, _as_many(rows, stems, root), strict=True))


def _numbered(rows, stems, files, texts, root) -> dict[str, str]:
    """`ILSVRC2012_val_00000001.JPEG 65`: the class is counted from 0 in the order of train/."""
    names = sorted({p.split("/")[-2] for p in files.names() if _of(p, "train")})
    names = [name for name in names if SYNSET.fullmatch(name)]
    try:
        return {row[0].split(".")[0]: names[int(row[1])] for row in rows}
    except (ValueError, IndexError):
        raise DataError(
            f"{root}: val.txt counts classes that train/ does not have; {HOW}"
        ) from None


def _ground_truth(rows, stems, files, texts, root) -> dict[str, str]:
    """A number a line, in the order of the files; map_clsloc.txt tells the synset of a number."""
    if "map_clsloc.txt" not in texts:
        raise missing(root, f"map_clsloc.txt, for the numbers in {TRUTHS[-1]},", HOW)
    lines = files.read(texts["map_clsloc.txt"]).decode("utf-8", "replace").split("\n")
    synset = {row[1]: row[0] for row in (line.split() for line in lines) if len(row) > 1}
    numbers = _as_many(rows, stems, root)
    unknown = [n for n in numbers if n not in synset]
    if unknown:
        raise DataError(f"{root}: map_clsloc.txt has no class {unknown[0]}")
    return {stem: synset[n] for stem, n in zip(stems, numbers, strict=True)}


def _as_many(rows: list[list[str]], stems: list[str], root: Path) -> list[str]:
    if len(rows) != len(stems):
        raise DataError(f"{root}: classes of {len(rows)} images, but {len(stems)} images in val/")
    return [row[0] for row in rows]


READERS: dict[str, Callable[..., dict[str, str]]] = dict(
    zip(TRUTHS, (_solution, _synsets, _numbered, _ground_truth), strict=True)
)
