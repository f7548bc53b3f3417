"""Size and channels of a JPEG, PNG or WebP as its header states them: no pixel is decompressed."""

from __future__ import annotations

import struct
from typing import NamedTuple

import simplejpeg

from vmcmc_dist.errors import DataError

JPEG, PNG, WEBP = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF"

JPEG_CHANNELS = {"Gray": 1, "YCbCr": 3, "RGB": 3, "CMYK": 4, "YCCK": 4}
PNG_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}  # by colour type; a palette is its colours
PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # SOF0 … SOF15; the three are other segments
MAX_SCANS = 100
IHDR = struct.Struct(">4x4sIIBBBBB")
WEBP_ANIMATION, WEBP_ALPHA = 0x02, 0x10


class UndecodableError(DataError):
    """One image that cannot be read; says why, its name is up to whoever knows it."""


class Header(NamedTuple):
    """What an image will decode to: pixels [height, width, channels] of 8 bits."""

    width: int
    height: int
    channels: int


def header(data: bytes | memoryview) -> Header:
    """The header of one encoded image, told by its first bytes, never by a file name.

    Raises UndecodableError for other formats, a torn header, more than 8 bits a channel and
    animations. Orientation tags (EXIF) are not looked at.
    """
    if data[:3] == JPEG:
        return jpeg_header(data)
    if data[:8] == PNG:
        return png_header(data)
    if data[:4] == WEBP and data[8:12] == b"WEBP":
        return _webp_header(data)
    raise UndecodableError("neither a JPEG nor a PNG nor a WebP")


def jpeg_header(data: bytes | memoryview) -> Header:
    """The header of what starts like a JPEG."""
    try:
        height, width, colour, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError as error:
        raise UndecodableError(f"does not decode (JPEG header: {error})") from None
    return Header(width, height, JPEG_CHANNELS[colour])


def refuse_many_scans(data: bytes | memoryview) -> None:
    """Raises UndecodableError for a progressive JPEG of more than ``MAX_SCANS`` scans (usual are
    10): each passes over the whole image, and takes but 20 bytes, so they are the bomb that no
    limit of pixels refuses.
    """
    place = 2
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker in FRAMES:
            # in compressed data 0xFF is always followed by 0 or a restart
            scans = bytes(data).count(b"\xff\xda") if marker in PROGRESSIVE else 1
            if scans > MAX_SCANS:
                raise UndecodableError(f"does not decode (a JPEG of {scans} scans)")
            return
        place += 1 if marker == 0xFF else 2 + (data[place + 2] << 8) + data[place + 3]
    raise UndecodableError("does not decode (JPEG header: torn)")


def png_header(data: bytes | memoryview) -> Header:
    """The header of what starts like a PNG."""
    try:
        name, width, height, bits, colour, *_ = IHDR.unpack_from(data, 8)
        found = Header(width, height, PNG_CHANNELS[colour])
    except (struct.error, KeyError):
        raise UndecodableError("does not decode (PNG header: torn)") from None
    if name != b"IHDR":
        raise UndecodableError("does not decode (PNG header: torn)")
    if bits > 8:
        raise UndecodableError(f"does not decode (PNG of {bits} bits a channel; 8 are read)")
    return found


def _webp_header(data: bytes | memoryview) -> Header:
    """https://developers.google.com/speed/webp/docs/riff_container; VP8: RFC 6386, 9.1."""
    kind, start = bytes(data[12:16]), bytes(data[20:30])
    if len(start) == 10 and kind == b"VP8X":
        if start[0] & WEBP_ANIMATION:
            raise UndecodableError("a WebP animation")
        width = 1 + int.from_bytes(start[4:7], "little")
        height = 1 + int.from_bytes(start[7:10], "little")
        return Header(width, height, 4 if start[0] & WEBP_ALPHA else 3)
    if len(start) == 10 and kind == b"VP8 " and start[3:6] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", start, 6)
        return Header(width & 0x3FFF, height & 0x3FFF, 3)
    if len(start) == 10 and kind == b"VP8L" and start[0] == 0x2F:
        bits = int.from_bytes(start[1:5], "little")
        return Header(1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF), 4 if bits >> 28 & 1 else 3)
    raise UndecodableError("WebP header: torn")
