"""Batches of given rows: in their order, bad ones replaced and named, across shards and blocks."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import numpy as np
import pytest

from vmcmc_dist.data import DataConfig
from vmcmc_dist.data.given_rows import read_rows
from vmcmc_dist.errors import DataError

CFG = DataConfig(max_bad=0.2)


def numbers(batches) -> list[int]:
    out = []
    for batch in batches:
        carried = batch.x[:, 0, 0, 0].long() * 256 + batch.x[:, 0, 0, 1].long()
        assert carried.tolist() == batch.row.tolist()
        out += carried.tolist()
    return out


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_rows_come_in_the_order_asked_for(make_shards, workers, batch_size):
    manifest = make_shards([5, 9, 3], per_block=2)
    rows = np.array([16, 0, 3, 3, 12, 7, 8, 1])
    cfg = dataclasses.replace(CFG, workers=workers)
    batches = list(read_rows(manifest, cfg, rows, batch_size))
    assert numbers(batches) == rows.tolist()
    assert [len(b.x) for b in batches][:-1] == [batch_size] * (len(batches) - 1)


def damage(manifest, row: int) -> None:
    """Break one image of the first shard, and leave its block's checksum unverified."""
    path = Path(manifest.path(0))
    data = path.read_bytes()
    parts = data.split(b"\x89PNG")
    path.write_bytes(
        b"\x89PNG".join(parts[: row + 1]) + b"junk" + b"\x89PNG".join(parts[row + 1 :])
    )


def test_a_bad_row_is_named_and_replaced_by_the_next_good_one(make_shards, caplog):
    manifest = make_shards([5, 9, 3], per_block=2)
    damage(manifest, 3)
    cfg = dataclasses.replace(CFG, verify=False)
    with caplog.at_level(logging.WARNING):
        assert numbers(read_rows(manifest, cfg, np.array([2, 3, 16, 0, 5]))) == [2, 4, 16, 0, 5]
    assert "000.tar: sample 00003" in caplog.text


def test_too_many_bad_rows_are_an_error(make_shards):
    manifest = make_shards([5, 9, 3], per_block=2)
    damage(manifest, 3)
    cfg = dataclasses.replace(CFG, verify=False, max_bad=0.1)
    with pytest.raises(DataError, match="1 of 5 samples are bad.*0.1 allows.*sample 00003"):
        list(read_rows(manifest, cfg, np.array([2, 3, 16, 0, 5])))
