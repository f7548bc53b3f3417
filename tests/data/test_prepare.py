"""Preparation: deterministic, idempotent, atomic; bad raw data is counted, named or refused."""

from __future__ import annotations

import dataclasses
import importlib
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vmcmc_dist.data import (
    DataConfig,
    ShardStream,
    ensure_prepared,
    inspect,
    open_manifest,
    open_stream,
    prepare,
)
from vmcmc_dist.data.shard_plan import shard_samples
from vmcmc_dist.errors import ConfigError, DataError, ResourceError

PREPARE = importlib.import_module("vmcmc_dist.data.prepare")


def config(root: Path, **changes) -> DataConfig:
    cfg = DataConfig(source="arrays", root=str(root), shard_samples=10, prepare_workers=1)
    return dataclasses.replace(cfg, **changes)


def photos(folder: Path, good: int, bad: int) -> Path:
    """A folder of ``good`` 12x10 images in two classes, and ``bad`` files that do not decode."""
    for i in range(good):
        path = folder / ("ant" if i % 2 else "bee") / f"{i:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((10, 12, 3), i, np.uint8)).save(path)
    for i in range(bad):
        (folder / "bee" / f"torn{i}.jpg").write_bytes(b"\xff\xd8\xff not a picture")
    return folder


def test_what_went_in_comes_out(arrays):
    manifest = prepare(config(arrays))
    assert manifest.shape == (1, 8, 8) and manifest.num_samples == 45
    assert [shard.count for shard in manifest.shards] == [10, 10, 10, 10, 5]
    images = np.load(arrays / "images.npy")
    with ShardStream(manifest, DataConfig(), seed=0, local_batch=45) as stream:
        batch = next(stream)
    assert (batch.x[:, 0].numpy() == images[batch.row]).all()
    assert batch.y.tolist() == [r % 5 for r in batch.row.tolist()]


@pytest.mark.slow  # (a quick one is in test_prepare_resume.py, with two processes)
def test_same_input_same_bytes_for_any_number_of_processes(arrays, tmp_path):
    one = prepare(config(arrays, shards=str(tmp_path / "one")))
    two = prepare(config(arrays, shards=str(tmp_path / "two"), prepare_workers=3))
    assert one.checksum == two.checksum
    for shard in one.shards:
        pair = [(tmp_path / n / shard.name).read_bytes() for n in ("one", "two")]
        assert pair[0] == pair[1]
    assert one.to_json() == two.to_json()


def test_found_the_second_time_and_made_anew_when_raw_changes(arrays, monkeypatch):
    first = prepare(config(arrays))
    stamp = Path(first.path(0)).stat().st_mtime_ns
    again = prepare(config(arrays))
    assert again == first and Path(again.path(0)).stat().st_mtime_ns == stamp
    np.save(arrays / "images.npy", np.zeros((45, 8, 8), np.uint8))
    assert prepare(config(arrays)).checksum != first.checksum


def test_progress_counts_samples(arrays):
    calls = []
    prepare(config(arrays), lambda *call: calls.append(call))
    assert calls[0] == ("shards", 10, 45) and calls[-1] == ("shards", 45, 45)


def test_bad_images_are_counted_named_and_skipped(tmp_path):
    root = photos(tmp_path / "photos", good=20, bad=2)
    cfg = DataConfig(source="folder", root=str(root), image_size=8, max_bad=0.1, shard_samples=6)
    manifest = prepare(cfg)
    assert manifest.num_samples == 20 and manifest.bad == ("bee/torn0.jpg", "bee/torn1.jpg")
    assert manifest.labels.names == ("ant", "bee")
    assert inspect(manifest).histogram == {"ant": 10, "bee": 10}


def test_too_many_bad_images_are_an_error_that_names_them_and_loses_no_work(tmp_path, cache):
    root = photos(tmp_path / "photos", good=20, bad=2)
    cfg = DataConfig(source="folder", root=str(root), image_size=8, max_bad=0.05)
    with pytest.raises(DataError, match=r"2 of 22 images do not decode.*bee/torn0\.jpg"):
        prepare(cfg)
    shard = next((cache / "shards").rglob("*.tar"))
    stamp = shard.stat().st_mtime_ns
    assert prepare(dataclasses.replace(cfg, max_bad=0.1)).num_samples == 20
    assert shard.stat().st_mtime_ns == stamp


def test_a_decompression_bomb_is_bad(tmp_path):
    root = photos(tmp_path / "photos", good=2, bad=0)
    with pytest.raises(DataError, match="do not decode"):
        prepare(DataConfig(source="folder", root=str(root), image_size=8, max_pixels=50))


def test_small_images_are_counted_and_refused_on_request(tmp_path):
    root = photos(tmp_path / "photos", good=6, bad=0)
    Image.new("RGB", (40, 40)).save(root / "bee" / "large.png")
    cfg = DataConfig(source="folder", root=str(root), image_size=16)
    with pytest.raises(DataError, match="86% of the images looked at are smaller than 16x16"):
        prepare(cfg, allow_upscaling=False)
    manifest = prepare(cfg)
    assert manifest.small == 6 and open_manifest(manifest.base).small == 6
    assert inspect(manifest).small == 6
    assert prepare(dataclasses.replace(cfg, image_size=10), allow_upscaling=False).small == 0


def test_shards_are_cut_by_size_where_no_number_is_given(arrays):
    assert len(prepare(config(arrays, shard_samples=None)).shards) == 1
    assert shard_samples(1_000_000, 50_000) == 1024  # 49 MiB
    assert shard_samples(60_000, 2048) == 2048  # at least 16 shards
    assert shard_samples(500, 2048) == 64  # but no fewer than 64 samples for that
    assert shard_samples(500, 10 << 20) == 4


@pytest.mark.parametrize("make", [False, True])
def test_missing_or_empty_root(tmp_path, make):
    root = tmp_path / "nowhere"
    if make:
        root.mkdir()
    with pytest.raises(DataError, match="nowhere.*(data.root|empty)"):
        ensure_prepared(DataConfig(source="celeba", root=str(root)))
    with pytest.raises(ConfigError, match="data.root"):
        ensure_prepared(DataConfig(source="celeba"))


def test_a_folder_of_other_shards_is_not_overwritten(arrays, tmp_path):
    out = str(tmp_path / "out")
    prepare(config(arrays, shards=out))
    with pytest.raises(DataError, match="other data or settings"):
        prepare(config(arrays, shards=out, limit=7))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("do not delete")
    with pytest.raises(DataError, match="not a prepared data set"):
        prepare(config(arrays, shards=str(tmp_path / "mine")))


def test_a_full_disk_is_said_before_work_begins(arrays, monkeypatch, cache):
    usage = shutil.disk_usage(arrays)._replace(free=1000)
    monkeypatch.setattr(PREPARE.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(ResourceError, match="MiB"):
        prepare(config(arrays))
    assert list((cache / "shards").iterdir()) == []


def test_vectors_stay_exact(tmp_path):
    values = np.random.default_rng(0).standard_normal((30, 5)).astype(np.float32)
    np.save(tmp_path / "v.npy", values)
    cfg = config(tmp_path / "v.npy")
    assert ensure_prepared(cfg).shape == (5,)
    with open_stream(cfg, seed=0, local_batch=30) as stream:
        batch = next(stream)
    assert batch.y is None and (batch.x.numpy() == values[batch.row]).all()


def test_jpeg_above_32_pixels_and_png_on_request(tmp_path):
    root = photos(tmp_path / "photos", good=4, bad=0)
    for format, ending in (("auto", "jpg"), ("png", "png")):
        manifest = prepare(
            DataConfig(source="folder", root=str(root), image_size=48, format=format)
        )
        names = tarfile.open(manifest.path(0)).getnames()
        assert manifest.shape == (3, 48, 48) and any(n.endswith(ending) for n in names)


def test_a_root_of_shards_is_used_as_it_is(arrays):
    manifest = prepare(config(arrays))
    for source in ("shards", "celeba"):
        assert ensure_prepared(DataConfig(source=source, root=manifest.base)) == manifest
    with pytest.raises(DataError, match="image_size 8, the config says data.image_size=64"):
        ensure_prepared(DataConfig(source="shards", root=manifest.base, image_size=64))
    with pytest.raises(ConfigError, match="data.limit=7"):
        ensure_prepared(DataConfig(source="shards", root=manifest.base, limit=7))


def test_shards_serve_after_the_raw_data_is_gone(arrays, tmp_path):
    cfg = config(arrays, shards=str(tmp_path / "out"))
    manifest = prepare(cfg)
    shutil.rmtree(arrays)
    assert ensure_prepared(dataclasses.replace(cfg, root=None)) == manifest
    with open_stream(cfg, seed=0, local_batch=9, manifest=manifest) as stream:
        assert len(next(stream).x) == 9


@pytest.mark.parametrize(
    "old,new,message",
    [
        ('"schema_version": 2', '"schema_version": 9', "schema version 9"),
        ('"count": 10', '"count": 11', "checksum"),
        ('"shards"', '"shreds"', "not a manifest"),
        ("shard-000000.tar", "../../etc/passwd", "leaves the folder"),
    ],
)
def test_a_manifest_that_was_tampered_with(arrays, old, new, message):
    manifest = prepare(config(arrays))
    path = Path(manifest.base) / "manifest.json"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(DataError, match=message):
        open_manifest(manifest.base)


def test_inspect_draws_the_samples(arrays, tmp_path):
    manifest = prepare(config(arrays))
    found = inspect(manifest, grid=tmp_path / "grid.png", side=3)
    images = np.load(arrays / "images.npy")
    assert found.num_samples == 45 and found.histogram["3"] == 9 and found.shards == 5
    assert found.mean == pytest.approx(images.mean()) and found.std == pytest.approx(images.std())
    sheet = np.asarray(Image.open(tmp_path / "grid.png"))
    assert (sheet[2:10, 12:20] == images[1]).all()


def test_a_broken_link_among_raw_files_is_named(arrays):
    (arrays / "lost.npy").symlink_to(arrays / "nowhere.npy")
    with pytest.raises(DataError, match="raw/lost.npy: not found"):
        prepare(config(arrays))


def test_a_folder_that_may_not_be_read_is_no_empty_one(arrays):
    (arrays / "closed").mkdir(mode=0)
    try:
        list((arrays / "closed").iterdir())
    except PermissionError:
        with pytest.raises(DataError, match="closed: Permission denied"):
            prepare(config(arrays))
    else:
        pytest.skip("this user may read everything")
    finally:
        (arrays / "closed").chmod(0o700)
