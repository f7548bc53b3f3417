"""LSUN (Yu et al. 2015) as folders, exported from its lmdb files."""

from __future__ import annotations

from pathlib import Path

from vmcmc_dist.data.config import DataConfig
from vmcmc_dist.data.sources.base import NoSplitError
from vmcmc_dist.data.sources.folder import PARTS, Listed, images_of
from vmcmc_dist.data.sources.images import ImageFiles
from vmcmc_dist.errors import DataError

LICENCE = "LSUN: research use (Yu et al. 2015), of photos with licences of their own"


class LSUN(Listed):
    """``root``: folders CATEGORY_train/ and CATEGORY_val/ of images, flat or in nested folders of
    their hashes (a/3/f/…webp), which are no classes; or one such folder itself. The categories
    are the classes.
    """

    def __init__(self, cfg: DataConfig, root: Path) -> None:
        files = ImageFiles(root, cfg.max_pixels, cfg.image_size or 256)
        if any(name.rsplit("/", 1)[-1] == "data.mdb" for name in files.names()):
            raise DataError(
                f"{root}: an lmdb file; export its images first (`python data.py export "
                "bedroom_train_lmdb --out_dir bedroom_train` of https://github.com/fyu/lsun) and "
                "give the folder that holds bedroom_train/"
            )
        paths = images_of(files)
        known = {path.split("/", 1)[0]: _category(path.split("/", 1)[0]) for path in paths}
        if not any(known.values()):
            category, part = _category(root.stem) or (root.name, "train")
            found = {path: (category, part) for path in paths}
        else:
            found = {p: known[p.split("/", 1)[0]] or ("", "") for p in paths}
        chosen = [p for p in paths if found[p][1] and cfg.split in ("all", found[p][1])]
        if not chosen:
            raise NoSplitError(f"{root}: no folders CATEGORY_{cfg.split} with images")
        super().__init__(
            cfg,
            files,
            chosen,
            [found[p][0] for p in chosen],
            name="lsun",
            licence=LICENCE,
            image_size=cfg.image_size or 256,
        )


def _category(folder: str) -> tuple[str, str] | None:
    """``dining_room_train`` → (dining_room, train)."""
    category, _, part = folder.rpartition("_")
    return (category, PARTS[part]) if category and part in PARTS else None
