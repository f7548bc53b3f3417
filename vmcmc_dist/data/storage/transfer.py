"""One read of an object, whole or a part, that goes on behind the bytes it has."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPException

from vmcmc_dist.data.storage.client import MIN_RATE, Client, Stats
from vmcmc_dist.data.storage.connection import Answer
from vmcmc_dist.data.storage.failures import REACH, WrongAnswer, overwritten
from vmcmc_dist.data.storage.paths import bucket_and_key
from vmcmc_dist.data.storage.quick_get import get
from vmcmc_dist.data.storage.retry import Failure, Kind

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
    """Bytes [start, end) of an object, or all of it (end None), by one ``attempt`` or several.

    Each attempt asks for the bytes that are still missing, and for the pinned version alone.
    """

    def __init__(
        self, url: str, start: int, end: int | None, pinned: Version | None, pin: Pin, stats: Stats
    ) -> None:
        self.url, self.start, self.end = url, start, end
        self.bucket, self.key = bucket_and_key(url)
        self.pinned, self._pin, self.stats = pinned, pin, stats
        self._body = io.BytesIO()  # gives its bytes out without a copy, which a bytearray cannot
        self._have = 0

    @property
    def position(self) -> int:
        """Where in the object the next byte lies."""
        return self.start + self._have

    def attempt(self, client: Client, patience: float) -> bytes:
        """Get what is missing and give all of it; raises after keeping all that came."""
        if self.position == self.end:
            return self._body.getvalue()
        headers: dict[str, str] = {}
        if self.end is not None:
            headers["Range"] = f"bytes={self.position}-{self.end - 1}"
        elif self.position:
            headers["Range"] = f"bytes={self.position}-"
        if self.pinned is not None and self.pinned.etag.startswith('"'):
            headers["If-Match"] = self.pinned.etag
        answer = get(client, self.bucket, self.key, headers, patience)
        try:
            end = self._check(answer.status, answer.headers, ranged="Range" in headers)
            self._receive(answer, end, patience)
            answer.release()
        finally:
            answer.close()
        return self._body.getvalue()

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

    def _receive(self, answer: Answer, end: int, patience: float) -> None:
        """Take the body up to ``end``, each piece within ``patience`` seconds."""
        if end > self.position:
            self._body.seek(end - self.start - 1)
            self._body.write(b"\0")  # so there is room for all
        piece, goal, limit = int(MIN_RATE * patience), 0, 0.0
        with self._body.getbuffer() as body:
            while self.position < end:
                now = time.monotonic()
                if self.position >= goal:
                    goal, limit = min(end, self.position + piece), now + patience
                elif now >= limit:
                    raise TimeoutError
                with body[self._have :] as missing:
                    self._some(answer, missing)

    def _some(self, answer: Answer, into: memoryview) -> None:
        try:
            count = answer.receive(into)
        except TimeoutError:
            raise
        except (OSError, HTTPException):
            raise WrongAnswer(_broken()) from None
        if not count:
            raise WrongAnswer(_cut(len(into)))
        self._have += count
        self.stats.add(bytes=count)


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


def _broken() -> Failure:
    return Failure(Kind.TRANSIENT, "the connection broke within the body", REACH)


def _cut(missing: int) -> Failure:
    return Failure(Kind.TRANSIENT, f"the body ended {missing} bytes too early", REACH)


def _content_range(text: str) -> tuple[int, int, int]:
    match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", text)
    if match is None:
        raise WrongAnswer(_lengthless("does not say which bytes it holds"))
    first, last, size = (int(group) for group in match.groups())
    return first, last, size
