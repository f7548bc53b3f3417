"""Tar bytes → samples, as WebDataset groups them; a reader that trusts nothing it is given.

A sample is a run of members with one key: the name up to the first dot of its last part. The rest
is the extension, in lower case. Members of other extensions than ours, directories and
``__meta__`` files are passed over; links, devices and names that leave the folder are refused.

Our own parser and not ``tarfile``, which takes longer over a member than a 64x64 JPEG takes to
decode: blocks are parsed in the training's own process.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from vmcmc_dist.errors import DataError

RECORD = 512
NAME, SIZE, KIND, PREFIX = 100, 124, 156, 345  # the length of the first, and where others are
ZERO = np.uint8(48)
IMAGES = ("png", "jpg", "jpeg", "webp")
JPEG = ("jpg", "jpeg")
VECTORS = ("npy",)
LABELS = ("cls", "json")
ALLOWED = frozenset((*IMAGES, *VECTORS, *LABELS))

INPUT, TARGET = "input", "target"
"""Names of the two images of a pair: members ``KEY.input.EXT`` and ``KEY.target.EXT``."""

_FILE, _FOLDER, _LONG_NAME, _PAX, _PAX_GLOBAL = b"0\0", b"5", b"L", b"x", b"g"


class Torn(DataError):
    """Bytes that end, or go wrong, in the middle of a member."""


class Sample(NamedTuple):
    """One sample in a buffer: bytes [start, stop) with its headers, each member's [start, stop)."""

    key: str
    start: int
    stop: int
    members: dict[str, tuple[int, int]]


class Member(NamedTuple):
    """One file: its whole entry is [start, stop), its content [content, content + size)."""

    name: str
    start: int
    content: int
    size: int
    stop: int


def members(data: bytes | memoryview, where: str, *, strict: bool = False) -> Iterator[Member]:
    """The files in ``data``, up to the end mark or the end of the bytes.

    ``strict`` checks each header's own sum and asks for the end mark: for tars of unknown origin.
    ``where`` names the bytes in messages. Raises Torn, or DataError for what is refused.
    """
    view = memoryview(data)
    end = len(view)
    position = start = 0
    long_name: str | None = None
    long_size: int | None = None
    while position < end:
        head = bytes(view[position : position + RECORD])
        if len(head) < RECORD:
            raise Torn(f"{where}: ends within a header, at byte {position}")
        if not head[0] and not any(head):
            return
        kind = head[156:157]
        if strict:
            _check_sum(head, where, position)
        size = _number(head[124:136], where, position)
        content = position + RECORD
        stop = content + (size + RECORD - 1) // RECORD * RECORD
        if content + size > end:
            raise Torn(f"{where}: ends within a member, at byte {end}")
        if kind in _FILE or not kind:
            name = long_name if long_name is not None else _name(head, where)
            if long_size is not None:
                size = long_size
                stop = content + (size + RECORD - 1) // RECORD * RECORD
                if content + size > end:
                    raise Torn(f"{where}: ends within a member, at byte {end}")
            _check_name(name, where)
            yield Member(name, start, content, size, stop)
            long_name = long_size = None
        elif kind == _LONG_NAME:
            long_name = _text(bytes(view[content : content + size]).rstrip(b"\0"), where)
        elif kind == _PAX:
            found = _pax(bytes(view[content : content + size]), where)
            long_name = found.get("path", long_name)
            long_size = int(found["size"]) if "size" in found else long_size
        elif kind in (_FOLDER, _PAX_GLOBAL):
            long_name = long_size = None
        else:
            raise DataError(
                f"{where}: member {_name(head, where)!r} is a link or a device; refused"
            )
        position = stop
        if kind not in (_LONG_NAME, _PAX):
            start = position
    if strict:
        raise Torn(f"{where}: has no end mark")


def samples(data: bytes | memoryview, where: str, *, strict: bool = False) -> Iterator[Sample]:
    """The samples in ``data``, in their order; errors as of :func:`members`."""
    found = members(data, where, strict=strict)
    return _grouped((m.name, m.start, m.content, m.content + m.size, m.stop) for m in found)


def block_samples(data: bytes, where: str) -> Iterator[Sample]:
    """The samples of a block whose bytes have been checked: :func:`samples`, only quicker."""
    plain = _plain_members(data)
    return samples(data, where) if plain is None else _grouped(zip(*plain, strict=True))


class Alike(NamedTuple):
    """Samples that all have the same members: keys [N], which are ASCII; extension → [start, stop)
    of each, [N].
    """

    keys: list[bytes]
    members: dict[str, tuple[list[int], list[int]]]


def alike_samples(data: bytes) -> Alike | None:
    """The samples of a checked block if all have the members of the first, in the same order.

    What :func:`samples` gives, by a few list operations for the whole block; None for any other
    block.
    """
    found = _plain_headers(data)
    if found is None:
        return None
    at, contents, ends, _ = found
    names = _names(data, at)
    endings, extensions = _first_of(names)
    number = len(endings)
    if not number or len(names) % number or len(set(extensions)) != number:
        return None
    keys = [name[: -len(endings[0])] for name in names[0::number]]
    lines = b"\n" + b"\n".join(keys) + b"\n"
    if (
        any(odd in lines for odd in _ODD)
        or not lines.isascii()
        or any(names[i::number] != [k + ending for k in keys] for i, ending in enumerate(endings))
    ):
        return None
    members = {
        extension: (contents[i::number].tolist(), ends[i::number].tolist())
        for i, extension in enumerate(extensions)
    }
    return Alike(keys, members)


_ODD = (b".", b"/\n", b"\n\n", b"\n/", b"\n~", b"\\", b"\0")
"""In lines of keys: what is split elsewhere than at the first sample's dot, or refused."""


def _first_of(names: list[bytes]) -> tuple[list[bytes], list[str]]:
    """Endings (with the dot) and extensions of the members of the first sample; none if one of
    them is not ours.
    """
    endings: list[bytes] = []
    extensions: list[str] = []
    key = ""
    for name in names:
        split = _split(name.decode()) if name.isascii() else None
        if split is None or any(odd in name for odd in (b"\\", b"\n", b"\0")):
            return [], []
        if endings and split[0] != key:
            break
        key = split[0]
        endings.append(name[len(key) :])
        extensions.append(split[1])
    return endings, extensions


def _grouped(found: Iterable[tuple[str, int, int, int, int]]) -> Iterator[Sample]:
    """Members as (name, start, content, its end, stop) → samples."""
    key, first, last = "", 0, 0
    parts: dict[str, tuple[int, int]] = {}
    for name, start, content, end, stop in found:
        split = _split(name)
        if split is None:
            continue
        own, extension = split
        if own != key or extension in parts:
            if parts:
                yield Sample(key, first, last, parts)
            key, first, parts = own, start, {}
        parts[extension] = (content, end)
        last = stop
    if parts:
        yield Sample(key, first, last, parts)


_POWERS = 8 ** np.arange(10, -1, -1, dtype=np.int64)
LARGE = 8192
"""Bytes of a first member from which on it is quicker to go from header to header than to look
into every record for them."""
_USTA = int.from_bytes(b"usta", "little")


_Headers = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def _plain_headers(data: bytes) -> _Headers | None:
    """Of a tar of plain ustar entries, all headers read at once; None for any other. Of each
    member its header's record, and where its content starts, ends, and its last record ends.

    All of them must say ``ustar``, and follow from each other's sizes.
    """
    number = len(data) // RECORD
    if not number or len(data) % RECORD:
        return None
    usta = np.ndarray((number,), "<u4", data, 257, (RECORD,))
    first = _octal(data[SIZE : SIZE + 11])
    at = np.flatnonzero(usta == _USTA) if first < LARGE else _walk(data)
    if not len(at) or at[0] or (usta[at] != _USTA).any():
        return None
    heads = np.ndarray((number, RECORD), np.uint8, data)[:, SIZE : PREFIX + 1][at]
    octal = heads[:, :11] - ZERO  # what is no digit wraps around, past 7
    others = heads[:, (KIND - SIZE, 261 - SIZE, PREFIX - SIZE)]
    if (octal > 7).any() or (others != (ZERO, ord("r"), 0)).any():
        return None
    sizes = octal @ _POWERS
    after = at + 1 + (sizes + RECORD - 1) // RECORD
    if after[-1] != number or (after[:-1] != at[1:]).any():
        return None
    contents = (at + 1) * RECORD
    return at, contents, contents + sizes, after * RECORD


def _walk(data: bytes) -> np.ndarray:
    """The records of the headers, each found by the size before it; none if a size is not octal."""
    found, place = [], 0
    while place < len(data):
        found.append(place // RECORD)
        size = _octal(data[place + SIZE : place + SIZE + 11])
        if size < 0:
            return np.zeros(0, dtype=np.int64)
        place += RECORD + -(-size // RECORD) * RECORD
    return np.array(found)


def _octal(digits: bytes) -> int:
    """-1 where there are others than octal digits."""
    return -1 if digits.strip(b"01234567") else int(digits, 8)


def _names(data: bytes, at: np.ndarray) -> list[bytes]:
    """What the headers in these records have for names."""
    return np.ndarray((len(data) // RECORD,), f"S{NAME}", data, 0, (RECORD,))[at].tolist()


_Plain = tuple[list[str], list[int], list[int], list[int], list[int]]


def _plain_members(data: bytes) -> _Plain | None:
    """Names, starts, contents, the ends of those, and stops of the members of such a tar."""
    found = _plain_headers(data)
    if found is None:
        return None
    at, contents, ends, stops = found
    names = _names(data, at)
    together = b"\n" + b"\n".join(names)
    odd = any(part in together for part in (b"..", b"\\", b"\n/", b"\n~"))
    if odd or together.count(b"\n") != len(names) or not together.isascii():
        return None  # perhaps harmless: the slow way will say
    return (
        together.decode().split("\n")[1:],
        (at * RECORD).tolist(),
        contents.tolist(),
        ends.tolist(),
        stops.tolist(),
    )


def _split(name: str) -> tuple[str, str] | None:
    """KEY and EXTENSION of a member that we read; None for others."""
    base = name.rfind("/") + 1
    dot = name.find(".", base)
    if dot <= base:
        return None
    extension = _extension(name[dot + 1 :])
    if extension is None or (
        name[base] == "_" and name[base:].startswith("__") and name[-2:] == "__"
    ):
        return None
    return name[:dot], extension


@lru_cache(maxsize=256)
def _extension(written: str) -> str | None:
    extension = written.lower()
    return extension if extension.rsplit(".", 1)[-1] in ALLOWED else None


def _name(head: bytes, where: str) -> str:
    name = head[:100].split(b"\0", 1)[0]
    if head[345] and head[257:262] == b"ustar" and head[263:265] == b"00":
        name = head[345:500].split(b"\0", 1)[0] + b"/" + name
    return _text(name, where)


def _text(name: bytes, where: str) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise DataError(f"{where}: member name {name!r} is not UTF-8; refused") from None


def _check_name(name: str, where: str) -> None:
    if name.startswith(("/", "~")) or "\\" in name or (".." in name and ".." in name.split("/")):
        raise DataError(f"{where}: member name {name!r} leaves the folder; refused")


def _number(field: bytes, where: str, position: int) -> int:
    """A size: octal digits, or base 256 where the first bit is set."""
    if field[0] & 0x80:
        return int.from_bytes(field[1:], "big")
    try:
        return int(field.rstrip(b"\0 ") or b"0", 8)
    except ValueError:
        raise Torn(f"{where}: no tar header at byte {position}") from None


def _check_sum(head: bytes, where: str, position: int) -> None:
    stated = _number(head[148:156].lstrip(b" "), where, position)
    if sum(head) - sum(head[148:156]) + 8 * 0x20 != stated:
        raise Torn(f"{where}: damaged header at byte {position}")


def _pax(data: bytes, where: str) -> dict[str, str]:
    """Records ``LENGTH key=value\\n`` of an extended header."""
    found: dict[str, str] = {}
    while data:
        length, _, _ = data.partition(b" ")
        if not length.isdigit() or not 0 < int(length) <= len(data):
            raise Torn(f"{where}: damaged extended header")
        key, _, value = data[len(length) + 1 : int(length) - 1].partition(b"=")
        found[_text(key, where)] = _text(value, where)
        data = data[int(length) :]
    return found
