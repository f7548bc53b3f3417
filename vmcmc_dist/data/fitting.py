"""Images of any size → images of one size: decoded no larger than needed, cropped, resized.

A JPEG can be decoded at 1/2, 1/4 or 1/8 of its size, in a fraction of the time (the DCT of each
8x8 block is inverted for its low frequencies only). That shrinks sharper than Lanczos does, so
the result is at least ``MARGIN`` times as large as what it is then resized to by Lanczos.
Orientation tags (EXIF) and colour profiles are not applied: pixels are as they are stored.
"""

from __future__ import annotations

import io

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from vmcmc_dist.data.decoding import JPEG_COLOURS, decode_into
from vmcmc_dist.data.image_header import (
    JPEG,
    PNG,
    Header,
    UndecodableError,
    header,
    refuse_many_scans,
)

MODES = {1: "L", 3: "RGB"}
"""Mode of an image by its channels."""

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "PPM")
"""All that Pillow may open: others among its plug-ins start programs (EPS)."""

MARGIN = 2
"""Twice: 49 dB (at least 43) against whole decoding, 481x321 photos → 64x64; once: 39 (33)."""

STORED = "stored_size"
"""Key in ``Image.info`` of one decoded at 1/s: (s, width, height) as it is stored."""

Size = int | tuple[int, int]


def decode_at_least(data: bytes | memoryview, side: Size, max_pixels: int) -> np.ndarray:
    """Decode to uint8 [H', W', C], C = 1 for grey images, else 3, both sides at least ``side``
    (one number, or height and width) where the stored image is so large.

    JPEGs come at the smallest of 1/1, 1/2, 1/4, 1/8 (sides rounded up) that does; others whole.
    Raises UndecodableError, also for more than ``max_pixels`` stored pixels, before decompressing.
    """
    image = _as_mode(open_image(data, max_pixels, side), None)
    pixels = np.asarray(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def fit_into(data: bytes | memoryview, extension: str, out: np.ndarray, max_pixels: int) -> None:
    """Decode an image of any size, cut its centre in the proportions of ``out`` uint8 [H, W, C]
    (C-contiguous, C = 1 or 3), and resize it (Lanczos) into ``out``; grey and colour are
    converted, transparency is left out. The same bytes give the same pixels as in preparation.

    An image of exactly the size and channels of ``out`` is decoded straight into it.
    Raises UndecodableError as :func:`decode_at_least` does.
    """
    height, width, channels = out.shape
    if plain(data) == (width, height, channels):
        _check_pixels(width, height, max_pixels)
        decode_into(data, extension, out)
        return
    image = open_image(data, max_pixels, (MARGIN * height, MARGIN * width))
    pixels = np.asarray(centred(_as_mode(image, MODES[channels]), height, width))
    out[:] = pixels[..., None] if channels == 1 else pixels


def open_image(
    data: bytes | memoryview, max_pixels: int, at_least: Size | None = None
) -> Image.Image:
    """An image of one of ``FORMATS``, decoded, in Pillow's mode for it; JPEGs no larger than
    ``at_least`` asks for, with ``info[STORED]`` then set.

    8-bit grey and RGB files go the way of :func:`decode_into`; palettes, alpha, CMYK, 16 bits,
    rare samplings and other formats are read by Pillow itself. Raises UndecodableError.
    """
    found = plain(data)
    if found is None:
        return _by_pillow(data, max_pixels)
    _check_pixels(found.width, found.height, max_pixels)
    scale = _scale(found, at_least) if data[:3] == JPEG else 1
    shape = (-(-found.height // scale), -(-found.width // scale), found.channels)
    pixels = np.empty(shape, dtype=np.uint8)
    if scale == 1:
        decode_into(data, "image", pixels)
    else:
        refuse_many_scans(data)
        colour = JPEG_COLOURS[found.channels]
        try:
            simplejpeg.decode_jpeg(
                data, colour, min_height=shape[0], min_width=shape[1], buffer=pixels
            )
        except ValueError as error:
            raise UndecodableError(f"does not decode ({error})") from None
    image = Image.fromarray(pixels[..., 0] if found.channels == 1 else pixels)
    if scale > 1:
        image.info[STORED] = (scale, found.width, found.height)
    return image


def centred(image: Image.Image, height: int, width: int) -> Image.Image:
    """The largest centred part of the proportions height:width, resized (Lanczos).

    PIL takes the nearest pixel of palette images: their values are names, and are not blended.
    The part is cut out of the image as it is stored, whatever scale it was decoded at.
    """
    scale, full_width, full_height = image.info.get(STORED, (1, *image.size))
    part_width = min(full_width, max(1, full_height * width // height))
    part_height = min(full_height, max(1, full_width * height // width))
    left, top = (full_width - part_width) // 2, (full_height - part_height) // 2
    box = (left, top, left + part_width, top + part_height)
    if scale > 1:
        exact = tuple(side / scale for side in box)
        return image.resize((width, height), Image.Resampling.LANCZOS, box=exact)
    if (part_width, part_height) != image.size:
        image = image.crop(box)
    if image.size == (width, height):
        return image
    return image.resize((width, height), Image.Resampling.LANCZOS)


def plain(data: bytes | memoryview) -> Header | None:
    """The header of a JPEG, PNG or WebP of grey or RGB pixels and nothing else; None for all
    other data, torn headers among it.
    """
    if data[:8] == PNG and (data[25:26] == b"\x03" or data[24:25] != b"\x08" or _transparent(data)):
        return None
    try:
        found = header(data)
    except UndecodableError:
        return None
    return found if found.channels in MODES else None


def _transparent(data: bytes | memoryview) -> bool:
    chunks = bytes(data)
    return chunks.find(b"tRNS", 0, chunks.find(b"IDAT") + 1) >= 0


def scale_for(width: int, height: int, to_width: int, to_height: int) -> int:
    """s of the 1/s at which :func:`fit_into` decodes a JPEG for a smaller image."""
    return _scale(Header(width, height, 3), (MARGIN * to_height, MARGIN * to_width))


def _scale(found: Header, at_least: Size | None) -> int:
    if at_least is None:
        return 1
    height, width = (at_least, at_least) if isinstance(at_least, int) else at_least
    fits = [s for s in (8, 4, 2) if found.height >= s * height and found.width >= s * width]
    return fits[0] if fits else 1


def _check_pixels(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise UndecodableError(f"{width}x{height} exceeds data.max_pixels")


def _by_pillow(data: bytes | memoryview, max_pixels: int) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        _check_pixels(image.width, image.height, max_pixels)
        if data[:3] == JPEG:
            refuse_many_scans(data)
        image.load()
    except (
        UnidentifiedImageError,
        OSError,
        SyntaxError,
        ValueError,
        Image.DecompressionBombError,
    ) as error:
        raise UndecodableError(f"does not decode ({error})") from None
    return image


def _as_mode(image: Image.Image, mode: str | None) -> Image.Image:
    """In ``mode``, or in L or RGB, whichever is nearer."""
    wanted = mode or ("L" if image.mode in ("1", "L", "LA", "I", "F", "I;16") else "RGB")
    return image if image.mode == wanted else image.convert(wanted)
