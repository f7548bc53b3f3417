"""Conditions from image files: fitted as in preparation, or refused with the file's name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from vmcmc_dist.data import ConditionConfig, visible
from vmcmc_dist.data.conditions import low_resolution, luminance
from vmcmc_dist.data.given import given_conditions
from vmcmc_dist.data.scaling import to_model_range
from vmcmc_dist.errors import ConfigError, DataError

SHAPE = (3, 8, 8)


def photo(width: int, height: int, channels: int = 3) -> Image.Image:
    values = np.random.default_rng(width).integers(0, 256, (height, width, channels), np.uint8)
    return Image.fromarray(values.squeeze())


def tensor(image: Image.Image) -> Tensor:
    return to_model_range(torch.from_numpy(np.array(image)).permute(2, 0, 1))[None]


def save(image: Image.Image, path: Path) -> str:
    image.save(path)
    return str(path)


def test_a_photo_of_the_right_size_is_taken_as_it_is(tmp_path):
    image = photo(8, 8)
    path = save(image, tmp_path / "a.png")
    names, c = given_conditions(ConditionConfig("colour"), path, SHAPE, 1)
    assert names == ["a.png"] and torch.equal(c, luminance(tensor(image)))
    _, c = given_conditions(ConditionConfig("upscale"), path, SHAPE, 3)
    assert torch.equal(c, low_resolution(tensor(image), 4))
    _, c = given_conditions(ConditionConfig("pair"), path, SHAPE, 3)
    assert torch.equal(c, tensor(image))


def test_larger_photos_are_cropped_and_resized(tmp_path):
    image = photo(20, 16)
    path = save(image, tmp_path / "a.png")
    _, c = given_conditions(ConditionConfig("pair"), path, SHAPE, 3)
    square = image.crop((2, 0, 18, 16)).resize((8, 8), Image.Resampling.LANCZOS)
    assert torch.equal(c, tensor(square))


def test_every_image_of_a_folder(tmp_path):
    for name in ("b.png", "a.jpg", "c.webp"):
        photo(9, 9).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    names, c = given_conditions(ConditionConfig("colour"), str(tmp_path), SHAPE, 1)
    assert names == ["a.jpg", "b.png", "c.webp"] and c.shape == (3, 1, 8, 8)


def test_a_small_image_can_be_the_low_resolution_itself(tmp_path):
    small = photo(2, 2).point(lambda v: 80 + v // 3)  # far from 0 and 255, which PIL clips at
    _, c = given_conditions(ConditionConfig("upscale"), save(small, tmp_path / "a.png"), SHAPE, 3)
    large = small.resize((8, 8), Image.Resampling.BICUBIC)
    assert (c - tensor(large)).abs().max() < 0.02


def test_transparent_pixels_are_hidden(tmp_path):
    image = photo(8, 8, 4)
    alpha = np.full((8, 8), 255, np.uint8)
    alpha[:, :3] = 0
    image.putalpha(Image.fromarray(alpha))
    path = save(image, tmp_path / "a.png")
    _, c = given_conditions(ConditionConfig("inpaint"), path, SHAPE, 4)
    known, free = visible(c)
    assert (free[0, 0, :, :3] == 1).all() and (free[0, 0, :, 3:] == 0).all()
    assert torch.equal(known[..., 3:], tensor(image.convert("RGB"))[..., 3:])
    assert (known[..., :3] == 0).all()


def test_a_mask_hides_every_pixel_that_it_touches(tmp_path):
    hidden = np.zeros((16, 16), np.uint8)
    hidden[3, 5] = 255
    mask = save(Image.fromarray(hidden), tmp_path / "mask.png")
    path = save(photo(16, 16), tmp_path / "a.png")
    _, c = given_conditions(ConditionConfig("inpaint"), path, SHAPE, 4, mask)
    assert (1 - c[0, 3]).nonzero().tolist() == [[1, 2]]


def nothing(tmp_path):
    return str(tmp_path / "nowhere.png")


def empty(tmp_path):
    return str(tmp_path)


def no_picture(tmp_path):
    (tmp_path / "a.png").write_text("not a picture")
    return str(tmp_path / "a.png")


def small(tmp_path):
    return save(photo(7, 30), tmp_path / "a.png")


def sixteen_bits(tmp_path):
    return save(Image.fromarray(np.zeros((9, 9), np.uint16)), tmp_path / "a.png")


def colour(tmp_path):
    return save(photo(9, 9), tmp_path / "a.png")


def opaque(tmp_path):
    return save(photo(9, 9).convert("RGBA"), tmp_path / "a.png")


@pytest.mark.parametrize(
    "kind,make,channels,message",
    [
        ("pair", nothing, 1, r"nowhere\.png: no such image"),
        ("pair", empty, 1, "no images in it"),
        ("pair", no_picture, 1, r"a\.png: does not decode"),
        ("pair", small, 3, r"a\.png: 7x30 pixels; this model needs 8x8"),
        ("pair", sixteen_bits, 1, r"a\.png: pixels of mode I;16"),
        ("pair", colour, 1, r"a\.png: a colour image; this model's input images are grey"),
        ("colour", small, 1, "needs 8x8"),
        ("upscale", small, 3, "needs 8x8"),
        ("inpaint", colour, 4, r"a\.png: which pixels are hidden\?.*--mask"),
        ("inpaint", opaque, 4, r"a\.png: nothing of it is hidden"),
    ],
)
def test_images_that_do_not_fit(tmp_path, kind, make, channels, message):
    with pytest.raises(DataError, match=message):
        given_conditions(ConditionConfig(kind), make(tmp_path), SHAPE, channels)


def test_masks_that_do_not_fit(tmp_path):
    path = save(photo(9, 9), tmp_path / "a.png")
    mask = save(photo(9, 8, 1), tmp_path / "m.png")
    with pytest.raises(DataError, match=r"a\.png: 9x9 pixels, and the mask 9x8"):
        given_conditions(ConditionConfig("inpaint"), path, SHAPE, 4, mask)
    with pytest.raises(ConfigError, match="condition is colour"):
        given_conditions(ConditionConfig("colour"), path, SHAPE, 1, mask)
