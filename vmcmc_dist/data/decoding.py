"""Encoded images → pixels: JPEG by libjpeg-turbo (simplejpeg), PNG by libpng and WebP by libwebp
(imagecodecs).

All three release the GIL, so threads decode side by side, write where they are told, and take a
torn or corrupt image for an error, never for grey pixels.
"""

from __future__ import annotations

import imagecodecs
import numpy as np
import simplejpeg

from vmcmc_dist.data.image_header import (
    JPEG,
    PNG,
    Header,
    UndecodableError,
    header,
    jpeg_header,
)

__all__ = ["UndecodableError", "decode_into", "header"]

JPEG_COLOURS = {1: "GRAY", 3: "RGB"}


def decode_into(data: bytes | memoryview, extension: str, out: np.ndarray) -> None:
    """Decode one JPEG, PNG or WebP into ``out`` uint8 [H, W, C], C-contiguous, C = 1 or 3.

    The image must have exactly that size and that many channels; this is seen in its header,
    before any pixel is decompressed. The format is told by the first bytes: ``extension`` (the
    name's) is for the message. EXIF orientation is not applied: pixels are as they are stored.
    Raises UndecodableError, and then leaves anything in ``out``.
    """
    height, width, channels = out.shape
    if out.dtype != np.uint8 or channels not in JPEG_COLOURS or not out.flags.c_contiguous:
        raise ValueError(
            f"out: {out.dtype}{out.shape}; uint8 [H, W, 1 or 3] in one piece is needed"
        )
    is_jpeg = data[:3] == JPEG
    found = jpeg_header(data) if is_jpeg else _header(data, extension)
    if found != (width, height, channels):
        raise UndecodableError(
            f"{found.width}x{found.height} with {found.channels} channels, "
            f"expected {width}x{height} with {channels}"
        )
    try:
        if is_jpeg:
            simplejpeg.decode_jpeg(data, JPEG_COLOURS[channels], buffer=out)
            return
        # (their stubs know no memoryview, their code takes any buffer)
        pixels = out if channels == 3 else out[..., 0]
        if data[:8] == PNG:
            imagecodecs.png_decode(data, out=pixels)  # type: ignore[arg-type]
        else:
            imagecodecs.webp_decode(data, out=pixels)  # type: ignore[arg-type]
    except (ValueError, imagecodecs.PngError, imagecodecs.WebpError) as error:
        raise UndecodableError(f"does not decode ({error})") from None


def _header(data: bytes | memoryview, extension: str) -> Header:
    try:
        return header(data)
    except UndecodableError as error:
        raise UndecodableError(f"does not decode (.{extension}: {error})") from None
