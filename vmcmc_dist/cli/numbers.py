"""Numbers on a command line, within their range."""

from __future__ import annotations

import argparse
from collections.abc import Callable


def positive(text: str) -> int:
    """A whole number ≥ 1, of argparse's ``type``; else argparse says what is wrong, status 2."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number ≥ 1")
    return int(text)


def several(least: int) -> Callable[[str], tuple[int, ...]]:
    """``1,2,4``: whole numbers ≥ ``least`` with commas between them; likewise."""

    def numbers(text: str) -> tuple[int, ...]:
        parts = text.split(",")
        if not all(part.isdecimal() and int(part) >= least for part in parts):
            raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers ≥ {least}, as 1,2,4")
        return tuple(int(part) for part in parts)

    return numbers
