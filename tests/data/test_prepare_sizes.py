"""Several sizes in one pass: each a whole set, each raw image read once."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vmcmc_dist.data import DataConfig, open_manifest, prepare, prepare_sizes
from vmcmc_dist.data.shard_plan import jobs
from vmcmc_dist.data.sources.folder import Folder
from vmcmc_dist.errors import ConfigError, DataError


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """30 smooth colour images of 96x80 as JPEG, the first of them 20x20."""
    folder = tmp_path / "photos"
    folder.mkdir()
    ramp = np.add.outer(np.arange(80), np.arange(96))[..., None] * np.array([1, 2, 3])
    for i in range(30):
        image = Image.fromarray(((ramp * (i + 1)) // 4 % 256).astype(np.uint8))
        image = image.resize((20, 20)) if i == 0 else image
        image.save(folder / f"{i:02d}.jpg", quality=95)
    (folder / "torn.jpg").write_bytes(b"\xff\xd8\xff")
    return folder


def config(root: Path, out: Path, **changes) -> DataConfig:
    cfg = DataConfig(
        source="folder", root=str(root), shards=str(out), prepare_workers=1, max_bad=0.1
    )
    return dataclasses.replace(cfg, **changes)


def tars(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.tar"))}


def test_each_size_is_a_set_of_its_own(photos, tmp_path):
    made = prepare_sizes(config(photos, tmp_path / "out", shard_samples=8), [16, 24, 40])
    assert [m.shape for m in made] == [(3, 16, 16), (3, 24, 24), (3, 40, 40)]
    for size, manifest in zip((16, 24, 40), made, strict=True):
        assert open_manifest(str(tmp_path / "out" / str(size))) == manifest
        assert manifest.num_samples == 30 and manifest.bad == ("torn.jpg",)
    assert [m.small for m in made] == [0, 1, 1]


def test_every_raw_image_is_read_once(photos, tmp_path, monkeypatch):
    loaded: list[int] = []
    load = Folder.load
    monkeypatch.setattr(Folder, "load", lambda self, i: (loaded.append(i), load(self, i))[1])
    prepare_sizes(config(photos, tmp_path / "out", shard_samples=8), [16, 24, 40])
    looked_at = 31  # few enough that the look beforehand sees them all
    assert sorted(loaded[looked_at:]) == list(range(31))


def test_the_largest_set_is_what_it_is_alone(photos, tmp_path):
    prepare_sizes(config(photos, tmp_path / "out"), [16, 40])
    prepare(config(photos, tmp_path / "alone", image_size=40))
    assert tars(tmp_path / "out" / "40") == tars(tmp_path / "alone")


def test_a_size_that_was_lost_comes_back_the_same(photos, tmp_path):
    """Decoding goes by the largest size asked for, not by what is left to do."""
    cfg = config(photos, tmp_path / "out", shard_samples=8)
    prepare_sizes(cfg, [8, 40])
    before = tars(tmp_path / "out" / "8")
    for path in (tmp_path / "out" / "8").iterdir():
        path.unlink()
    prepare_sizes(cfg, [8, 40])
    assert tars(tmp_path / "out" / "8") == before


def test_a_set_that_was_decoded_for_a_larger_size_is_another_than_one_alone(photos, tmp_path):
    made = prepare_sizes(config(photos, tmp_path / "out"), [8, 40])
    assert tars(tmp_path / "out" / "8")
    with pytest.raises(DataError, match="other data or settings"):
        prepare(config(photos, tmp_path / "out" / "8", image_size=8))
    assert prepare_sizes(config(photos, tmp_path / "out"), [8, 40]) == made


def test_jobs_hold_every_sample_once_for_every_set():
    for number, samples in ((100, [16, 4, 64]), (7, [8]), (129, [64, 128])):
        all_jobs = jobs(number, samples)
        for s in range(len(samples)):
            rows = [i for job in all_jobs for part in job if part.set == s for i in part.samples]
            assert sorted(rows) == list(range(number))
        seen = [set().union(*(part.samples for part in job)) for job in all_jobs]
        assert sum(map(len, seen)) == number, "two jobs read the same sample"


def test_faces_are_drawn_for_each_size(tmp_path):
    cfg = DataConfig(source="faces", faces=6, shards=str(tmp_path / "out"), prepare_workers=1)
    made = prepare_sizes(cfg, [16, 32])
    alone = prepare(dataclasses.replace(cfg, image_size=16, shards=str(tmp_path / "alone")))
    assert made[0].checksum == alone.checksum and made[1].shape == (3, 32, 32)


@pytest.mark.parametrize(
    "sizes,changes,message",
    [
        ([], {}, "give each once"),
        ([16, 16], {}, "give each once"),
        ([2, 16], {}, "4 or more"),
        ([16, 32], {"image_size": 8}, "data.image_size=8 is not among"),
    ],
)
def test_sizes_that_cannot_be(photos, tmp_path, sizes, changes, message):
    with pytest.raises(ConfigError, match=message):
        prepare_sizes(config(photos, tmp_path / "out", **changes), sizes)


def test_upscaling_is_refused_before_anything_is_written(photos, tmp_path):
    with pytest.raises(DataError, match="smaller than 200x200"):
        prepare_sizes(config(photos, tmp_path / "out"), [16, 200], allow_upscaling=False)
    assert not list(tmp_path.glob("out/*/*"))
