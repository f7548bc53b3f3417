"""Decoding into a batch's buffer: the pixels that Pillow sees, or an error, and never a bomb."""

from __future__ import annotations

import io
import struct
import tarfile
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vmcmc_dist.data.decoding import decode_into
from vmcmc_dist.data.image_header import UndecodableError, header

WIDTH, HEIGHT = 37, 21
FORMATS: dict[str, tuple[str, str, dict]] = {
    "jpeg": ("JPEG", "RGB", {"quality": 90}),
    "jpeg 4:4:4": ("JPEG", "RGB", {"quality": 95, "subsampling": 0}),
    "jpeg progressive": ("JPEG", "RGB", {"progressive": True}),
    "jpeg grey": ("JPEG", "L", {}),
    "png": ("PNG", "RGB", {}),
    "png grey": ("PNG", "L", {}),
    "webp": ("WEBP", "RGB", {}),
    "webp lossless": ("WEBP", "RGB", {"lossless": True}),
    "webp with a profile": ("WEBP", "RGB", {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0"}),
}


def picture(width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
    """Waves of every colour with some noise."""
    y, x = np.mgrid[:height, :width]
    waves = [128 + 100 * np.sin(x / (3 + k) + y / (7 - k) + k) for k in range(3)]
    noise = np.random.default_rng(0).normal(0, 8, (height, width, 3))
    return Image.fromarray(np.clip(np.stack(waves, -1) + noise, 0, 255).astype(np.uint8))


def encoded(format_: str, mode: str = "RGB", image: Image.Image | None = None, **options) -> bytes:
    buffer = io.BytesIO()
    (image or picture()).convert(mode).save(buffer, format_, **options)
    return buffer.getvalue()


def empty(channels: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    return np.zeros((height, width, channels), dtype=np.uint8)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("view", [bytes, memoryview], ids=["bytes", "memoryview"])
def test_into_one_place_of_a_batch(name: str, view: Callable) -> None:
    format_, mode, options = FORMATS[name]
    data, channels = encoded(format_, mode, **options), len(mode) if mode == "RGB" else 1
    assert header(view(data)) == (WIDTH, HEIGHT, channels)
    batch = np.zeros((3, HEIGHT, WIDTH, channels), dtype=np.uint8)
    decode_into(view(data), "any", batch[1])
    wanted = np.asarray(Image.open(io.BytesIO(data))).reshape(batch[1].shape)
    assert wanted.std() > 30
    np.testing.assert_array_equal(batch[1], wanted)
    assert not batch[0].any() and not batch[2].any()


def test_real_photos(shared_data: Path) -> None:
    with tarfile.open(shared_data / "edges_photos" / "bsds-110.tar") as tar:
        names = [m for m in tar.getmembers() if m.name.endswith((".jpg", ".png"))][:20]
        files = [tar.extractfile(m).read() for m in names]  # type: ignore[union-attr]
    for data in files:
        wanted = np.asarray(Image.open(io.BytesIO(data)))
        out = empty(1 if wanted.ndim == 2 else 3, wanted.shape[1], wanted.shape[0])
        decode_into(data, "jpg", out)
        np.testing.assert_array_equal(out, wanted.reshape(out.shape))


@pytest.mark.parametrize("format_", ["JPEG", "PNG"])
def test_grey_is_taken_for_colour(format_: str) -> None:
    grey, colour = empty(1), empty(3)
    data = encoded(format_, "L")
    decode_into(data, "any", grey)
    decode_into(data, "any", colour)
    np.testing.assert_array_equal(colour, np.broadcast_to(grey, colour.shape))
    assert grey.std() > 30


@pytest.mark.parametrize(
    "data, channels, message",
    [
        (encoded("JPEG"), 1, "37x21 with 3 channels, expected 37x21 with 1"),
        (encoded("JPEG", "L", picture(20)), 3, "20x21 with 1 channels, expected 37x21 with 3"),
        (encoded("JPEG", "CMYK"), 3, "37x21 with 4 channels"),
        (encoded("PNG", "RGBA"), 3, "37x21 with 4 channels"),
        (encoded("PNG", "LA"), 1, "37x21 with 2 channels"),
        (encoded("WEBP", "RGBA", picture().convert("RGBA").rotate(9)), 3, "37x21 with 4 channels"),
        (encoded("WEBP", save_all=True, append_images=[picture().rotate(9)]), 3, "animation"),
        (encoded("PNG", "I;16"), 1, "16 bits"),
        (encoded("GIF"), 3, r"\.jpg: neither a JPEG nor a PNG nor a WebP"),
        (encoded("JPEG", image=picture(38, 21)), 3, "38x21 with 3 channels, expected 37x21"),
        (encoded("PNG", image=picture(37, 20)), 3, "37x20 with 3 channels, expected 37x21"),
        (encoded("PNG", transparency=(1, 2, 3)), 3, "does not decode"),
        (b"", 3, "neither"),
        (b"\xff\xd8\xff\xe0", 3, "does not decode"),
        (encoded("PNG")[:20], 3, "torn"),
        (encoded("WEBP")[:26], 3, "torn"),
    ],
)  # fmt: skip
def test_what_is_not_the_expected_image(data: bytes, channels: int, message: str) -> None:
    with pytest.raises(UndecodableError, match=message):
        decode_into(data, "jpg", empty(channels))


def test_a_palette_is_its_colours() -> None:
    image = picture().quantize(16)
    data = encoded("PNG", "P", image)
    out = empty(3)
    assert header(data) == (WIDTH, HEIGHT, 3)
    decode_into(data, "png", out)
    np.testing.assert_array_equal(out, np.asarray(image.convert("RGB")))


def interlaced(pixels: np.ndarray) -> bytes:
    """Adam7 PNG of uint8 [H, W, C], C = 1 or 3 (PNG specification, 8.2), unfiltered."""
    rows = b""
    for x, y, dx, dy in (
        (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
        (0, 1, 1, 2),
    ):  # fmt: skip
        rows += b"".join(b"\0" + row.tobytes() for row in pixels[y::dy, x::dx] if row.size)
    height, width, channels = pixels.shape
    head = struct.pack(">IIBBBBB", width, height, 8, 0 if channels == 1 else 2, 0, 0, 1)
    png = b"\x89PNG\r\n\x1a\n"
    for name, data in ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
        png += struct.pack(">I", len(data)) + name + data
        png += struct.pack(">I", zlib.crc32(name + data))
    return png


@pytest.mark.parametrize("channels", [1, 3])
def test_interlaced_pngs_are_read_in_silence(caplog, capfd, channels: int) -> None:
    pixels = np.asarray(picture())[..., :channels]
    data, out = interlaced(pixels), empty(channels)
    decode_into(data, "png", out)
    np.testing.assert_array_equal(out, pixels)
    assert capfd.readouterr() == ("", "") and not caplog.records
    torn = bytearray(data)
    torn[len(data) // 2] ^= 255
    for bad in (bytes(torn), data[: len(data) // 2]):
        with pytest.raises(UndecodableError, match="does not decode"):
            decode_into(bad, "png", out)


@pytest.mark.parametrize("name", FORMATS)
def test_torn_anywhere_is_an_error(name: str) -> None:
    """Also in the last bytes: a JPEG cut before its end would show grey. (libpng wants no IEND.)"""
    format_, mode, options = FORMATS[name]
    data, out = encoded(format_, mode, **options), empty(3 if mode == "RGB" else 1)
    end = len(data) - (12 if format_ == "PNG" else 0)
    for length in [*range(0, end, 29), end - 1]:
        with pytest.raises(UndecodableError):
            decode_into(data[:length], "x", out)


@pytest.mark.parametrize("name", ["jpeg", "jpeg progressive", "png", "webp", "webp lossless"])
def test_corrupt_bytes_raise_nothing_else(name: str) -> None:
    format_, mode, options = FORMATS[name]
    data, out, generator = encoded(format_, mode, **options), empty(3), np.random.default_rng(1)
    refused = 0
    for _ in range(400):
        torn = bytearray(data)
        for place in generator.integers(0, len(torn), 3):
            torn[place] = generator.integers(256)
        try:
            decode_into(bytes(torn), "x", out)
        except UndecodableError:
            refused += 1
    assert refused > (350 if name == "png" else 40)  # PNG alone has checksums


def test_a_wrong_checksum_of_png_is_an_error() -> None:
    data = bytearray(encoded("PNG"))
    start = data.find(b"IDAT")
    (length,) = struct.unpack_from(">I", data, start - 4)
    data[start + 4 + length] ^= 1
    with pytest.raises(UndecodableError, match="CRC"):
        decode_into(bytes(data), "png", empty(3))


def _claiming(width: int, height: int, data: bytes) -> bytes:
    """The same image, of another size in its header."""
    bomb = bytearray(data)
    if data[:4] == b"\x89PNG":
        struct.pack_into(">II", bomb, 16, width, height)
        struct.pack_into(">I", bomb, 29, zlib.crc32(bomb[12:29]))
    elif data[:2] == b"\xff\xd8":
        struct.pack_into(">HH", bomb, data.find(b"\xff\xc0") + 5, height, width)
    else:
        struct.pack_into("<HH", bomb, 26, width, height)
    return bytes(bomb)


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP"])
def test_bombs_are_refused_by_their_header(format_: str) -> None:
    bomb = _claiming(16_000, 16_000, encoded(format_))
    start = time.perf_counter()
    with pytest.raises(UndecodableError, match="16000x16000 with 3 channels, expected 37x21"):
        decode_into(bomb, "x", empty(3))
    assert time.perf_counter() - start < 1


def with_scans(image: Image.Image, scans: int) -> bytes:
    """A progressive JPEG with its last scan many times."""
    data = encoded("JPEG", image.mode, image, progressive=True)
    last = data[data.rfind(b"\xff\xda") : -2]
    return data[:-2] + last * (scans - data.count(b"\xff\xda")) + data[-2:]


def test_a_bomb_of_scans_is_refused() -> None:
    """8000 passes over 300x300 pixels in 100 kB: nothing that a limit of pixels sees."""
    bomb = with_scans(Image.new("L", (300, 300), 7), 8000)
    with pytest.raises(UndecodableError, match="a JPEG of 8000 scans"):
        decode_into(bomb, "jpg", empty(1, 300, 300))
    decode_into(
        encoded("JPEG", "L", picture(300, 300), progressive=True), "jpg", empty(1, 300, 300)
    )


def test_out_must_be_what_the_contract_says() -> None:
    data = encoded("JPEG")
    for out in (
        np.zeros((HEIGHT, WIDTH, 3), dtype=np.int8),
        np.zeros((HEIGHT, WIDTH, 4), dtype=np.uint8),
        np.zeros((HEIGHT, WIDTH, 6), dtype=np.uint8)[..., ::2],
    ):
        with pytest.raises(ValueError, match="in one piece"):
            decode_into(data, "jpg", out)


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP"])
def test_other_threads_run_while_one_decodes(format_: str) -> None:
    """The GIL is released: this thread's longest pause is far below the time of one image."""
    side = 1600
    options = {"WEBP": {"method": 0}, "PNG": {"compress_level": 1}}.get(format_, {})
    data, out = encoded(format_, image=picture(side, side), **options), empty(3, side, side)

    def longest_pause() -> float:
        """In shares of the time that the image took."""
        done, times = threading.Event(), [time.perf_counter()]

        def decode() -> None:
            decode_into(data, "x", out)
            done.set()

        thread = threading.Thread(target=decode)
        thread.start()
        while not done.is_set():
            times.append(time.perf_counter())
            time.sleep(0)
        thread.join()
        return float(np.diff(times).max() / (times[-1] - times[0]))

    assert min(longest_pause() for _ in range(4)) < 0.6  # 1 where the GIL is held
