"""Decoding raw image files, from a folder or from inside a zip or tar."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path

from PIL import Image

from vmcmc_dist.data.fitting import MARGIN, MODES, centred, open_image
from vmcmc_dist.data.image_header import UndecodableError
from vmcmc_dist.errors import DataError

EXTENSIONS = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}

__all__ = ["EXTENSIONS", "MODES", "ImageFiles", "decode", "resized", "square"]


def decode(data: bytes, name: str, max_pixels: int, at_least: int | None = None) -> Image.Image:
    """Decode one image; raises UndecodableError, also for images of more than ``max_pixels``.

    A JPEG comes at 1/2, 1/4 or 1/8 where that leaves both sides ``at_least`` so many pixels;
    :func:`square` then still cuts the very centre. Do not crop it by other means.
    """
    try:
        return open_image(data, max_pixels, at_least)
    except UndecodableError as error:
        raise UndecodableError(f"{name}: {error}") from None


def resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Antialiased (Lanczos). PIL takes the nearest pixel of palette images: their values are
    names, and are not blended.
    """
    return image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)


def square(image: Image.Image, side: int) -> Image.Image:
    """Centre crop to a square, then resized to ``side``."""
    return centred(image, side, side)


MOST_BYTES = 256 << 20
"""Of a member of a zip, which may inflate; more only where ``max_pixels`` allows for it."""


class ImageFiles:
    """Files of a folder, or members of a zip or an uncompressed tar, by name.

    ``side``: of the (largest) square that the whole images are then fitted to by :func:`square`;
    with it, large JPEGs are decoded at 1/2, 1/4 or 1/8. Without it every image is decoded whole,
    as it must be before any other crop. Opened lazily, so that it pickles.
    """

    def __init__(self, root: Path, max_pixels: int, side: int | None = None) -> None:
        self.root, self.max_pixels = root, max_pixels
        self.at_least = None if side is None else MARGIN * side
        self.is_zip = root.suffix.lower() == ".zip"
        self.is_tar = root.suffix.lower() == ".tar"
        self._zip: zipfile.ZipFile | None = None
        self._tar: tuple[tarfile.TarFile, dict[str, tarfile.TarInfo]] | None = None

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_zip": None, "_tar": None}

    def archive(self) -> zipfile.ZipFile:
        """The open zip; raises DataError if it is not one."""
        if self._zip is None:
            try:
                self._zip = zipfile.ZipFile(self.root)
            except (zipfile.BadZipFile, OSError) as error:
                raise DataError(f"{self.root}: not a readable zip ({error})") from None
        return self._zip

    def tar(self) -> tuple[tarfile.TarFile, dict[str, tarfile.TarInfo]]:
        """The open tar and its files by name; raises DataError if it is not one."""
        if self._tar is None:
            try:
                file = tarfile.open(self.root, "r:")
                files = {m.name.removeprefix("./"): m for m in file.getmembers() if m.isfile()}
            except (tarfile.TarError, OSError) as error:
                raise DataError(f"{self.root}: not a readable tar ({error})") from None
            self._tar = file, files
        return self._tar

    def names(self) -> list[str]:
        """All file names, with / between folders, sorted."""
        if self.is_tar:
            return sorted(self.tar()[1])
        if self.is_zip:
            return sorted(n for n in self.archive().namelist() if not n.endswith("/"))
        return sorted(
            p.relative_to(self.root).as_posix() for p in self.root.rglob("*") if p.is_file()
        )

    def read(self, name: str) -> bytes:
        """The bytes of one file; raises UndecodableError if it is missing or torn, or inflates to
        more than any image of ``max_pixels`` can have. DataError for a name that leaves the folder.
        """
        if name.startswith(("/", "~")) or "\\" in name or ".." in name.split("/"):
            raise DataError(f"{self.root}: file name {name!r} leaves the folder; refused")
        try:
            if self.is_zip:
                size = self.archive().getinfo(name).file_size
                if size > max(MOST_BYTES, 8 * self.max_pixels):
                    raise UndecodableError(f"{self.root / name}: {size} bytes, too many")
                return self.archive().read(name)
            if self.is_tar:
                tar, files = self.tar()
                member = tar.extractfile(files[name])
                return member.read() if member else b""
            return (self.root / name).read_bytes()
        except (OSError, KeyError, zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
            raise UndecodableError(f"{self.root / name}: cannot be read ({error})") from None

    def image(self, name: str) -> Image.Image:
        """One decoded image."""
        return decode(self.read(name), f"{self.root / name}", self.max_pixels, self.at_least)
