"""Images of any size → one size: close to decoding all of it, the very same where sizes agree."""

from __future__ import annotations

import base64
import io
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vmcmc_dist.data.fitting import STORED, centred, decode_at_least, fit_into, open_image, plain
from vmcmc_dist.data.image_header import UndecodableError
from vmcmc_dist.data.sources.images import ImageFiles, square

MANY = 10**8
RARE_SAMPLING = base64.b64decode(
    "/9j/2wBDABALDA4MChAODQ4SERATGCgaGBYWGDEjJR0oOjM9PDkzODdASFxOQERXRTc4UG1RV19iZ2hnPk1xeXBkeF"
    "xlZ2P/2wBDARESEhgVGC8aGi9jQjhCY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2Nj"
    "Y2NjY2P/wAARCAAIAAgDATEAAhEBAxEB/8QAFQABAQAAAAAAAAAAAAAAAAAAAAP/xAAXEAEBAQEAAAAAAAAAAAAAAA"
    "AABSIx/8QAFQEBAQAAAAAAAAAAAAAAAAAAAgX/xAAbEQACAQUAAAAAAAAAAAAAAAAABAECAyEiI//aAAwDAQACEQMR"
    "AD8AhPhcwA3G9pKKj3GnJ//Z"
)
"""8x8, chroma at a third of the width, which TurboJPEG does not read, but libjpeg does."""


def waves(width: int, height: int, mode: str = "RGB", length: float = 1) -> Image.Image:
    y, x = np.mgrid[:height, :width] / length
    colours = [128 + 100 * np.sin(x / (9 + k) + y / (17 - k) + k) for k in range(3)]
    return Image.fromarray(np.stack(colours, -1).astype(np.uint8)).convert(mode)


def encoded(image: Image.Image, format_: str = "JPEG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_, **options)
    return buffer.getvalue()


def by_pillow(data: bytes, height: int, width: int, mode: str = "RGB") -> np.ndarray:
    """All of it, decoded by Pillow, its centre resized."""
    image = Image.open(io.BytesIO(data)).convert(mode)
    part = min(image.width, image.height * width // height)
    rows = min(image.height, image.width * height // width)
    left, top = (image.width - part) // 2, (image.height - rows) // 2
    image = image.crop((left, top, left + part, top + rows))
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    return np.asarray(image).reshape(height, width, -1)


def fitted(data: bytes, height: int, width: int, channels: int = 3) -> np.ndarray:
    out = np.zeros((height, width, channels), dtype=np.uint8)
    fit_into(data, "jpg", out, MANY)
    return out


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.square(a.astype(float) - b).mean()))


# -- scaled decoding -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "size, side, scale",
    [
        ((481, 321), 322, 1),
        ((481, 321), 321, 1),
        ((481, 321), 161, 1),  # 160 whole blocks of 2
        ((481, 321), 160, 2),
        ((481, 321), 81, 2),
        ((481, 321), 80, 4),
        ((481, 321), 40, 8),
        ((321, 481), 1, 8),
        ((481, 321), (40, 121), 2),
        ((481, 321), (160, 240), 2),
        ((1024, 1024), 128, 8),
        ((1024, 1024), 129, 4),
        ((7, 9), 1, 4),
        ((16, 2), 1, 2),
    ],
)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_the_smallest_scale_that_is_large_enough(size, side, scale, mode: str) -> None:
    data = encoded(waves(*size, mode))
    pixels = decode_at_least(data, side, MANY)
    whole = Image.open(io.BytesIO(data))
    whole.draft(mode, (size[0] // scale, size[1] // scale))
    if min(size) > 16:  # Pillow asks libjpeg for the same, in its way
        np.testing.assert_array_equal(pixels, np.asarray(whole).reshape(pixels.shape))
    assert pixels.shape[:2] == (-(-size[1] // scale), -(-size[0] // scale))


@pytest.mark.parametrize("format_", ["PNG", "WEBP", "BMP", "TIFF", "PPM"])
def test_other_formats_come_whole(format_: str) -> None:
    image = waves(200, 100)
    options = {"lossless": True} if format_ == "WEBP" else {}
    pixels = decode_at_least(encoded(image, format_, **options), 10, MANY)
    np.testing.assert_array_equal(pixels, np.asarray(image))


def test_scaled_decoding_of_photos_is_close(shared_data: Path) -> None:
    """Against decoding all of it: the median over photos, and the worst."""
    with tarfile.open(shared_data / "edges_photos" / "bsds-110.tar") as tar:
        names = [m for m in tar.getmembers() if m.name.endswith(".photo.jpg")][:30]
        files = [tar.extractfile(m).read() for m in names]  # type: ignore[union-attr]
    for side in (32, 64, 80):
        assert all(STORED in open_image(f, MANY, 2 * side).info for f in files)
        close = [psnr(fitted(f, side, side), by_pillow(f, side, side)) for f in files]
        assert np.median(close) > 44 and min(close) > 39, side


@pytest.mark.parametrize("size", [(481, 321), (321, 481), (487, 487), (711, 700)])
@pytest.mark.parametrize("to", [(64, 64), (40, 60), (60, 40)])
def test_the_centre_stays_where_it_is(size: tuple[int, int], to: tuple[int, int]) -> None:
    """Sides that no scale divides: a shift by half a pixel would cost more than this."""
    data = encoded(waves(*size, length=2), quality=95)
    assert psnr(fitted(data, *to), by_pillow(data, *to)) > 48


# -- the same pixels -------------------------------------------------------------------------------


@pytest.mark.parametrize("format_", ["JPEG", "PNG"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("size", [(64, 64), (100, 90), (50, 60), (20, 30)])
def test_unscaled_images_are_as_pillow_makes_them(format_: str, mode: str, size) -> None:
    data = encoded(waves(*size, mode), format_)
    wanted = by_pillow(data, 64, 64, mode)
    np.testing.assert_array_equal(fitted(data, 64, 64, wanted.shape[-1]), wanted)


@pytest.mark.parametrize("format_, mode", [
    ("JPEG", "CMYK"), ("PNG", "RGBA"), ("PNG", "LA"), ("PNG", "P"), ("PNG", "1"), ("PNG", "I;16"),
    ("WEBP", "RGBA"), ("TIFF", "L"), ("BMP", "RGB"), ("PNG", "RGB"),
])  # fmt: skip
@pytest.mark.parametrize("channels", [1, 3])
def test_kinds_are_converted_as_pillow_does(format_: str, mode: str, channels: int) -> None:
    image = waves(90, 80)
    if mode == "RGBA":
        image.putalpha(100)
    data = encoded(
        image.convert("L").convert(mode) if mode == "I;16" else image.convert(mode), format_
    )
    wanted = by_pillow(data, 80, 80, "L" if channels == 1 else "RGB")
    np.testing.assert_array_equal(fitted(data, 80, 80, channels), wanted)


def test_transparent_colours_and_rare_samplings_are_read_by_pillow() -> None:
    for data in (encoded(waves(20, 20), "PNG", transparency=(1, 2, 3)), RARE_SAMPLING):
        assert plain(data) is None
        image = Image.open(io.BytesIO(data))
        np.testing.assert_array_equal(fitted(data, *image.size), np.asarray(image))


def test_preparation_and_fit_into_agree(tmp_path: Path) -> None:
    """Also through a change of mode, and with several sizes from one decoding."""
    data = encoded(waves(500, 375))
    (tmp_path / "a.jpg").write_bytes(data)
    image = ImageFiles(tmp_path, MANY, side=64).image("a.jpg")
    assert image.info[STORED] == (2, 500, 375) and image.size == (250, 188)
    grey = square(image.convert("L"), 64)
    assert psnr(np.asarray(grey), by_pillow(data, 64, 64, "L")[..., 0]) > 48
    np.testing.assert_array_equal(np.asarray(square(image, 64)), fitted(data, 64, 64))
    assert square(image, 32).size == (32, 32)
    whole = ImageFiles(tmp_path, MANY).image("a.jpg")
    assert whole.size == (500, 375) and STORED not in whole.info


@pytest.mark.parametrize("colours", [8, 200])
def test_palettes_keep_their_values(colours: int) -> None:
    image = waves(60, 40).quantize(colours)
    kept = open_image(encoded(image, "PNG"), MANY)
    assert kept.mode == "P"
    assert set(np.unique(np.asarray(centred(kept, 16, 16)))) <= set(np.unique(np.asarray(image)))


def test_black_and_white_stay_so() -> None:
    kept = open_image(encoded(waves(60, 40, "1"), "PNG"), MANY)
    assert kept.mode == "1" and set(np.unique(centred(kept, 16, 16))) == {False, True}


# -- refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "PPM"])
def test_too_many_pixels(format_: str) -> None:
    data = encoded(waves(50, 41), format_)
    out = np.zeros((41, 50, 3), dtype=np.uint8)
    fit_into(data, "x", out, 50 * 41)
    for refused in (out, out[:8, :8].copy()):
        with pytest.raises(UndecodableError, match=r"50x41 exceeds data\.max_pixels"):
            fit_into(data, "x", refused, 50 * 41 - 1)
    with pytest.raises(UndecodableError, match=r"50x41 exceeds data\.max_pixels"):
        decode_at_least(data, 8, 50 * 41 - 1)


@pytest.mark.parametrize("mode", ["L", "CMYK"])
@pytest.mark.parametrize("side", [16, 1000])
def test_too_many_scans(mode: str, side: int) -> None:
    data = encoded(waves(600, 600, mode), progressive=True)
    last = data[data.rfind(b"\xff\xda") : -2]
    start = time.perf_counter()
    with pytest.raises(UndecodableError, match="scans"):
        decode_at_least(data[:-2] + last * 20_000 + data[-2:], side, MANY)
    assert time.perf_counter() - start < 2


@pytest.mark.parametrize("side", [None, 64, 16])
def test_torn_jpegs(side: int | None) -> None:
    data = encoded(waves(300, 200))
    for length in (0, 3, 100, len(data) // 2, len(data) - 1):
        with pytest.raises(UndecodableError, match="does not decode"):
            open_image(data[:length], MANY, side)


def test_programs_are_no_images() -> None:
    """Pillow would hand PostScript to an interpreter."""
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
    for data in (postscript, encoded(waves(9, 9), "GIF")):
        assert Image.open(io.BytesIO(data)).size == (9, 9)
        with pytest.raises(UndecodableError, match="does not decode"):
            open_image(data, MANY)
