"""CelebA-HQ (Karras et al. 2018) and FFHQ (Karras et al. 2019) as they are distributed."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from vmcmc_dist.data.config import DataConfig
from vmcmc_dist.data.sources.base import NoSplitError, missing
from vmcmc_dist.data.sources.folder import PARTS, Listed, by_number, classes_of, images_of, of_split
from vmcmc_dist.data.sources.images import ImageFiles
from vmcmc_dist.errors import DataError

FFHQ_TRAIN = 60_000
"""Images 0 to 59,999 of FFHQ are its training part, 60,000 to 69,999 the validation part."""


class CelebAHQ(Listed):
    """``root``: a folder or zip of N.jpg or N.png (also below CelebA-HQ-img/), all of it the
    training part; or, as StarGAN v2 gives it out, train/ and val/ with female/ and male/ below.
    """

    def __init__(self, cfg: DataConfig, root: Path) -> None:
        files = ImageFiles(root, cfg.max_pixels, cfg.image_size)
        paths = images_of(files)
        inner = [p for p in paths if "CelebA-HQ-img" in p.split("/")[:-1]]
        paths = inner or paths  # the masks of CelebAMask-HQ lie beside it
        depth = 0
        top = {path.split("/", 1)[0] for path in paths}
        if len(top) == 1 and "/" in paths[0] and not top <= PARTS.keys():
            depth = 1  # a zip with its folder: celeba_hq/train/male/…
        cut = {path.split("/", depth)[-1]: path for path in paths}
        chosen, parts = of_split(list(cut), cfg.split, root)
        chosen = by_number(chosen) if not parts else chosen
        super().__init__(
            cfg,
            files,
            [cut[path] for path in chosen],
            classes_of(chosen, parts) if parts else [None] * len(chosen),
            name="celeba_hq",
            licence="CelebA-HQ: CC BY-NC 4.0, of CelebA (non-commercial research only)",
            image_size=None,
        )


class FFHQ(Listed):
    """``root``: a folder or zip of NNNNN.png, flat or in folders of a thousand (00000/00000.png),
    which are no classes; or the folder that holds images1024x1024/ and thumbnails128x128/: the
    thumbnails are taken for ``data.image_size`` up to 128.

    Splits by number, as published: train is 0 to 59,999, valid the rest.
    """

    def __init__(self, cfg: DataConfig, root: Path) -> None:
        files = ImageFiles(root, cfg.max_pixels, cfg.image_size)
        paths = _of_size(images_of(files), cfg.image_size)
        numbered = [p for p in by_number(paths) if PurePosixPath(p).stem.isdecimal()]
        if not numbered:
            raise missing(root, "00000.png, 00001.png, …", "data.source=folder takes other names")
        if len({PurePosixPath(p).stem for p in numbered}) != len(numbered):
            raise DataError(f"{root}: images of the same number; give the folder of one size")
        if cfg.split == "test":
            raise NoSplitError("ffhq has no split 'test'; use train, valid or all")
        wanted = {"train": (0, FFHQ_TRAIN), "valid": (FFHQ_TRAIN, None), "all": (0, None)}
        first, stop = wanted[cfg.split]
        chosen = [
            p
            for p in numbered
            if int(PurePosixPath(p).stem) >= first
            and (stop is None or int(PurePosixPath(p).stem) < stop)
        ]
        if not chosen:
            raise NoSplitError(f"{root}: no images of split {cfg.split!r}; use data.split=all")
        super().__init__(
            cfg,
            files,
            chosen,
            [None] * len(chosen),
            name="ffhq",
            licence="FFHQ: CC BY-NC-SA 4.0 (NVIDIA), of photos with licences of their own",
            image_size=None,
        )


def _of_size(paths: list[str], size: int | None) -> list[str]:
    """One of the two sizes, where both are there."""
    small = [p for p in paths if "thumbnails128x128" in p.split("/")[:-1]]
    large = [p for p in paths if "images1024x1024" in p.split("/")[:-1]]
    if small and large:
        return small if size is not None and size <= 128 else large
    return small or large or paths
