"""HTTP/1.1 messages between two connections: the head read, the body passed on as it comes."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

CHUNK = 256 << 10
Write = Callable[[bytes], Awaitable[None]]


@dataclass
class Head:
    """Start line and headers of a message; names in lower case, as they came in ``raw``."""

    line: str
    raw: list[tuple[str, str]]

    def __post_init__(self) -> None:
        self.fields = {name.lower(): value for name, value in self.raw}

    def encode(self, without: tuple[str, ...] = (), **extra: str) -> bytes:
        kept = [f"{n}: {v}" for n, v in self.raw if n.lower() not in without]
        kept += [f"{n}: {v}" for n, v in extra.items()]
        return ("\r\n".join([self.line, *kept]) + "\r\n\r\n").encode("latin-1")


async def read_head(reader: asyncio.StreamReader) -> Head | None:
    """The next message's head; None if the connection ends before it."""
    try:
        text = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    line, *rest = text[:-4].split("\r\n")
    pairs = (one.partition(":") for one in rest)
    return Head(line, [(name.strip(), value.strip()) for name, _, value in pairs])


async def pass_body(
    head: Head, reader: asyncio.StreamReader, data: Write, frame: Write, *, to_end: bool = False
) -> None:
    """Pass a message's body on as it comes: bytes to ``data``, the framing of chunks to ``frame``.

    ``to_end``: a body without a length, which ends with the connection.
    """
    if head.fields.get("transfer-encoding", "").lower() == "chunked":
        while True:
            size = await reader.readuntil(b"\r\n")
            await frame(size)
            count = int(size.split(b";")[0], 16)
            if count == 0:
                break
            await _exactly(reader, count, data)
            await frame(await reader.readexactly(2))
        trailer = b""
        while trailer != b"\r\n":
            trailer = await reader.readuntil(b"\r\n")
            await frame(trailer)
    elif "content-length" in head.fields:
        await _exactly(reader, int(head.fields["content-length"]), data)
    elif to_end:
        while chunk := await reader.read(CHUNK):
            await data(chunk)


async def _exactly(reader: asyncio.StreamReader, count: int, write: Write) -> None:
    while count:
        chunk = await reader.read(min(count, CHUNK))
        if not chunk:
            raise asyncio.IncompleteReadError(b"", count)
        count -= len(chunk)
        await write(chunk)


async def nowhere(data: bytes) -> None:
    """Read and forgotten."""


def to(writer: asyncio.StreamWriter) -> Write:
    async def write(data: bytes) -> None:
        writer.write(data)
        await writer.drain()

    return write


def no_delay(writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def byte_range(head: Head) -> tuple[int, int | None] | None:
    match = re.fullmatch(r"bytes=(\d+)-(\d*)", head.fields.get("range", ""))
    return (int(match[1]), int(match[2]) if match[2] else None) if match else None
