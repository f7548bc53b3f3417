"""Which request meets which fault: by seed and number, so that a run can be had again."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["status", "cut", "reset", "stall", "whole", "shifted", "flip"]


@dataclass(frozen=True)
class Request:
    """A request as the proxy sees it: number from 0, method, path with query, (first, last) byte.

    ``range`` is None without a Range header; its last is None for ``bytes=N-``.
    """

    number: int
    method: str
    path: str
    range: tuple[int, int | None] | None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Fault:
    """What befalls one request.

    status   answered with ``status`` and S3's XML with ``code``, without asking the store
    cut      the connection is closed after ``after`` bytes of the body
    reset    it is reset (RST) there
    stall    nothing more comes after them; closed after ``seconds``, or when the client leaves
    whole    the Range is ignored
    shifted  other bytes come than those asked for (by one)
    flip     one bit of byte ``after`` of the body is changed
    """

    kind: Kind
    after: int = 0
    status: int = 503
    code: str = "SlowDown"
    retry_after: int | None = None
    seconds: float = 3600.0

    def __str__(self) -> str:
        if self.kind == "status":
            return f"{self.status} {self.code}"
        return self.kind if self.kind in ("whole", "shifted") else f"{self.kind} at {self.after}"


Faults = Callable[[Request], Fault | None]


def no_faults(request: Request) -> Fault | None:
    """Everything passes."""
    return None


@dataclass(frozen=True)
class Schedule:
    """Faults by chance: each request draws from its own generator, of (seed, request number).

    The shares are probabilities and add up to at most 1. Bodies break at a random byte of the
    range asked for (of the first 64 KiB without one).
    """

    seed: int = 0
    slow_down: float = 0.0
    internal_error: float = 0.0
    cut: float = 0.0
    reset: float = 0.0
    stall: float = 0.0
    stall_s: float = 3600.0

    def __post_init__(self) -> None:
        if min(self._shares()) < 0 or sum(self._shares()) > 1 + 1e-9:
            raise ValueError("shares are ≥ 0 and add up to at most 1")

    @classmethod
    def even(cls, share: float, seed: int = 0, stall_s: float = 3600.0) -> Schedule:
        """``share`` of all requests fail, each kind as often as the others."""
        each = share / 5
        return cls(seed, each, each, each, each, each, stall_s)

    def _shares(self) -> tuple[float, ...]:
        return self.slow_down, self.internal_error, self.cut, self.reset, self.stall

    def __call__(self, request: Request) -> Fault | None:
        chance = random.Random(f"{self.seed}:{request.number}")
        draw, where = chance.random(), chance.random()
        length = 64 << 10
        if request.range and request.range[1] is not None:
            length = request.range[1] - request.range[0] + 1
        after = int(where * length)
        for share, fault in zip(
            self._shares(),
            (
                Fault("status"),
                Fault("status", status=500, code="InternalError"),
                Fault("cut", after),
                Fault("reset", after),
                Fault("stall", after, seconds=self.stall_s),
            ),
            strict=True,
        ):
            if draw < share:
                return fault
            draw -= share
        return None
