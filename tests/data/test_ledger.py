"""The account of an epoch: it closes only if every sample was given out once."""

from __future__ import annotations

import numpy as np
import pytest

from vmcmc_dist.data.ledger import Ledger
from vmcmc_dist.errors import DataError

N = 50


def ledger(**changes) -> Ledger:
    return Ledger(N, **{"rank": 0, "world_size": 1, "images": 0, "max_bad": 0.1} | changes)


@pytest.mark.parametrize("world", [1, 2, 3, 7, 64])
@pytest.mark.parametrize("images", [0, 12, 49, 50, 1234])
def test_what_is_due_sums_to_the_epoch(world, images):
    readers = [ledger(rank=r, world_size=world, images=images) for r in range(world)]
    for epoch in range(images // N, images // N + 4):
        positions = [p for p in range(epoch * N, epoch * N + N) if p >= images]
        for r, reader in enumerate(readers):
            assert reader.due(epoch) == sum((p - images) % world == r for p in positions)


def give(account: Ledger, start: int, stop: int, rows=None) -> None:
    index = np.arange(start, stop)
    account.give(index, index % N if rows is None else np.array(rows))


def test_a_full_epoch_closes():
    account = ledger()
    for start in range(0, 100, 10):
        give(account, start, start + 10)


def test_a_batch_over_the_seam_belongs_to_both_epochs():
    account = ledger()
    give(account, 0, 45)
    give(account, 45, 61)
    give(account, 61, 101)


def test_a_lost_sample_is_noticed_when_the_epoch_closes():
    account = ledger()
    give(account, 0, 40)
    give(account, 41, 50)
    with pytest.raises(DataError, match="epoch 0: 49 samples were given out, the manifest says 50"):
        give(account, 50, 60)


def test_a_sample_twice_is_noticed():
    account = ledger()
    give(account, 0, 2, [40, 41])
    with pytest.raises(DataError, match="row 40 came twice"):
        give(account, 2, 4, [1, 40])


def test_a_sample_twice_in_one_batch_is_noticed_when_the_epoch_closes():
    account = ledger()
    give(account, 0, 50, [*range(49), 7])
    with pytest.raises(DataError, match="1 rows came twice"):
        give(account, 50, 51)


def test_a_resumed_epoch_is_due_from_where_it_began():
    account = ledger(images=30)
    give(account, 30, 50)
    give(account, 50, 60)


def test_bad_ones_are_counted_by_epoch():
    account = ledger(max_bad=0.04)
    for row in (3, 4):
        account.note_bad(row, row, f"shard: sample {row}")
    for row in (3, 4):  # the same two in the next epoch
        account.note_bad(N + row, row, f"shard: sample {row}")
    assert account.bad == {3: "shard: sample 3", 4: "shard: sample 4"}
    with pytest.raises(DataError, match=r"3 bad samples in epoch 1.*\n.*shard: sample 3"):
        account.note_bad(N + 5, 5, "shard: sample 5")


def test_each_reader_has_its_part_of_the_share():
    account = ledger(rank=1, world_size=2, max_bad=0.04)
    account.note_bad(1, 1, "a")
    with pytest.raises(DataError, match="2 bad samples"):
        account.note_bad(3, 3, "b")
