"""Items made ahead: so many and no more, in their order, and an end to them."""

from __future__ import annotations

import itertools
import threading
import time

import pytest

from vmcmc_dist.data.prefetch import Prefetcher


def settled(made: list[int]) -> int:
    """How many were made, once no more are."""
    seen = -1
    while seen != len(made):
        seen = len(made)
        time.sleep(0.25)
    return seen


@pytest.mark.parametrize("depth", [1, 4])
def test_no_more_are_made_ahead_than_its_depth_and_the_one_in_hand(depth: int) -> None:
    made: list[int] = []
    limited = itertools.takewhile(lambda i: i < 100, itertools.count())
    items = Prefetcher((made.append(i) or i for i in limited), depth)
    assert not made, "none before the first is asked for"
    assert next(items) == 0
    assert settled(made) == 1 + depth + 1
    assert [next(items) for _ in range(3)] == [1, 2, 3]
    assert settled(made) == 4 + depth + 1
    assert list(items) == list(range(4, 100))
    items.close()


def test_an_error_comes_after_what_was_made_before_it() -> None:
    def items():
        yield 1
        raise ValueError("the third shard is torn")

    ahead = Prefetcher(items(), 3)
    assert next(ahead) == 1
    with pytest.raises(ValueError, match="third shard"):
        next(ahead)
    with pytest.raises(StopIteration):
        next(ahead)


def test_closing_ends_the_thread_also_while_it_waits_for_room() -> None:
    before = threading.active_count()
    ahead = Prefetcher(iter(range(1000)), 2)
    assert next(ahead) == 0 and threading.active_count() == before + 1
    ahead.close()
    assert threading.active_count() == before
    assert list(ahead) == []


def test_without_depth_there_is_no_thread() -> None:
    before = threading.active_count()
    assert list(Prefetcher(iter(range(5)), 0)) == list(range(5))
    assert threading.active_count() == before
