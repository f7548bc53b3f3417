"""Colour JPEGs take a shorter way than other samples: to the same pixels, labels and errors."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from webdataset import TarWriter

from vmcmc_dist.data import DataConfig, ShardStream, open_manifest, rows
from vmcmc_dist.errors import DataError

N, LOCAL = 48, 6
SMALL, LARGE = (24, 16), (160, 144)  # the large has more than FEW_PIXELS
TORN, GREY, SCANS, NO_JPEG = 7, 20, 31, 40


def jpeg(row: int, size: tuple[int, int]) -> bytes:
    """Noise of one seed, with its number as its colour."""
    pixels = np.random.default_rng(row).integers(0, 40, (size[1], size[0], 3), dtype=np.uint8)
    image, file = Image.fromarray(pixels + np.uint8(4 * row)), io.BytesIO()
    if row == GREY:
        image = image.convert("L")
    image.save(file, "JPEG", quality=90)
    return file.getvalue()


def many_scans(size: tuple[int, int]) -> bytes:
    """A flat colour, so that they are as small as they are many."""
    file = io.BytesIO()
    Image.new("RGB", size, "red").save(file, "JPEG", progressive=True)
    data = file.getvalue()
    last = data[data.rfind(b"\xff\xda") : -2]
    return data[:-2] + last * 200 + data[-2:]


def shards(folder: Path, size: tuple[int, int], odd: dict[int, bytes]):
    folder.mkdir()
    for s in range(3):
        with open(folder / f"{s}.tar", "wb") as file, TarWriter(file, mtime=0) as tar:
            for row in range(s * N // 3, (s + 1) * N // 3):
                image = odd.get(row) or jpeg(row, size)
                label = str((7 * row) % 10).encode()
                tar.write({"__key__": f"{row:05d}", "jpg": image, "cls": label})
    return open_manifest(str(folder))


def epoch(manifest, short: bool, monkeypatch, **changes):
    """Pixels, labels and rows of two epochs, and what was bad."""
    if not short:
        monkeypatch.setattr(rows, "_as_they_are", lambda manifest: False)
    cfg = DataConfig(streams=3, shuffle_blocks=2, max_bad=0.2, **changes)
    with ShardStream(manifest, cfg, seed=3, local_batch=LOCAL) as stream:
        found = [next(stream) for _ in range(2 * N // LOCAL)]
        parts = [[b.x.numpy(), b.y.numpy(), b.row.numpy(), b.index.numpy()] for b in found]
        return [np.concatenate(part) for part in zip(*parts, strict=True)], stream.ledger.bad


@pytest.mark.parametrize("size", [SMALL, LARGE])
@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("cache_mb", [0, 64])
def test_it_comes_to_the_same(tmp_path, monkeypatch, size, workers, cache_mb) -> None:
    whole = jpeg(TORN, size)
    odd = {TORN: whole[: len(whole) // 2], NO_JPEG: b"this is no image"}
    if size == LARGE:
        odd[SCANS] = many_scans(size)
    manifest = shards(tmp_path / "shards", size, odd)
    settings = {"workers": workers, "cache_mb": cache_mb}
    (x, y, row, index), bad = epoch(manifest, True, monkeypatch, **settings)
    assert sorted(bad) == sorted(odd) and index.tolist() == list(range(2 * N))
    assert "scans" in bad.get(SCANS, "scans") and "neither a JPEG" in bad[NO_JPEG]
    assert (y == 7 * row % 10).all() and len(set(row.tolist())) == N - len(odd)
    for number, pixels in zip(row.tolist(), x, strict=True):
        own = np.asarray(Image.open(io.BytesIO(jpeg(number, size))).convert("RGB"))
        assert np.abs(own.transpose(2, 0, 1).astype(int) - pixels).max() <= 2, number
    slow, slow_bad = epoch(manifest, False, monkeypatch, **settings)
    for mine, other in zip((x, y, row, index), slow, strict=True):
        assert (mine == other).all()
    assert bad == slow_bad


@pytest.mark.parametrize("size", [(24, 15), (8, 8), (48, 32)])
@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_of_another_size_is_refused(tmp_path, monkeypatch, size, workers) -> None:
    manifest = shards(tmp_path / "shards", SMALL, {30: jpeg(30, size)})
    with pytest.raises(DataError, match=rf"00030.jpg: {size[0]}x{size[1]} with 3 channels"):
        epoch(manifest, True, monkeypatch, workers=workers)


def test_batches_that_are_decoded_at_once_are_the_same(tmp_path, monkeypatch) -> None:
    """And the first, which is waited for, is alone."""
    manifest = shards(tmp_path / "shards", SMALL, {TORN: b"\xff\xd8\xff"})
    fetched, fetch = [], rows.Rows.fetch

    def counted(self, wanted):
        fetched.append(len(wanted))
        return fetch(self, wanted)

    monkeypatch.setattr(rows.Rows, "fetch", counted)
    found = []
    for prefetch in (1, 4):
        fetched.clear()
        found.append(epoch(manifest, True, monkeypatch, workers=1, cache_mb=0, prefetch=prefetch))
        assert fetched[0] == LOCAL
        assert (max(fetched) > LOCAL) == (prefetch > 1), fetched
    for one, other in zip(*(arrays for arrays, _ in found), strict=True):
        assert (one == other).all()
    assert found[0][1] == found[1][1] and list(found[0][1]) == [TORN]
