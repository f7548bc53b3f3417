"""The images that the data benchmarks read: real files where they are given, else drawn ones."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from vmcmc_dist.bench.image_sets import jpeg, noise_photo
from vmcmc_dist.errors import ConfigError, DataError

SIZES = ((64, 64), (256, 256), (481, 321))
"""Width and height of the images measured."""

QUALITY = 95
DRAWN, DRAWN_QUALITY = 32, 90
ENDINGS = (".jpg", ".jpeg")


@dataclass(frozen=True)
class Jpegs:
    """JPEGs of one size, all different, and what they are."""

    width: int
    height: int
    files: tuple[bytes, ...]
    origin: str

    @property
    def name(self) -> str:
        return f"{self.width}x{self.height}"

    @property
    def mean_bytes(self) -> float:
        return sum(map(len, self.files)) / len(self.files)

    def __str__(self) -> str:
        return (
            f"{self.name}: {len(self.files)} {self.origin}, {self.mean_bytes / 1024:.1f} KiB each"
        )


def parse_size(text: str, form: str = "WIDTHxHEIGHT, e.g. 256x256") -> tuple[int, int]:
    """``481x321`` → (481, 321); raises ConfigError, which says ``form``."""
    first, _, second = text.partition("x")
    if not (first.isdigit() and second.isdigit() and int(first) and int(second)):
        raise ConfigError(f"{text!r}: write {form}")
    return int(first), int(second)


def jpegs_of(width: int, height: int, roots: Sequence[Path] = (), limit: int = 1000) -> Jpegs:
    """JPEGs of one size.

    The colour JPEGs below ``roots`` (folders, or tars) that have this size, with their very bytes;
    if there are none, the centres of the larger ones, coded anew; without roots, pictures drawn
    with the spectrum of photos. Raises DataError if the roots hold none that large.
    """
    if not roots:
        return Jpegs(width, height, tuple(_drawn(width, height)), "drawn JPEGs")
    whole: list[bytes] = []
    larger: list[bytes] = []
    for data in _files(roots):
        with Image.open(io.BytesIO(data)) as image:
            if image.mode != "RGB":
                continue
            if image.size == (width, height):
                whole.append(data)
            elif image.width >= width and image.height >= height and len(larger) < limit:
                larger.append(data)
        if len(whole) >= limit:
            break
    if whole:
        return Jpegs(width, height, tuple(whole), "JPEG files")
    if not larger:
        names = ", ".join(map(str, roots))
        raise DataError(f"{names}: no colour JPEG of {width}x{height} or more there")
    cropped = tuple(_centre(data, width, height) for data in larger)
    return Jpegs(width, height, cropped, f"crops of JPEG files, quality {QUALITY}")


def _files(roots: Sequence[Path]) -> Iterator[bytes]:
    for root in roots:
        if root.is_dir():
            for path in sorted(root.rglob("*")):
                if path.suffix.lower() in ENDINGS:
                    yield path.read_bytes()
            continue
        try:
            with tarfile.open(root, "r|*") as tar:
                for member in tar:
                    content = tar.extractfile(member)
                    if content is not None and member.name.lower().endswith(ENDINGS):
                        yield content.read()
        except (tarfile.TarError, EOFError, OSError) as error:
            raise DataError(f"{root}: not a folder or a whole tar of images ({error})") from None


def _centre(data: bytes, width: int, height: int) -> bytes:
    image = Image.open(io.BytesIO(data))
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return jpeg(image.crop((left, top, left + width, top + height)), quality=QUALITY)


def _drawn(width: int, height: int) -> Iterator[bytes]:
    for i in range(DRAWN):
        yield jpeg(Image.fromarray(noise_photo(i, width, height)), quality=DRAWN_QUALITY)
