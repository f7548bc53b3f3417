"""CelebA-HQ and FFHQ in the layouts that they are given out in."""

from __future__ import annotations

import zipfile

import pytest

from vmcmc_dist.data.sources.base import NoSplitError
from vmcmc_dist.errors import DataError


def test_ffhq_folders_of_a_thousand_are_no_classes(images, opened):
    names = ("00000/00000.png", "00000/00002.png", "01000/01001.png", "59000/59999.png")
    root = images(*names, "60000/60000.png", size=16)
    train = opened("ffhq", root)
    assert train.paths == list(names) and train.labels.kind == "none"
    assert train.image_size == 16 and train.load(1).label is None and train.name == "ffhq"
    assert opened("ffhq", root, split="valid").paths == ["60000/60000.png"]
    assert len(opened("ffhq", root, split="all", limit=4)) == 4
    with pytest.raises(NoSplitError, match="no split 'test'"):
        opened("ffhq", root, split="test")


def test_ffhq_takes_thumbnails_for_small_images(images, opened):
    images("thumbnails128x128/00000/00000.png", size=8)
    root = images("images1024x1024/00000/00000.png", size=32)
    assert opened("ffhq", root, image_size=64).load(0).value.size == (8, 8)
    assert opened("ffhq", root, image_size=256).load(0).value.size == (32, 32)
    assert opened("ffhq", root).image_size == 32


@pytest.mark.parametrize(
    "names,message",
    [
        (("portrait.png",), "00000.png, 00001.png"),
        (("a/00001.png", "b/00001.png"), "images of the same number"),
        (("LICENSE.txt.png.md",), "any image"),
    ],
)
def test_ffhq_says_what_is_wrong(images, opened, tmp_path, names, message):
    root = tmp_path / "raw"
    if names[0].endswith(".md"):
        root.mkdir()
        (root / names[0]).write_text("")
    else:
        images(*names)
    with pytest.raises(DataError, match=message):
        opened("ffhq", root)


@pytest.mark.parametrize("ending", ["jpg", "png"])
@pytest.mark.parametrize("folder", ["", "CelebA-HQ-img/", "celeba_hq_256/"])
def test_celeba_hq_flat_is_in_the_order_of_its_numbers(images, opened, folder, ending):
    root = images(f"{folder}10.{ending}", f"{folder}2.{ending}", f"{folder}0.{ending}")
    source = opened("celeba_hq", root)
    assert [p.rsplit("/", 1)[-1][:-4] for p in source.paths] == ["0", "2", "10"]
    assert source.labels.kind == "none" and source.image_size == 12
    assert len(opened("celeba_hq", root, split="all")) == 3
    with pytest.raises(NoSplitError, match="valid"):
        opened("celeba_hq", root, split="valid")


def test_celeba_hq_leaves_masks_alone(images, opened):
    root = images("CelebA-HQ-img/0.jpg", "CelebAMask-HQ-mask-anno/0/00000_hair.png")
    assert opened("celeba_hq", root).paths == ["CelebA-HQ-img/0.jpg"]


@pytest.mark.parametrize("packed", [False, True])
def test_celeba_hq_of_stargan_has_two_classes(images, opened, tmp_path, packed, labels_by_name):
    names = ("train/female/1.jpg", "train/male/0.jpg", "val/female/3.jpg", "val/male/2.jpg")
    root = images(*names)
    if packed:
        with zipfile.ZipFile(tmp_path / "celeba_hq.zip", "w") as archive:
            for name in names:
                archive.write(root / name, f"celeba_hq/{name}")
        root = tmp_path / "celeba_hq.zip"
    train = opened("celeba_hq", root)
    assert train.labels.names == ("female", "male")
    assert labels_by_name(train) == [0, 1]
    assert len(opened("celeba_hq", root, split="valid")) == 2
    assert opened("celeba_hq", root, split="all").labels.names == ("female", "male")
