"""The closed form of an epoch's order, against the same order dealt card by card."""

from __future__ import annotations

import numpy as np
import pytest

from vmcmc_dist.data.order import EpochOrder, coin_flips

UNEVEN = [5, 1, 9, 3, 3, 12, 2, 7, 1, 4, 6]


def order(counts, **changes):
    settings = {"seed": 3, "epoch": 2, "streams": 4, "shuffle_shards": 2} | changes
    return EpochOrder(np.array(counts), **settings)


@pytest.mark.parametrize("streams", [1, 2, 3, 4, 11, 40])
def test_equals_dealing_one_by_one(streams):
    epoch = order(UNEVEN, streams=streams)
    hands = [
        np.concatenate([epoch.group_rows(c, g) for g in range(len(groups))]).tolist()
        for c, groups in enumerate(epoch.groups)
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


def test_shards_meet_others_in_every_epoch():
    groups = [
        {frozenset(g.tolist()) for hand in order([5] * 40, epoch=e).groups for g in hand}
        for e in (0, 1)
    ]
    assert len(groups[0] & groups[1]) < 5


def test_without_shuffling_it_is_the_shards_order():
    rows, _ = order(UNEVEN, shuffle=False).rows(np.arange(53))
    assert rows.tolist() == list(range(53))


def test_a_group_is_bounded():
    epoch = order([10] * 24, streams=4, shuffle_shards=3)
    assert [len(groups) for groups in epoch.groups] == [2] * 4
    assert all(len(group) == 3 for groups in epoch.groups for group in groups)


def test_ten_thousand_shards_are_quick():
    epoch = order([1000] * 10_000, streams=256)
    rows, _ = epoch.rows(np.arange(9_999_000, 9_999_512))
    assert len(set(rows.tolist())) == 512


def test_coins_are_fair_and_belong_to_the_sample():
    index = np.arange(20_000)
    coins = coin_flips(7, index)
    assert abs(coins.mean() - 0.5) < 0.02
    assert (coins[500:600] == coin_flips(7, index[500:600])).all()
    assert 0.45 < (coins == coin_flips(8, index)).mean() < 0.55
