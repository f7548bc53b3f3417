"""Encoded images → pixels: JPEG by libjpeg-turbo (simplejpeg), PNG by libpng and WebP by libwebp
(imagecodecs).

All three release the GIL, so threads decode side by side, write where they are told, and take a
torn or corrupt image for an error, never for grey pixels.
"""

from __future__ import annotations

from collections.abc import Iterator

import imagecodecs
import numpy as np
from simplejpeg import decode_jpeg, decode_jpeg_header

from vmcmc_dist.data.image_header import (
    JPEG,
    JPEG_CHANNELS,
    PNG,
    Header,
    UndecodableError,
    header,
    png_header,
    refuse_many_scans,
)

__all__ = ["UndecodableError", "decode_into", "header"]

INTERLACE = 28  # place of that byte in a PNG
UINT8 = np.dtype(np.uint8)
ERRORS = (ValueError, imagecodecs.PngError, imagecodecs.SpngError, imagecodecs.WebpError)
FEW_PIXELS = 128 * 128  # many scans of so few take no harmful time
JPEG_COLOURS = {1: "GRAY", 3: "RGB"}


def decode_jpegs(
    shape: tuple[int, ...], left: Iterator[tuple[int, bytes | memoryview, np.ndarray]]
) -> list[int]:
    """The short way for many photos: of each (number, JPEG, grey or in colour, ``out``) into
    ``out`` uint8 [H, W, 3] = ``shape``, C-contiguous.

    Returns the numbers where that cannot be; their ``out`` then holds anything, and
    :func:`decode_into` says why. An image of more pixels is refused by its header here, too, since
    it does not fit into ``out``.
    """
    failed = []
    large = shape[0] * shape[1] > FEW_PIXELS
    for number, data, out in left:
        try:
            if large:
                refuse_many_scans(data)
            if decode_jpeg(data, "RGB", buffer=out).shape == shape:
                continue
        except (ValueError, UndecodableError):
            pass
        failed.append(number)
    return failed


def decode_into(data: bytes | memoryview, extension: str, out: np.ndarray) -> None:
    """Decode one JPEG, PNG or WebP into ``out`` uint8 [H, W, C], C-contiguous, C = 1 or 3.

    The image must have exactly that size and that many channels (a grey one is taken for colour
    where C = 3); this is seen in its header, before any pixel is decompressed. The format is told
    by the first bytes: ``extension`` (the name's) is for the message. EXIF orientation is not
    applied: pixels are as they are stored.
    Raises UndecodableError, and then leaves anything in ``out``.
    """
    height, width, channels = out.shape
    if out.dtype != UINT8 or channels not in JPEG_COLOURS or not out.flags.c_contiguous:
        raise ValueError(
            f"out: {out.dtype}{out.shape}; uint8 [H, W, 1 or 3] in one piece is needed"
        )
    try:
        if data[:3] == JPEG:  # 64x64 takes 25 µs: every line here counts
            rows, columns, colour, _ = decode_jpeg_header(data)
            fits = colour in ("Gray", "YCbCr", "RGB") if channels == 3 else colour == "Gray"
            if rows != height or columns != width or not fits:
                raise _other(Header(columns, rows, JPEG_CHANNELS[colour]), out)
            if height * width > FEW_PIXELS:
                refuse_many_scans(data)
            decode_jpeg(data, JPEG_COLOURS[channels], buffer=out)
            return
        is_png = data[:8] == PNG
        found = png_header(data) if is_png else _header(data, extension)
        if found == (width, height, 1) and channels == 3:
            grey = np.empty((height, width, 1), dtype=np.uint8)
            decode_into(data, extension, grey)
            out[:] = grey
            return
        if found != (width, height, channels):
            raise _other(found, out)
        # (the stubs know no memoryview, the code takes any buffer)
        if not is_png:
            imagecodecs.webp_decode(data, out=out)  # type: ignore[arg-type]
        elif data[INTERLACE]:  # libpng would warn of each one
            imagecodecs.spng_decode(data, out=out)  # type: ignore[arg-type]
        else:
            imagecodecs.png_decode(data, out=out)  # type: ignore[arg-type]
    except ERRORS as error:
        raise UndecodableError(f"does not decode ({error})") from None


def _other(found: Header, out: np.ndarray) -> UndecodableError:
    height, width, channels = out.shape
    return UndecodableError(
        f"{found.width}x{found.height} with {found.channels} channels, "
        f"expected {width}x{height} with {channels}"
    )


def _header(data: bytes | memoryview, extension: str) -> Header:
    try:
        return header(data)
    except UndecodableError as error:
        raise UndecodableError(f"does not decode (.{extension}: {error})") from None
