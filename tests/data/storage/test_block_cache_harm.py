"""The cache of blocks where something is wrong: damage, a bad store, a full or closed disk."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.data.storage.cached_blocks import (
    PAGE,
    at_rest,
    block,
    get,
    has,
    join,
    key,
    place,
    refuse,
    start,
    valid,
)
from vmcmc_dist.data.storage import block_cache
from vmcmc_dist.data.storage.block_cache import BlockCache
from vmcmc_dist.errors import ConfigError, DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "blocks of a node"


@pytest.mark.parametrize("harm", ["flip", "cut", "empty"])
def test_a_damaged_block_is_dropped_counted_and_fetched_again(folder: Path, harm: str) -> None:
    cache = BlockCache(folder, 1 << 20)
    get(cache, 1)
    file = place(folder, 1)
    data = bytearray(file.read_bytes())
    data[5000] ^= 1
    file.write_bytes({"flip": bytes(data), "cut": block(1)[:-700], "empty": b""}[harm])
    assert get(cache, 1) == block(1)
    assert cache.counts.damaged == 1 and cache.counts.misses == 2
    assert cache.get(key(1), refuse, valid) == block(1)
    assert file.read_bytes() == block(1)


def test_a_bad_block_from_the_store_is_refused_and_not_kept(folder: Path) -> None:
    cache = BlockCache(folder, 1 << 20)
    with pytest.raises(DataError, match="s3://bucket/000.tar.*not what the index says"):
        cache.get(key(1), lambda: b"rubbish" * 10, valid)
    assert not has(folder, 1) and cache.counts.bytes == 0


def test_an_error_of_the_store_passes_and_leaves_no_lock(folder: Path) -> None:
    cache = BlockCache(folder, 1 << 20)

    def fail() -> bytes:
        raise ConnectionResetError("peer")

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ConnectionResetError, match="peer"):
            cache.get(key(1), fail, valid)
    with at_rest(folder) as (said, there, unfinished):
        assert said == there == 0 and unfinished == []
    assert get(cache, 1) == block(1) and has(folder, 1)


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(ConfigError, match="holds other files .*thesis.tex.*data.block_cache"):
        BlockCache(tmp_path, 1 << 20)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_ledger_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "vmcmc-block-cache").write_text("mine" * 50)
    with pytest.raises(ConfigError, match="not a block cache's"):
        BlockCache(tmp_path, 1 << 20)
    assert (tmp_path / "vmcmc-block-cache").read_text() == "mine" * 50


@pytest.mark.parametrize("lost", ["file", "boot"])
def test_a_total_that_may_be_wrong_is_counted_anew(folder: Path, lost: str) -> None:
    cache = BlockCache(folder, 1 << 20)
    for i in range(5):
        get(cache, i)
    ledger = folder / "vmcmc-block-cache"
    magic, _, _ = struct.unpack("<16s40sQ", ledger.read_bytes())
    ledger.write_bytes(struct.pack("<16s40sQ", magic, b"before", 7) if lost == "boot" else b"")
    assert BlockCache(folder, 1 << 20).counts.bytes == 5 * 3 * PAGE


def test_neither_opening_nor_reading_walks_the_blocks(folder: Path) -> None:
    cache = BlockCache(folder, 1 << 20)
    for i in range(20):
        get(cache, i)

    def look() -> None:
        walked = []
        sys.addaudithook(
            lambda event, args: walked.append(args) if event in ("os.scandir", "os.listdir") else 0
        )
        cache = BlockCache(folder, 1 << 20)
        for i in range(25):
            get(cache, i)
        assert cache.counts[:2] == (20, 5)
        assert {Path(args[0]) for args in walked} == {folder, folder / "unfinished"}

    join(start(look))


def test_an_unusable_folder_is_said_once_and_reading_goes_on(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.warns(UserWarning, match="data.block_cache: .*file/cache: Not a dir") as caught:
        cache = BlockCache(tmp_path / "file" / "cache", 1 << 20)
        for _ in range(3):
            assert get(cache, 1) == block(1)
    assert len(caught) == 1 and cache.counts[:2] == (0, 3)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SimpleNamespace]:
    """A real file system of 1 MiB, which can be made read-only; skips where it can't be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(*options: str) -> bool:
        words = ["mount", "-t", "tmpfs", *options, "tmpfs", str(folder)]
        return subprocess.run(words, capture_output=True).returncode == 0

    if not mount("-o", "size=1m"):
        pytest.skip("no right to mount a small disk here")
    yield SimpleNamespace(folder=folder, remount=lambda o: mount("-o", f"remount,{o}"))
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_is_said_once_and_reading_goes_on(disk, monkeypatch) -> None:
    folder = disk.folder / "cache"
    cache = BlockCache(folder, 1 << 30)
    get(cache, 1)
    filler = disk.folder / "filler"
    with pytest.raises(OSError, match="No space"):
        filler.write_bytes(bytes(2 << 20))
    with pytest.warns(UserWarning, match="No space left on device.*every 60 s") as caught:
        for i in (2, 3, 2):
            assert get(cache, i) == block(i)
        assert cache.get(key(1), refuse, valid) == block(1)
    assert len(caught) == 1
    with at_rest(folder) as (said, there, unfinished):
        assert said == there == 3 * PAGE and unfinished == []

    filler.unlink()
    get(cache, 2)
    assert not has(folder, 2)  # not tried at every block
    cache = BlockCache(folder, 1 << 30)
    monkeypatch.setattr(block_cache, "RETRY_SECONDS", 0.0)
    with pytest.raises(OSError, match="No space"):
        filler.write_bytes(bytes(2 << 20))
    with pytest.warns(UserWarning, match="No space"):
        get(cache, 2)
    filler.unlink()
    get(cache, 2)
    assert has(folder, 2)  # but after a while again


def test_a_disk_that_has_become_read_only_still_gives_its_blocks(disk) -> None:
    folder = disk.folder / "cache"
    cache = BlockCache(folder, 1 << 30)
    get(cache, 1)
    assert disk.remount("ro")
    with pytest.warns(UserWarning, match="Read-only file system") as caught:
        assert cache.get(key(1), refuse, valid) == block(1)
        assert get(cache, 2) == block(2)
        assert cache.get(key(1), refuse, valid) == block(1)
        assert BlockCache(folder, 1 << 30).get(key(1), refuse, valid) == block(1)
    assert len(caught) == 2  # one for each cache
    assert cache.counts[:2] == (2, 2)
    assert disk.remount("rw")


def test_it_is_for_this_user_alone(folder: Path) -> None:
    get(BlockCache(folder, 1 << 20), 1)
    assert folder.stat().st_mode & 0o077 == 0
    assert place(folder, 1).stat().st_mode & 0o077 == 0
    assert os.listdir(folder / "unfinished") == []
