"""When a read that failed is tried again, and when it is given up."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """What a failure is good for: another try, another try with fresh credentials, an error."""

    TRANSIENT = "transient"
    CREDENTIALS = "credentials"
    PERMANENT = "permanent"


@dataclass(frozen=True)
class Failure:
    """One failed try in our own words: no text of the store's or of a library's error enters it.

    what         what happened, e.g. ``503 SlowDown``
    hint         what to do about it, should it stay so
    retry_after  seconds that the store asked to wait, or None
    limit        consecutive tries after which this failure is no accident, or None = the policy's
    """

    kind: Kind
    what: str
    hint: str
    retry_after: float | None = None
    limit: int | None = None


@dataclass(frozen=True)
class RetryPolicy:
    """Exponential backoff with full jitter: wait ~ U(0, min(longest_s, first_s · 2ⁿ)), n = 0, 1, …

    seconds  budget of one read, counted from its first failure (the work of a first try that goes
             well is never cut short by it)
    tries    consecutive tries that bring no byte; one that does begins the count anew
    sleep, uniform, clock  time and chance, for tests
    """

    seconds: float = 120.0
    tries: int = 64
    first_s: float = 0.2
    longest_s: float = 10.0
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
    uniform: Callable[[float, float], float] = random.uniform
    clock: Callable[[], float] = time.monotonic


class Tries:
    """The tries of one read under a policy.

    After each failed try ``wait`` says how long to wait before the next, or None to give up.
    """

    def __init__(self, policy: RetryPolicy) -> None:
        self.policy = policy
        self.failed = 0
        self.waited = 0.0
        self._fruitless = 0
        self._refreshed = False
        self._began: float | None = None

    @property
    def seconds(self) -> float:
        """Since the first failure."""
        return 0.0 if self._began is None else self.policy.clock() - self._began

    def patience(self, stall_s: float) -> float:
        """How long the coming try may go without a byte: ``stall_s``, or what the budget leaves."""
        if self._began is None:
            return stall_s
        return min(stall_s, max(1.0, self.policy.seconds - self.seconds))

    def wait(self, failure: Failure, *, progress: bool = False) -> float | None:
        """Seconds to wait before the next try (0 where fresh credentials are tried), or None.

        ``progress``: the failed try brought bytes.
        """
        if self._began is None:
            self._began = self.policy.clock()
        self.failed += 1
        self._fruitless = 1 if progress else self._fruitless + 1
        if failure.kind is Kind.PERMANENT:
            return None
        if failure.kind is Kind.CREDENTIALS:
            if self._refreshed:
                return None
            self._refreshed = True
            return 0.0
        left = self.policy.seconds - self.seconds
        limit = self.policy.tries if failure.limit is None else failure.limit
        if left <= 0 or self._fruitless >= limit:
            return None
        longest = min(self.policy.longest_s, self.policy.first_s * 2.0 ** (self._fruitless - 1))
        wait = self.policy.uniform(0.0, longest)
        if failure.retry_after is not None:
            if failure.retry_after > left:
                return None
            wait = max(wait, failure.retry_after)
        wait = min(wait, left)
        self.waited += wait
        return wait
