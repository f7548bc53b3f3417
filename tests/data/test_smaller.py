"""Shards of larger images, read at a smaller size."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import pytest
import torch
from PIL import Image
from webdataset import TarWriter

from vmcmc_dist.data import DataConfig, ensure_prepared, open_stream
from vmcmc_dist.errors import DataError


@pytest.fixture
def photos(tmp_path):
    """A foreign WebDataset of smooth JPEGs of many sizes; returns its folder and the images."""
    rng = np.random.default_rng(0)
    folder, images = tmp_path / "photos", []
    folder.mkdir()
    with open(folder / "0.tar", "wb") as file, TarWriter(file, mtime=0) as tar:
        for i, (width, height) in enumerate([(96, 64), (64, 96), (130, 130), (64, 64), (300, 200)]):
            coarse = Image.fromarray(rng.integers(0, 255, (4, 4, 3), dtype=np.uint8))
            buffer = io.BytesIO()
            coarse.resize((width, height), Image.Resampling.BICUBIC).save(
                buffer, "JPEG", quality=95
            )
            images.append(Image.open(io.BytesIO(buffer.getvalue())))
            tar.write({"__key__": f"{i:03d}", "jpg": buffer.getvalue()})
    return folder, images


def config(folder, **changes) -> DataConfig:
    return DataConfig(source="shards", root=str(folder), shuffle=False, **changes)


@pytest.mark.parametrize("cache_mb", [0, 64])
def test_they_are_cut_square_and_made_smaller(photos, cache_mb):
    folder, images = photos
    cfg = config(folder, image_size=32, cache_mb=cache_mb)
    manifest = ensure_prepared(cfg)
    assert manifest.shape == (3, 32, 32)
    with open_stream(cfg, seed=0, local_batch=5, manifest=manifest) as stream:
        x = next(stream).x
    for got, image in zip(x, images, strict=True):
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        square = image.crop((left, top, left + side, top + side))
        expected = torch.from_numpy(np.array(square.resize((32, 32), Image.Resampling.LANCZOS)))
        difference = got.permute(1, 2, 0).float() - expected.float()
        assert difference.abs().mean() < 1.5


def test_larger_than_the_shards_is_refused(photos):
    with pytest.raises(DataError, match="image_size 96x64, the config says data.image_size=128"):
        ensure_prepared(config(photos[0], image_size=128))


def test_without_a_size_images_must_be_alike(photos):
    cfg = config(photos[0])
    with open_stream(cfg, seed=0, local_batch=5, manifest=ensure_prepared(cfg)) as stream:
        with pytest.raises(DataError, match=r"with 3 channels, expected 96x64.*data\.image_size"):
            next(stream)


def test_a_smaller_view_is_other_data(photos):
    views = [ensure_prepared(config(photos[0], image_size=s)) for s in (None, 32, 64)]
    assert len({view.checksum for view in views}) == 3


def test_an_image_bomb_is_skipped_before_it_is_decompressed(photos):
    cfg = config(photos[0], image_size=32, max_pixels=20_000, max_bad=0.3, cache_mb=0)
    manifest = dataclasses.replace(ensure_prepared(cfg))
    with open_stream(cfg, seed=0, local_batch=5, manifest=manifest) as stream:
        next(stream)
        (why,) = stream.ledger.bad.values()
    assert "300x200 exceeds data.max_pixels" in why
