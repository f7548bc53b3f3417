"""S3 through s3fs's own client, with our retries in place of botocore's and s3fs's."""

from __future__ import annotations

import asyncio
import logging
import os
import select
import selectors
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
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


@dataclass
class Stats:
    """What was asked of the store so far: requests, body bytes, retries, seconds spent waiting."""

    requests: int = 0
    bytes: int = 0
    retries: int = 0
    waited_s: float = 0.0


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

    def call(self, url: str, attempt: Attempt[T], position: Callable[[], int] | None = None) -> T:
        """``await attempt(client, patience)`` until it succeeds; raises DataError after the budget.

        ``position`` says how far into the object the attempts have come.
        """
        return self.result(self.submit(url, attempt, position))

    def submit(
        self, url: str, attempt: Attempt[T], position: Callable[[], int] | None = None
    ) -> Future[T | GaveUp]:
        """Start a call and go on; ``result`` waits for it."""
        return self.start(self.persist(url, attempt, position))

    @staticmethod
    def start(work: Coroutine[Any, Any, T | GaveUp]) -> Future[T | GaveUp]:
        """Start several calls that belong together; ``result`` waits for them."""
        loop = fsspec.asyn.get_loop()
        _loops.add(loop)
        return asyncio.run_coroutine_threadsafe(work, loop)

    @staticmethod
    def result(future: Future[T | GaveUp]) -> T:
        """What a started call came to; raises DataError if it was given up."""
        try:
            found = future.result()
        finally:
            future.cancel()  # the call of one who waits no more; one that has ended stays as it is
        if isinstance(found, GaveUp):
            raise found.error()
        return found

    async def persist(
        self, url: str, attempt: Attempt[T], position: Callable[[], int] | None = None
    ) -> T | GaveUp:
        """The call itself, on the loop of all transfers."""
        tries = Tries(self.policy)
        fs = s3_filesystem()
        raw = None
        bucket = bucket_and_key(url)[0]
        while True:
            before = position() if position else 0
            patience = tries.patience(self.stall_s)
            try:
                raw = await fs.set_session()
                self.stats.requests += 1
                return await attempt(Client(fs, raw), patience)
            except Exception as error:
                found = classify(error, bucket, patience)
                if found is None:
                    raise
            now = position() if position else 0
            wait = tries.wait(found, progress=now > before)
            if wait is None:
                return GaveUp(url, found, tries.failed, tries.seconds, now if position else None)
            self.stats.retries += 1
            self.stats.waited_s += wait
            where = f" at byte {now}" if now else ""
            self.on_retry(f"{url}{where}: {found.what}; try {tries.failed + 1} in {wait:.1f} s")
            if found.kind is Kind.CREDENTIALS:
                await _refresh(fs, raw)
            await self.policy.sleep(wait)


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
