"""Samples that cannot be used: counted, named, replaced in step with all readers, up to a share."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import numpy as np
import pytest
from webdataset import TarWriter

from vmcmc_dist.data import DataConfig, ShardStream, open_manifest
from vmcmc_dist.data.order import EpochOrder
from vmcmc_dist.data.storage import RangeReader
from vmcmc_dist.errors import DataError

N = 60
BROKEN = (7, 30, 31)


def config(**changes) -> DataConfig:
    return DataConfig(streams=3, shuffle_blocks=2, max_bad=0.1, **changes)


@pytest.fixture
def damaged(tmp_path, grey_png):
    """Three shards of 20 numbered samples; those in BROKEN lack a whole image or a label."""
    folder = tmp_path / "shards"
    folder.mkdir()
    for s in range(3):
        with open(folder / f"{s}.tar", "wb") as file, TarWriter(file, mtime=0) as tar:
            for row in range(20 * s, 20 * s + 20):
                image, label = grey_png(row), str(row % 10).encode()
                if row == 7:
                    image = image[: len(image) // 2]
                if row == 30:
                    label = b"three"
                if row == 31:
                    image = b"this is no image"
                tar.write({"__key__": f"{row:05d}", "png": image, "cls": label})
    return open_manifest(str(folder))


def epoch(manifest, cfg, world=1, local=6):
    """(index, delivered row, number in the picture) of one epoch, all ranks; and the ledgers."""
    seen, ledgers = [], []
    for rank in range(world):
        with ShardStream(
            manifest, cfg, seed=2, rank=rank, world_size=world, local_batch=local // world
        ) as stream:
            for _ in range(N // local):
                batch = next(stream)
                numbers = batch.x[:, 0, 0, 0].long() * 256 + batch.x[:, 0, 0, 1].long()
                assert numbers.tolist() == batch.row.tolist()
                assert batch.y.tolist() == [n % 10 for n in numbers.tolist()]
                seen += zip(batch.index.tolist(), batch.row.tolist(), strict=True)
            ledgers.append(stream.ledger)
    return sorted(seen), ledgers


@pytest.mark.parametrize("cache_mb", [0, 64])
@pytest.mark.parametrize("workers", [0, 2])
def test_bad_samples_are_replaced_named_and_counted(damaged, caplog, cache_mb, workers):
    with caplog.at_level(logging.WARNING):
        seen, (ledger,) = epoch(damaged, config(cache_mb=cache_mb, workers=workers))
    assert [index for index, _ in seen] == list(range(N))
    rows = [row for _, row in seen]
    assert set(rows) == set(range(N)) - set(BROKEN)
    assert sorted(ledger.bad) == list(BROKEN)
    for row, why in ((7, "png"), (30, "no readable label"), (31, "neither a JPEG")):
        line = next(r.message for r in caplog.records if f"{row:05d}" in r.message)
        assert why in line and f"{row // 20}.tar" in line


def test_the_next_good_one_of_the_window_stands_in(damaged):
    seen, _ = epoch(damaged, config())
    order = EpochOrder(damaged.blocks["count"], seed=2, epoch=0, streams=3, shuffle_blocks=2)
    rows, _ = order.rows(np.arange(N))
    for index, row in seen:
        stream, window, offset = order.place(index)
        later = np.roll(order.window_rows(stream, window), -offset).tolist()
        assert later[0] == rows[index]
        assert row == next(r for r in later if r not in BROKEN)


@pytest.mark.filterwarnings("ignore:.*readers")
@pytest.mark.parametrize("world", [2, 3, 6])
def test_every_number_of_readers_replaces_alike(damaged, world):
    assert epoch(damaged, config(), world)[0] == epoch(damaged, config())[0]


def test_more_than_the_share_is_an_error(damaged):
    cfg = dataclasses.replace(config(), max_bad=0.034)  # two of sixty
    with pytest.raises(DataError, match=r"3 bad samples in epoch 0.*0\.034 allows") as caught:
        epoch(damaged, cfg)
    assert "sample " in str(caught.value) and ".tar" in str(caught.value)


def test_a_window_without_any_good_sample_is_an_error(damaged):
    cfg = dataclasses.replace(config(cache_mb=0, verify=False), max_bad=1.0)
    manifest = damaged
    for shard in range(3):
        path = Path(manifest.path(shard))
        path.write_bytes(path.read_bytes().replace(b"\x89PNG", b"junk"))
    with ShardStream(manifest, cfg, seed=0, local_batch=4) as stream:
        with pytest.raises(DataError, match="none of the .* samples of one window is good"):
            next(stream)


def test_a_block_that_was_damaged_is_bad_as_a_whole(make_shards, caplog):
    manifest = make_shards([20, 20, 20], per_block=2)
    path = Path(manifest.path(1))
    data = bytearray(path.read_bytes())
    start = int(manifest.blocks["start"][manifest.blocks["shard"] == 1][3])
    data[start + 700] ^= 1  # in the first image of shard 1's fourth block: rows 26 and 27
    path.write_bytes(data)
    with caplog.at_level(logging.WARNING):
        seen, (ledger,) = epoch(manifest, config())
    assert sorted(ledger.bad) == [26, 27]
    assert set(row for _, row in seen) == set(range(N)) - {26, 27}
    assert sum("checksum mismatch, read" in r.message for r in caplog.records) == 3
    seen, (ledger,) = epoch(manifest, config(verify=False))
    assert set(ledger.bad) <= {26}, "unverified, only what does not decode is noticed"


def test_bytes_that_come_right_at_the_second_read_are_used(make_shards, monkeypatch):
    manifest = make_shards([20, 20, 20], per_block=2)
    real, spoilt = RangeReader.read, set()

    def flaky(self, url, start, length):
        data = real(self, url, start, length)
        if (url, start) in spoilt:
            return data
        spoilt.add((url, start))
        return bytes([data[0] ^ 1]) + data[1:]

    monkeypatch.setattr(RangeReader, "read", flaky)
    seen, (ledger,) = epoch(manifest, config())
    assert spoilt and not ledger.bad and {row for _, row in seen} == set(range(N))
