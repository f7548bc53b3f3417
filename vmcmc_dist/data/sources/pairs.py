"""Pairs of aligned images: an input and a target of the same size."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from PIL import Image

from vmcmc_dist.data.config import DataConfig
from vmcmc_dist.data.manifest import LabelInfo
from vmcmc_dist.data.sources.base import Raw, UndecodableError
from vmcmc_dist.data.sources.images import EXTENSIONS, MODES, ImageFiles, resized, square
from vmcmc_dist.data.sources.pair_names import Pair, Pattern, match_pairs, of_split
from vmcmc_dist.errors import ConfigError, DataError

BLOCK = 16  # pairs held decoded, so that neighbouring samples are of different pairs

CHANNELS = {
    "1": 1, "L": 1, "LA": 1, "P": 3, "PA": 3, "RGB": 3, "RGBA": 3, "CMYK": 3, "YCbCr": 3,
}  # fmt: skip
"""Channels of an image by its mode; others (16 bits, floats) are refused."""


class Pairs:
    """``root``: a folder, zip or tar in which ``data.input`` and ``data.target`` name the images.

        data.input=*.edge.png    data.target=*.photo.jpg      ID.edge.png with ID.photo.jpg
        data.input=*.png         data.target=*.jpg            CMP facades: label maps → photos
        data.input=input/*       data.target=target/*         input/7.png with target/7.jpg
        data.input=*.jpg:left    data.target=*.jpg:right      pix2pix: both in one image, A|B

    Splits: see :func:`~vmcmc_dist.data.sources.pair_names.of_split`.

    With ``data.crops`` a pair gives that many samples: aligned random crops of side
    ``data.image_size``, a function of the pair's stem and the crop's number; else one, its centre.
    Palette images (label maps) become RGB and are resized without blending.
    """

    licence = "unknown: pairs of the user's"
    labels = LabelInfo()

    def __init__(self, cfg: DataConfig, root: Path) -> None:
        if cfg.image_size is None:
            raise ConfigError("data.source=pairs needs data.image_size, e.g. data.image_size=64")
        if cfg.crop_resize is not None and not (cfg.crops and cfg.crop_resize >= cfg.image_size):
            raise ConfigError(
                f"data.crop_resize={cfg.crop_resize} is for data.crops ≥ 1, and not below "
                f"data.image_size={cfg.image_size}"
            )
        self.name, self.image_size = f"pairs:{root.name}", cfg.image_size
        self.crops, self.crop_resize, self.limit = cfg.crops, cfg.crop_resize, cfg.limit
        self.input = Pattern.of("input", cfg.input)
        self.target = Pattern.of("target", cfg.target)
        self.files = ImageFiles(root, cfg.max_pixels)
        names = [n for n in self.files.names() if Path(n).suffix.lower() in EXTENSIONS]
        try:
            self.pairs = of_split(match_pairs(self.input, self.target, names), cfg.split)
        except DataError as error:
            raise type(error)(f"{root}: {error}") from None
        self._held: dict[int, tuple[Image.Image, Image.Image, int]] = {}
        first_input, first_target = self._first(root)
        self.input_channels = cfg.input_channels or first_input
        self.channels = cfg.channels or first_target
        self.may_lose_colour = cfg.input_channels == 1, cfg.channels == 1

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_held": {}}

    def __len__(self) -> int:
        number = len(self.pairs) * max(1, self.crops)
        return number if self.limit is None else min(number, self.limit)

    def describe(self, i: int) -> str:
        return str(self.pairs[self._place(i)[0]])

    def _place(self, i: int) -> tuple[int, int]:
        """Sample → pair and crop: the crops of ``BLOCK`` pairs are dealt in turn."""
        block, rest = divmod(i, BLOCK * max(1, self.crops))
        crop, seat = divmod(rest, min(BLOCK, len(self.pairs) - BLOCK * block))
        return BLOCK * block + seat, crop

    def load(self, i: int) -> Raw:
        pair, number = self._place(i)
        if pair not in self._held:
            self._held = {p: held for p, held in self._held.items() if p // BLOCK == pair // BLOCK}
            self._held[pair] = self._images(self.pairs[pair])
        given, wanted, short = self._held[pair]
        if self.crops:
            box = self._box(self.pairs[pair], number, given.size)
            given, wanted = given.crop(box), wanted.crop(box)
        return Raw(wanted, None, given, short)

    def _opened(self, pair: Pair) -> tuple[Image.Image, Image.Image]:
        given = self.input.image(self.files, pair.input)
        wanted = self.target.image(self.files, pair.target)
        if given.size != wanted.size:
            raise DataError(
                f"{pair.input} is {given.width}x{given.height}, {pair.target} is "
                f"{wanted.width}x{wanted.height}: the images of a pair have the same size"
            )
        return given, wanted

    def _first(self, root: Path) -> tuple[int, int]:
        """Channels of the first pair that decodes."""
        for pair in self.pairs:
            try:
                given, wanted = self._opened(pair)
            except UndecodableError:
                continue
            return channels_of(given, pair.input), channels_of(wanted, pair.target)
        raise DataError(f"{root}: none of its {len(self.pairs)} pairs decodes")

    def _images(self, pair: Pair) -> tuple[Image.Image, Image.Image, int]:
        """Both images in their final modes: scaled for crops, or the centre in its final size; and
        the shorter side that they have as they are stored.
        """
        given, wanted = self._opened(pair)
        lose_input, lose_target = self.may_lose_colour
        return (
            self._image(given, pair.input, "input_channels", self.input_channels, lose_input),
            self._image(wanted, pair.target, "channels", self.channels, lose_target),
            min(wanted.size),
        )

    def _image(
        self, image: Image.Image, path: str, key: str, channels: int, may_lose_colour: bool
    ) -> Image.Image:
        if channels_of(image, path) > channels and not may_lose_colour:
            raise DataError(
                f"{path}: a colour image, where the first one is grey; set data.{key}=3, or "
                f"data.{key}=1 to drop its colour"
            )
        if image.mode != "P":
            image = image.convert(MODES[channels])
        if not self.crops:
            image = square(image, self.image_size)
        elif self.crop_resize:
            short = min(image.size)
            size = [round(length * self.crop_resize / short) for length in image.size]
            image = resized(image, (size[0], size[1]))
        return image.convert(MODES[channels])

    def _box(self, pair: Pair, number: int, size: tuple[int, int]) -> tuple[int, int, int, int]:
        side = self.image_size
        if min(size) < side:
            raise DataError(
                f"{pair}: {size[0]}x{size[1]} pixels, too small for crops of {side}; set "
                f"data.crop_resize={side} or more, or data.crops=0"
            )
        stem = int.from_bytes(hashlib.sha256(pair.stem.encode()).digest()[:8], "big")
        left, top = np.random.default_rng([stem, number]).integers(
            [size[0] - side + 1, size[1] - side + 1]
        )
        return int(left), int(top), int(left) + side, int(top) + side


def channels_of(image: Image.Image, path: str) -> int:
    """1 for grey, 3 for colour; raises DataError for other modes, e.g. 16 bits a pixel."""
    if image.mode not in CHANNELS:
        raise DataError(
            f"{path}: pixels of mode {image.mode}; save it as 8-bit grey, RGB or palette image"
        )
    return CHANNELS[image.mode]
