"""Pillow until the decoder is chosen."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, UnidentifiedImageError

from vmcmc_dist.data.sources.base import UndecodableError


def _open(data):
    try:
        return Image.open(io.BytesIO(data))
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise UndecodableError(f"does not decode ({error})") from None


def header(data) -> tuple[int, int, int]:
    image = _open(data)
    return image.width, image.height, len(image.getbands())


def decode_into(data, extension: str, out: np.ndarray) -> None:
    image = _open(data)
    if (image.height, image.width, len(image.getbands())) != out.shape:
        raise UndecodableError(
            f"{image.width}x{image.height} with {len(image.getbands())} channels, expected "
            f"{out.shape[1]}x{out.shape[0]} with {out.shape[2]}"
        )
    try:
        out[...] = np.asarray(image).reshape(out.shape)
    except (OSError, SyntaxError, ValueError) as error:
        raise UndecodableError(f"does not decode ({error})") from None


def fit_into(data, extension: str, out: np.ndarray, max_pixels: int) -> None:
    image = _open(data).convert("RGB" if out.shape[2] == 3 else "L")
    out[...] = np.asarray(image.resize(out.shape[1::-1])).reshape(out.shape)
