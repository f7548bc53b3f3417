"""S3 through s3fs's own client, with our retries in place of botocore's and s3fs's."""

from __future__ import annotations

import asyncio
import logging
import os
import select
import selectors
import threading
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

import fsspec
import fsspec.asyn

from vmcmc_dist.data.storage.failures import classify
from vmcmc_dist.data.storage.paths import bucket_and_key
from vmcmc_dist.data.storage.retry import Failure, Kind, RetryPolicy, Tries
from vmcmc_dist.errors import DataError

T = TypeVar("T")
Attempt = Callable[["Client", float], Awaitable[T]]
log = logging.getLogger(__name__)

CONNECTIONS = 256
SETTINGS = {
    # stores other than AWS reject or ignore the checksum trailers; ours are MD5s of parts
    "request_checksum_calculation": "when_required",
    "response_checksum_validation": "when_required",
    "max_pool_connections": CONNECTIONS,
    "connect_timeout": 5,
}
OURS = {
    "retries": {"total_max_attempts": 1, "mode": "standard"},
    "read_timeout": 3600,  # a stall is noticed by us, per piece of a body
}
MIN_RATE = 4 << 10
"""Bytes per second; less than this for ``stall_s`` seconds is a stall."""


def s3_filesystem() -> Any:
    """s3fs's filesystem of this process, with its usual settings (environment, ~/.config/fsspec).

    fsspec keeps one instance per process, so a fork makes a new one by itself.
    """
    import s3fs  # heavy, so only when needed

    given = fsspec.config.conf.get("s3", {}).get("config_kwargs", {})
    return s3fs.S3FileSystem(config_kwargs={**SETTINGS, **given, **OURS})


@dataclass(frozen=True)
class Client:
    """A connected client of one moment, as s3fs configured it."""

    fs: Any
    raw: Any

    async def request(self, method: str, **fields: Any) -> dict[str, Any]:
        """One request, e.g. ``get_object``, with s3fs's settings for all requests added."""
        call = getattr(self.raw, method)
        return await call(**self.fs._get_s3_method_kwargs(call, **fields))


_counting = threading.Lock()


def _count_anew() -> None:
    """A lock of this process's own: another thread may have held the parent's as it forked."""
    global _counting
    _counting = threading.Lock()


os.register_at_fork(after_in_child=_count_anew)


@dataclass
class Stats:
    """What was asked of the store so far: requests, body bytes, retries, seconds spent waiting."""

    requests: int = 0
    bytes: int = 0
    retries: int = 0
    waited_s: float = 0.0

    def add(
        self, *, requests: int = 0, bytes: int = 0, retries: int = 0, waited_s: float = 0.0
    ) -> None:
        """From any thread."""
        with _counting:
            self.requests += requests
            self.bytes += bytes
            self.retries += retries
            self.waited_s += waited_s


@dataclass(frozen=True)
class GaveUp:
    """A request that failed for good, as a value: no library's error is left to be chained."""

    url: str
    failure: Failure
    tries: int
    seconds: float
    position: int | None

    def error(self) -> DataError:
        """The error that names the object, what failed last, how often it was tried, what to do."""
        where = "" if not self.position else f" at byte {self.position}"
        often = f" ({self.tries} tries over {self.seconds:.0f} s)" if self.tries > 1 else ""
        return DataError(f"{self.url}: {self.failure.what}{where}{often}; {self.failure.hint}")


def _log_retry(line: str) -> None:
    log.warning("%s", line)


@dataclass
class S3:
    """Requests that are tried again by ``policy``; safe to use from many threads and after a fork.

    stall_s   seconds without a byte after which a connection is dropped
    on_retry  is told of each retry in one line; called on the thread of all transfers, so it must
              be quick. Left out, the line is logged as a warning.
    """

    policy: RetryPolicy = field(default_factory=RetryPolicy)
    stall_s: float = 15.0
    on_retry: Callable[[str], None] = _log_retry
    stats: Stats = field(default_factory=Stats)
    _known: tuple[int, Any] = (0, None)

    def call(self, url: str, attempt: Attempt[T]) -> T:
        """``await attempt(client, patience)`` until it succeeds; DataError after the budget."""
        return done(on_loop(self.persist(url, attempt)))

    async def persist(self, url: str, attempt: Attempt[T]) -> T | GaveUp:
        """The call itself, on the loop of all transfers."""
        tries = Tries(self.policy)
        fs = s3_filesystem()
        raw = None
        bucket = bucket_and_key(url)[0]
        while True:
            patience = tries.patience(self.stall_s)
            try:
                raw = await fs.set_session()
                self.stats.add(requests=1)
                return await attempt(Client(fs, raw), patience)
            except Exception as error:
                found = classify(error, bucket, patience)
                if found is None:
                    raise
            given_up = await self._after(url, tries, found, (fs, raw))
            if given_up is not None:
                return given_up

    def insist(
        self, url: str, attempt: Callable[[Client, float], T], position: Callable[[], int]
    ) -> T:
        """``attempt(client, patience)`` by the calling thread, as ``call`` does on the loop.

        ``position`` says how far into the object the attempts have come.
        """
        tries = Tries(self.policy)
        fs = self._filesystem()
        raw = None
        bucket = bucket_and_key(url)[0]
        while True:
            before = position()
            patience = tries.patience(self.stall_s)
            try:
                raw = fs.s3
                self.stats.add(requests=1)
                return attempt(Client(fs, raw), patience)
            except Exception as error:
                found = classify(error, bucket, patience)
                if found is None:
                    raise
            given_up = on_loop(self._after(url, tries, found, (fs, raw), before, position()))
            if given_up is not None:
                raise given_up.error()

    def _filesystem(self) -> Any:
        """s3fs's of this process, looked up once."""
        if self._known[0] != os.getpid():
            self._known = os.getpid(), s3_filesystem()
        return self._known[1]

    async def _after(
        self,
        url: str,
        tries: Tries,
        failure: Failure,
        used: tuple[Any, Any],
        before: int = 0,
        now: int | None = None,
    ) -> GaveUp | None:
        """What follows a failed try: a wait before the next one (None), or an end of it."""
        wait = tries.wait(failure, progress=now is not None and now > before)
        if wait is None:
            return GaveUp(url, failure, tries.failed, tries.seconds, now)
        self.stats.add(retries=1, waited_s=wait)
        where = f" at byte {now}" if now else ""
        self.on_retry(f"{url}{where}: {failure.what}; try {tries.failed + 1} in {wait:.1f} s")
        if failure.kind is Kind.CREDENTIALS:
            await _refresh(*used)
        await self.policy.sleep(wait)
        return None


def on_loop(work: Coroutine[Any, Any, T], patience: float | None = None) -> T:
    """Run it on the loop of all transfers and wait; TimeoutError after ``patience`` seconds."""
    loop = fsspec.asyn.get_loop()
    _loops.add(loop)
    future = asyncio.run_coroutine_threadsafe(asyncio.wait_for(work, patience), loop)
    try:
        return future.result()
    finally:
        future.cancel()  # the work of one who waits no more; what has ended stays as it is


def done(found: T | GaveUp) -> T:
    """What a call came to; raises DataError if it was given up."""
    if isinstance(found, GaveUp):
        raise found.error()
    return found


_loops: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()


def _let_go_of_the_parents_loop() -> None:
    """Give the inherited loop an epoll of this process's own.

    A forked child shares the parent's: as it collects the parent's connections as garbage, it would
    take them out of it, and the parent would wait for answers that it is never told of.
    """
    for loop in _loops:
        selector = getattr(loop, "_selector", None)
        if isinstance(selector, selectors.EpollSelector):
            with select.epoll() as own:
                os.dup2(own.fileno(), selector.fileno(), inheritable=False)


if hasattr(selectors, "EpollSelector"):  # elsewhere a child inherits none
    os.register_at_fork(after_in_child=_let_go_of_the_parents_loop)


_refreshing: weakref.WeakKeyDictionary[Any, asyncio.Lock] = weakref.WeakKeyDictionary()


async def _refresh(fs: Any, used: Any) -> None:
    """Look the credentials up anew, once for all requests that failed with the same client."""
    async with _refreshing.setdefault(fs, asyncio.Lock()):
        if await fs.set_session() is used:
            await fs.set_session(refresh=True)
