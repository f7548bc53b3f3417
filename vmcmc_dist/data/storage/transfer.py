"""One read of an object, whole or a part, that goes on behind the bytes it has."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from vmcmc_dist.data.storage.client import MIN_RATE, Client, Stats
from vmcmc_dist.data.storage.failures import REACH, WrongAnswer, overwritten
from vmcmc_dist.data.storage.paths import bucket_and_key
from vmcmc_dist.data.storage.quick_get import get
from vmcmc_dist.data.storage.retry import Failure, Kind

READ_BYTES = 1 << 20
"""How much of a body may lie unread before the connection is told to wait: more than a block."""
FEW = 3
"""Tries of an answer that is wrong and not merely missing: it will hardly get better."""


@dataclass(frozen=True)
class Version:
    """An object as it was at its first response: ETag ("" if the store gives none) and bytes."""

    etag: str
    size: int


Pin = Callable[[Version], Version]
"""Told of the version in each response, it returns the first one seen of the object."""


class Transfer:
    """Bytes [start, end) of an object, or all of it (end None); ``attempt`` until ``data`` is full.

    Each attempt asks for the bytes that are still missing, and for the pinned version alone.
    """

    def __init__(
        self, url: str, start: int, end: int | None, pinned: Version | None, pin: Pin, stats: Stats
    ) -> None:
        self.url, self.start, self.end = url, start, end
        self.bucket, self.key = bucket_and_key(url)
        self.pinned, self._pin, self.stats = pinned, pin, stats
        self._chunks: list[bytes] = []
        self._have = 0

    @property
    def position(self) -> int:
        """Where in the object the next byte lies."""
        return self.start + self._have

    async def attempt(self, client: Client, patience: float) -> bytes:
        """Get what is missing; raises after keeping all that came."""
        if self.position == self.end:
            return b"".join(self._chunks)
        headers: dict[str, str] = {}
        if self.end is not None:
            headers["Range"] = f"bytes={self.position}-{self.end - 1}"
        elif self.position:
            headers["Range"] = f"bytes={self.position}-"
        if self.pinned is not None and self.pinned.etag.startswith('"'):
            headers["If-Match"] = self.pinned.etag
        async with asyncio.timeout(patience):
            answer = await get(client, self.bucket, self.key, headers)
        http = answer.raw
        try:
            end = self._check(answer.status_code, answer.headers, ranged="Range" in headers)
            await self._receive(http.content, end, patience)
            http.release()
        finally:
            http.close()  # a connection that was released goes on
        return b"".join(self._chunks)

    def _check(self, status: int, headers: Mapping[str, str], *, ranged: bool) -> int:
        """Where the body ends, after making sure that it begins at the position and is ours."""
        etag = headers.get("etag", "")
        if status == 206 and ranged:
            first, last, size = _content_range(headers.get("content-range", ""))
            self._same(Version(etag, size))
            if self.end is not None and size < self.end:
                raise WrongAnswer(too_short(size, self.end))
            if first != self.position or last + 1 != (self.end or size):
                raise WrongAnswer(
                    Failure(
                        Kind.TRANSIENT,
                        f"bytes {first} to {last} came, not those asked for",
                        "the store or a proxy before it answers ranged reads wrongly; copy the "
                        "shards to another store or a local disk",
                        limit=FEW,
                    )
                )
            return last + 1
        stated = headers.get("content-length", "")
        if not stated.isdecimal():
            raise WrongAnswer(_lengthless("does not say its length"))
        length = int(stated)
        self._same(Version(etag, length))
        if self.position or (self.end is not None and length > self.end):
            raise WrongAnswer(
                Failure(
                    Kind.TRANSIENT,
                    f"the whole object came ({status}), not the range asked for",
                    "the store or a proxy before it cannot do ranged reads; copy the shards to "
                    "another store or a local disk",
                    limit=FEW,
                )
            )
        if self.end is not None and length < self.end:
            raise WrongAnswer(too_short(length, self.end))
        return length

    def _same(self, seen: Version) -> None:
        self.pinned = self._pin(seen)
        if self.pinned != seen:
            raise WrongAnswer(overwritten())

    async def _receive(self, content: Any, end: int, patience: float) -> None:
        """Take the body up to ``end``, each piece within ``patience`` seconds."""
        piece = int(MIN_RATE * patience)
        goal = min(end, self.position + piece)
        content.set_read_chunk_size(READ_BYTES)
        clock = asyncio.get_running_loop().time
        try:
            async with asyncio.timeout(patience) as limit:
                while self.position < end:
                    chunk = await content.readany()
                    if not chunk:
                        raise WrongAnswer(_cut(end - self.position))
                    self._take(chunk, end)
                    if self.position >= goal:
                        goal = min(end, self.position + piece)
                        limit.reschedule(clock() + patience)
        finally:
            # a broken connection is raised before what had come is handed out; it is good
            if content.exception() is not None:
                self._take(content._read_nowait(-1), end)

    def _take(self, chunk: bytes, end: int) -> None:
        chunk = chunk[: end - self.position]
        self._chunks.append(chunk)
        self._have += len(chunk)
        self.stats.bytes += len(chunk)


def too_short(size: int, end: int) -> Failure:
    """The object ends before the bytes that are asked for."""
    return Failure(
        Kind.PERMANENT,
        f"it has {size} bytes, bytes up to {end} were asked for: torn or overwritten",
        "copy it again or prepare the data again",
    )


def _lengthless(what: str) -> Failure:
    return Failure(
        Kind.TRANSIENT,
        f"an answer that {what}",
        "the store or a proxy before it answers wrongly; copy the shards to another store or a "
        "local disk",
        limit=FEW,
    )


def _cut(missing: int) -> Failure:
    return Failure(Kind.TRANSIENT, f"the body ended {missing} bytes too early", REACH)


def _content_range(text: str) -> tuple[int, int, int]:
    match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", text)
    if match is None:
        raise WrongAnswer(_lengthless("does not say which bytes it holds"))
    first, last, size = (int(group) for group in match.groups())
    return first, last, size
