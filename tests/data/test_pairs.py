"""Pairs: read from every layout, aligned in every crop."""

from __future__ import annotations

import hashlib
import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vmcmc_dist.data import (
    DataConfig,
    LabelInfo,
    Manifest,
    ShardInfo,
    ShardStream,
    ensure_prepared,
    inspect,
    open_manifest,
)
from vmcmc_dist.data.sources import OPENERS
from vmcmc_dist.errors import ConfigError, DataError

EDGES = {"input": "*.edge.png", "target": "*.photo.png"}


def pairs_config(root: Path, **changes) -> DataConfig:
    given = {"image_size": 8, **EDGES, "prepare_workers": 1, **changes}
    return DataConfig(source="pairs", root=str(root), **given)


def photo(i: int, size=(12, 10)) -> Image.Image:
    """A colour image in which no two windows are alike; red + green + blue is even."""
    width, height = size
    y, x = np.mgrid[:height, :width]
    values = np.stack([20 * y + i, 15 * x + i, (7 * x + 11 * y) + i], -1) % 256
    return Image.fromarray(values.astype(np.uint8))


def edge(image: Image.Image) -> Image.Image:
    """A grey image made of the photo's pixels, one by one: red."""
    return Image.fromarray(np.asarray(image)[..., 0])


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """20 pairs ID.edge.png (grey) and ID.photo.png (colour), 12x10."""
    root = tmp_path / "raw"
    root.mkdir()
    for i in range(20):
        photo(i).save(root / f"{i:02d}.photo.png")
        edge(photo(i)).save(root / f"{i:02d}.edge.png")
    return root


@pytest.mark.parametrize("form", ["folder", "zip", "tar"])
def test_what_went_in_comes_out(raw, tmp_path, form):
    root = raw
    if form == "zip":
        root = tmp_path / "raw.zip"
        with zipfile.ZipFile(root, "w") as archive:
            for path in raw.iterdir():
                archive.write(path, f"wrapped/{path.name}")
    if form == "tar":
        root = tmp_path / "raw.tar"
        with tarfile.open(root, "w") as archive:
            archive.add(raw, ".")
    manifest = ensure_prepared(pairs_config(root, split="all"))
    assert (manifest.shape, manifest.source_shape) == ((3, 8, 8), (1, 8, 8))
    assert manifest.num_samples == 20
    again = open_manifest(manifest.base)
    assert again == manifest and again.checksum == manifest.checksum
    with ShardStream(manifest, DataConfig(), seed=0, local_batch=20) as stream:
        batch = next(stream)
    square = photo(3).crop((1, 0, 11, 10)).resize((8, 8), Image.Resampling.LANCZOS)
    place = batch.row.tolist().index(3)
    assert (batch.x[place].permute(1, 2, 0).numpy() == np.asarray(square)).all()
    assert (batch.x[:, 0].int() - batch.source[:, 0].int()).abs().max() <= 1


def test_crops_are_aligned_and_belong_to_the_pair(raw):
    cfg = pairs_config(raw, crops=6, image_size=5)
    source = OPENERS["pairs"](cfg, raw)
    assert len(source) == 18 * 6
    places: dict[str, set] = {}
    for i in range(len(source)):
        sample = source.load(i)
        x = np.asarray(sample.value)
        assert x.shape == (5, 5, 3) and (np.asarray(sample.source) == x[..., 0]).all()
        places.setdefault(source.describe(i), set()).add(x.tobytes())
    assert len(places) == 18 and all(len(crops) > 3 for crops in places.values())
    assert len({source.describe(i) for i in range(16)}) == 16, "neighbours are of other pairs"
    last = np.asarray(source.load(107).value)
    assert (np.asarray(OPENERS["pairs"](cfg, raw).load(107).value) == last).all()
    fewer = OPENERS["pairs"](pairs_config(raw, crops=6, image_size=5, limit=3), raw)
    assert len(fewer) == 3


def test_crops_of_a_scaled_image(raw):
    source = OPENERS["pairs"](pairs_config(raw, crops=1, image_size=4, crop_resize=5), raw)
    sample = source.load(0)
    assert sample.value.size == sample.source.size == (4, 4)
    assert sample.value.mode == "RGB" and sample.source.mode == "L"
    small = photo(int(source.describe(0)[:2])).resize((6, 5), Image.Resampling.LANCZOS)
    windows = [small.crop((x, y, x + 4, y + 4)).tobytes() for x in range(3) for y in range(2)]
    assert sample.value.tobytes() in windows


@pytest.mark.parametrize(
    "files,patterns",
    [
        (("input/{}.png", "target/{}.png"), ("input/*", "target/*")),
        (("a/input/{}.png", "a/target/{}.png"), ("input/*", "target/*")),
        (("base/cmp_{}.png", "base/cmp_{}.bmp"), ("*.png", "*.bmp")),
        (("x_{}_in.png", "x_{}_out.png"), ("x_*_in.png", "x_*_out.png")),
    ],
)
def test_layouts(tmp_path, files, patterns):
    for i in range(3):
        for name, image in zip(files, (edge(photo(i)), photo(i)), strict=True):
            path = tmp_path / name.format(i)
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path)
    cfg = pairs_config(tmp_path, input=patterns[0], target=patterns[1], split="all")
    source = OPENERS["pairs"](cfg, tmp_path)
    assert [pair.input for pair in source.pairs] == [files[0].format(i) for i in range(3)]
    assert [pair.target for pair in source.pairs] == [files[1].format(i) for i in range(3)]
    assert (source.input_channels, source.channels) == (1, 3)


def test_both_halves_of_one_image(tmp_path):
    sheet = Image.new("RGB", (24, 10))
    sheet.paste(photo(0), (0, 0))
    sheet.paste(photo(1), (12, 0))
    sheet.save(tmp_path / "1.png")
    cfg = pairs_config(tmp_path, input="*.png:right", target="*.png:left", split="all")
    sample = OPENERS["pairs"](cfg, tmp_path).load(0)
    square = [np.asarray(photo(i).crop((1, 0, 11, 10)).resize((8, 8), 1)) for i in (0, 1)]
    assert (np.asarray(sample.value) == square[0]).all()
    assert (np.asarray(sample.source) == square[1]).all()
    sheet.crop((0, 0, 23, 10)).save(tmp_path / "1.png")
    with pytest.raises(DataError, match="1.png: 23 pixels wide"):
        OPENERS["pairs"](cfg, tmp_path)


def test_label_maps_become_colours_without_blending(tmp_path):
    """The layout of CMP facades: a palette PNG beside a JPEG."""
    palette = [0, 0, 170, 255, 170, 0, 255, 0, 0]
    labels = Image.fromarray((np.mgrid[:10, :12][1] // 4).astype(np.uint8), "P")
    labels.putpalette(palette)
    for i in range(2):
        labels.save(tmp_path / f"cmp_b000{i}.png")
        photo(i).save(tmp_path / f"cmp_b000{i}.jpg")
    cfg = pairs_config(tmp_path, input="*.png", target="*.jpg", split="all")
    source = OPENERS["pairs"](cfg, tmp_path)
    assert (source.input_channels, source.channels) == (3, 3)
    colours = {tuple(c) for c in np.asarray(source.load(0).source).reshape(-1, 3).tolist()}
    assert colours == {(0, 0, 170), (255, 170, 0), (255, 0, 0)}


def test_drawings_of_one_bit_are_antialiased(tmp_path):
    drawing = Image.fromarray(np.mgrid[:16, :16][1] % 2 == 0)
    assert drawing.mode == "1"
    drawing.save(tmp_path / "a.edge.png")
    photo(0, (16, 16)).save(tmp_path / "a.photo.png")
    source = OPENERS["pairs"](pairs_config(tmp_path, split="all"), tmp_path)
    inside = np.asarray(source.load(0).source)[:, 2:-2].astype(int)
    assert source.input_channels == 1 and np.abs(inside - 128).max() < 20


def test_splits_by_folder(tmp_path):
    for i, name in enumerate(["train/0", "train/1", "val/2", "test/3"]):
        path = tmp_path / f"{name}.photo.png"
        path.parent.mkdir(exist_ok=True)
        photo(i).save(path)
        edge(photo(i)).save(tmp_path / f"{name}.edge.png")

    def stems(split):
        source = OPENERS["pairs"](pairs_config(tmp_path, split=split), tmp_path)
        return [pair.stem for pair in source.pairs]

    assert stems("train") == ["train/0", "train/1"]
    assert (stems("valid"), stems("test")) == (["val/2"], ["test/3"])
    assert len(stems("all")) == 4


def test_a_tenth_is_held_out_where_there_are_no_folders(raw):
    def stems(split):
        source = OPENERS["pairs"](pairs_config(raw, split=split), raw)
        return [pair.stem for pair in source.pairs]

    by_hash = sorted((f"{i:02d}" for i in range(20)), key=lambda s: hashlib.sha256(s.encode())
                     .hexdigest())  # fmt: skip
    assert stems("test") == sorted(by_hash[-2:])
    assert sorted(stems("train") + stems("test")) == stems("all") == sorted(by_hash)
    with pytest.raises(DataError, match="no pairs of split 'valid'"):
        stems("valid")


def without_partner(raw):
    (raw / "07.photo.png").unlink()


def misaligned(raw):
    photo(7, (12, 11)).save(raw / "07.photo.png")


def sixteen_bits(raw):
    Image.fromarray(np.zeros((10, 12), np.uint16)).save(raw / "07.edge.png")


def colour_among_grey(raw):
    photo(7).save(raw / "07.edge.png")


@pytest.mark.parametrize(
    "break_it,changes,message",
    [
        (without_partner, {}, r"no target image, by data\.target=.*belongs to 07\.edge\.png"),
        (misaligned, {}, r"07\.edge\.png is 12x10, 07\.photo\.png is 12x11"),
        (sixteen_bits, {}, r"07\.edge\.png: pixels of mode I;16"),
        (colour_among_grey, {}, r"07\.edge\.png: a colour image.*data\.input_channels=3"),
        (None, {"input": "*.label.png"}, r"no image is named as data\.input=\*\.label\.png"),
        (None, {"input": "edge.png"}, "a pattern has one"),
        (None, {"input": None}, r"needs data\.input"),
        (None, {"input": "*.photo.png"}, "are both"),
        (None, {"image_size": None}, "needs data.image_size"),
        (None, {"crops": 2, "image_size": 11}, "12x10 pixels, too small for crops of 11"),
        (None, {"crops": 2, "crop_resize": 7}, "crop_resize=7"),
        (None, {"crop_resize": 9}, "crop_resize=9 is for data.crops"),
    ],
)
def test_pairs_that_cannot_be(raw, break_it, changes, message):
    if break_it is not None:
        break_it(raw)
    with pytest.raises((DataError, ConfigError), match=message):
        ensure_prepared(pairs_config(raw, split="all", **changes))


def test_a_torn_image_is_counted_and_skipped(raw):
    (raw / "07.edge.png").write_bytes(b"not a picture")
    with pytest.raises(DataError, match=r"1 of 20.*07\.edge\.png with 07\.photo\.png"):
        ensure_prepared(pairs_config(raw, split="all"))
    manifest = ensure_prepared(pairs_config(raw, split="all", max_bad=0.1))
    assert manifest.num_samples == 19 and manifest.bad == ("07.edge.png with 07.photo.png",)


def test_shards_of_single_images_are_no_pairs(make_shards):
    manifest = make_shards([4])
    with pytest.raises(DataError, match="no pairs"):
        ensure_prepared(DataConfig(source="pairs", root=manifest.base))


def test_other_settings_of_pairs_are_other_shards(raw):
    first = ensure_prepared(pairs_config(raw, crops=2))
    assert ensure_prepared(pairs_config(raw, crops=2)).base == first.base
    for changes in ({"crops": 3}, {"crops": 2, "crop_resize": 9}, {"input_channels": 3}):
        assert ensure_prepared(pairs_config(raw, **changes)).base != first.base


def test_manifests_written_before_there_were_pairs_are_unchanged():
    old = Manifest("folder:x", (3, 8, 8), "uint8", (ShardInfo("a.tar", 3, 1024, "ab"),),
                   LabelInfo("class", ("0", "1")), "l", "train", "k", ("b",))  # fmt: skip
    assert old.checksum == "ed3cff51c6233b31d594dd01a83b37496f0ae8a13bd3974b3e69561ac456cac8"
    assert "source_shape" not in old.to_json()
    assert json.loads(old.to_json())["checksum"] == old.checksum


def test_inspect_shows_pairs_side_by_side(pair_shards, tmp_path):
    found = inspect(pair_shards([5]), grid=tmp_path / "grid.png")
    assert found.source_shape == (1, 4, 4) and found.num_samples == 5
    assert Image.open(tmp_path / "grid.png").size == (8 * 10 + 2, 6 + 2)


def test_edges_and_photos(shared_data):
    root = shared_data / "edges_photos" / "bsds-110.tar"
    cfg = DataConfig(
        source="pairs", root=str(root), input="*.edge.png", target="*.photo.jpg",
        image_size=32, crops=3, crop_resize=64, split="test", prepare_workers=1,
    )  # fmt: skip
    manifest = ensure_prepared(cfg)
    assert manifest.num_samples == 33
    assert (manifest.shape, manifest.source_shape) == ((3, 32, 32), (1, 32, 32))
    with ShardStream(manifest, cfg, seed=0, local_batch=33) as stream:
        batch = next(stream)
    grey = batch.x.float().mean(1)
    across, down = grey.diff(dim=2)[:, :-1], grey.diff(dim=1)[:, :, :-1]
    change = across.abs() + down.abs()
    drawn = batch.source[:, 0, :-1, :-1] > 30
    assert drawn.float().mean() > 0.01
    assert change[drawn].mean() > 1.5 * change[~drawn].mean(), "edges lie where the photo changes"
