"""The closed form of an epoch's order, against the same order dealt card by card."""

from __future__ import annotations

import numpy as np
import pytest

from vmcmc_dist.data.order import EpochOrder, coin_flips

UNEVEN = [5, 1, 9, 3, 3, 12, 2, 7, 1, 4, 6]


def order(counts, **changes):
    settings = {"seed": 3, "epoch": 2, "streams": 4, "shuffle_blocks": 2} | changes
    return EpochOrder(np.array(counts), **settings)


@pytest.mark.parametrize("streams", [1, 2, 3, 4, 11, 40])
def test_equals_dealing_one_by_one(streams):
    epoch = order(UNEVEN, streams=streams)
    hands = [
        np.concatenate([epoch.window_rows(c, w) for w in range(epoch.windows(c))]).tolist()
        for c in range(epoch.streams)
    ]
    dealt = []
    while any(hands):
        dealt += [hand.pop(0) for hand in hands if hand]
    rows, _ = epoch.rows(np.arange(epoch.length))
    assert rows.tolist() == dealt
    assert sorted(dealt) == list(range(sum(UNEVEN)))


def test_asking_in_pieces_is_the_same():
    whole, _ = order(UNEVEN).rows(np.arange(53))
    pieces = [int(order(UNEVEN).rows(np.array([p]))[0][0]) for p in range(53)]
    assert whole.tolist() == pieces


def test_epoch_and_seed_change_it_and_nothing_is_left_in_place():
    rows = [
        order([50] * 20, seed=s, epoch=e).rows(np.arange(1000))[0]
        for s, e in ((0, 0), (0, 1), (1, 0))
    ]
    for i in range(3):
        for j in range(i):
            assert (rows[i] == rows[j]).mean() < 0.02
        assert abs(np.corrcoef(rows[i], np.arange(1000))[0, 1]) < 0.35


def windows(epoch: EpochOrder) -> list[list[list[int]]]:
    """The blocks of each window of each stream."""
    return [
        [epoch.blocks(c, w).tolist() for w in range(epoch.windows(c))] for c in range(epoch.streams)
    ]


def test_blocks_meet_others_in_every_epoch():
    met = [
        {frozenset(w) for hand in windows(order([5] * 40, epoch=e)) for w in hand if len(w) > 1}
        for e in (0, 1)
    ]
    assert met[0] and len(met[0] & met[1]) < 5


def test_every_block_is_in_one_window():
    for blocks, streams in ((1, 4), (7, 4), (24, 4), (41, 3)):
        hands = windows(order([3] * blocks, streams=streams, shuffle_blocks=4))
        assert sorted(b for hand in hands for w in hand for b in w) == list(range(blocks))


def test_without_shuffling_it_is_the_shards_order():
    rows, _ = order(UNEVEN, shuffle=False).rows(np.arange(53))
    assert rows.tolist() == list(range(53))


def test_windows_grow_to_their_bound():
    epoch = order([10] * 4 * 20, streams=4, shuffle_blocks=6)
    assert [[len(w) for w in hand] for hand in windows(epoch)] == [[1, 2, 4, 6, 6, 1]] * 4


def test_a_place_is_where_its_row_is():
    epoch = order(UNEVEN)
    rows, _ = epoch.rows(np.arange(53))
    for position in range(53):
        stream, window, offset = epoch.place(position)
        assert epoch.window_rows(stream, window)[offset] == rows[position]


@pytest.mark.parametrize("step", [1, 3, 8])
def test_any_positions_give_the_rows_of_each(step: int):
    """Ends of windows within, at the start and at the end of what is asked for."""
    epoch = order(UNEVEN)
    whole, _ = epoch.rows(np.arange(53))
    for start in range(53):
        for stop in range(start + 1, 54):
            positions = np.arange(start, stop, step)
            rows, touched = epoch.rows(positions)
            assert (rows == whole[positions]).all(), (start, stop)
            places = [epoch.place(int(position)) for position in positions]
            for reach in touched:
                seen = [place.window for place in places if place.stream == reach.stream]
                assert (reach.first, reach.last) == (min(seen), max(seen))
            assert {reach.stream for reach in touched} == {place.stream for place in places}


def test_blocks_of_several_windows_are_those_of_each():
    epoch = order([10] * 50, streams=4, shuffle_blocks=3)
    for stream in range(4):
        number = epoch.windows(stream)
        for first in range(number + 2):
            for end in range(first + 1, number + 3):
                each = [epoch.blocks(stream, w).tolist() for w in range(first, min(end, number))]
                assert epoch.blocks(stream, first, end).tolist() == sum(each, [])


def test_reach_names_the_windows_touched():
    epoch = order(UNEVEN)
    rows, touched = epoch.rows(np.arange(8, 30))
    of_block = np.repeat(np.arange(len(UNEVEN)), UNEVEN)
    blocks = {
        int(b)
        for reach in touched
        for w in range(reach.first, reach.last + 1)
        for b in epoch.blocks(reach.stream, w)
    }
    assert set(of_block[rows].tolist()) <= blocks
    for reach in touched:
        assert epoch.window_of(reach.stream, reach.place) == reach.last


def test_a_hundred_thousand_blocks_are_quick():
    epoch = order([100] * 100_000, streams=256)
    rows, _ = epoch.rows(np.arange(9_999_000, 9_999_512))
    assert len(set(rows.tolist())) == 512


def test_coins_are_fair_and_belong_to_the_sample():
    index = np.arange(20_000)
    coins = coin_flips(7, index)
    assert abs(coins.mean() - 0.5) < 0.02
    assert (coins[500:600] == coin_flips(7, index[500:600])).all()
    assert 0.45 < (coins == coin_flips(8, index)).mean() < 0.55
