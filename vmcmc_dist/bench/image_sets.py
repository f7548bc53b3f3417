"""Encoded images to measure decoding with: a user's files, or made by a program."""

from __future__ import annotations

import io
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from vmcmc_dist.data.faces import render
from vmcmc_dist.data.fitting import open_image, plain
from vmcmc_dist.data.image_header import JPEG, PNG
from vmcmc_dist.data.sources.images import EXTENSIONS, ImageFiles, square
from vmcmc_dist.errors import DataError

SIDES = (64, 256)
COMMONEST = 3


@dataclass(frozen=True)
class ImageSet:
    """Files of one format, size and number of channels, in memory."""

    source: str
    extension: str
    width: int
    height: int
    channels: int
    files: list[bytes]

    def __str__(self) -> str:
        grey = " grey" if self.channels == 1 else ""
        return f"{self.source}, {self.width}x{self.height}{grey} {self.extension}"


def files_of(root: Path, number: int, max_pixels: int) -> list[ImageSet]:
    """Up to ``number`` images of each of the commonest sizes in a folder, zip or tar, as they are,
    and remade at 64 and 256 pixels as preparation stores them where there are none so small.

    Raises DataError if nothing there is a grey or RGB JPEG, PNG or WebP.
    """
    files = ImageFiles(root.expanduser(), max_pixels)
    groups: defaultdict[tuple[str, int, int, int], list[bytes]] = defaultdict(list)
    for name in files.names():
        if Path(name).suffix.lower() not in EXTENSIONS:
            continue
        data = files.read(name)
        found = plain(data)
        if found is not None and found.width * found.height <= max_pixels:
            group = groups[_format(data), *found]
            if len(group) < number:
                group.append(data)
    if not groups:
        raise DataError(f"{root}: no grey or RGB JPEG, PNG or WebP there; give another --root")
    common = sorted(groups, key=lambda key: (-len(groups[key]), key))[:COMMONEST]
    sets = [ImageSet("as it is", *key, groups[key]) for key in common]
    large = max(sets, key=lambda images: images.width * images.height)
    for side in SIDES:
        if min(large.width, large.height) > side and all(s.width != side for s in sets):
            pictures = [square(open_image(data, max_pixels), side) for data in large.files]
            coded = [jpeg(picture, quality=95, subsampling=0) for picture in pictures]
            sets.append(ImageSet("remade", "jpg", side, side, large.channels, coded))
    return sets


def made(number: int) -> list[ImageSet]:
    """Built-in faces and noise with the spectrum of photographs (amplitude ~ 1/frequency)."""
    faces = [Image.fromarray(render(i, 64)) for i in range(number)]
    few = max(1, number // 5)
    photos = [Image.fromarray(noise_photo(i, 481, 321)) for i in range(few)]
    large = [Image.fromarray(noise_photo(i, 1024, 1024)) for i in range(max(1, number // 25))]
    small = [square(face, 32) for face in faces]
    digits = [square(face.convert("L"), 28) for face in faces]
    at_256 = [square(photo, 256) for photo in photos]
    stored = {"quality": 95, "subsampling": 0}
    return [
        ImageSet("faces", "jpg", 64, 64, 3, [jpeg(face, **stored) for face in faces]),
        ImageSet("noise", "jpg", 256, 256, 3, [jpeg(photo, **stored) for photo in at_256]),
        ImageSet("noise", "jpg", 481, 321, 3, [jpeg(photo, quality=90) for photo in photos]),
        ImageSet("noise", "jpg", 1024, 1024, 3, [jpeg(photo, quality=90) for photo in large]),
        ImageSet("faces", "png", 28, 28, 1, [png(digit) for digit in digits]),
        ImageSet("faces", "png", 32, 32, 3, [png(face) for face in small]),
        ImageSet("faces", "png", 64, 64, 3, [png(face) for face in faces]),
    ]


def noise_photo(seed: int, width: int, height: int) -> np.ndarray:
    """uint8 [height, width, 3]: Gaussian noise of amplitude 1/frequency, mostly grey."""
    generator = np.random.default_rng(seed)
    white = generator.standard_normal((height, width, 4))
    vertical, horizontal = np.fft.fftfreq(height), np.fft.rfftfreq(width)
    frequency = np.hypot(vertical[:, None], horizontal[None])[..., None]
    frequency[0, 0] = np.inf
    pink = np.fft.irfft2(
        np.fft.rfft2(white, axes=(0, 1)) / frequency, s=(height, width), axes=(0, 1)
    )
    pink /= pink.std(axis=(0, 1))
    return np.clip(128 + 45 * pink[..., 3:] + 15 * pink[..., :3], 0, 255).astype(np.uint8)


def jpeg(image: Image.Image, **options: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return buffer.getvalue()


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _format(data: bytes) -> str:
    return "jpg" if data[:3] == JPEG else "png" if data[:8] == PNG else "webp"
