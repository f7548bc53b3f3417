"""ImageNet as it is unpacked: synset folders, a flat val/, and the odd files that it has."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from vmcmc_dist.data import DataConfig, ShardStream, prepare
from vmcmc_dist.data.sources.base import NoSplitError
from vmcmc_dist.errors import DataError

A, B = "n01440764", "n02119789"
TRAIN = (f"train/{A}/{A}_1.JPEG", f"train/{B}/{B}_1.JPEG")
VALID = tuple(f"val/ILSVRC2012_val_0000000{i}.JPEG" for i in (1, 2, 3))


@pytest.mark.parametrize("above", ["", "ILSVRC/Data/CLS-LOC/"])
def test_classes_are_the_synsets_sorted(images, opened, above, labels_by_name):
    root = images(*(above + name for name in TRAIN), f"{above}val/{B}/ILSVRC2012_val_00000001.JPEG")
    train = opened("imagenet", root)
    assert train.labels.names == (A, B) and labels_by_name(train) == [0, 1]
    assert train.image_size == 256 and train.name == "imagenet"
    assert len(opened("imagenet", root, split="valid")) == 1
    assert len(opened("imagenet", root, split="all")) == 3
    with pytest.raises(NoSplitError, match="no classes of split 'test'"):
        opened("imagenet", root, split="test")


TRUTHS = {
    "LOC_val_solution.csv": "ImageId,PredictionString\n"
    f"ILSVRC2012_val_00000002,{A} 1 2 3 4 {A} 1 2 3 4\n"
    f"ILSVRC2012_val_00000001,{B} 1 2 3 4\nILSVRC2012_val_00000003,{B} 1 2 3 4\n",
    "imagenet_2012_validation_synset_labels.txt": f"{B}\n{A}\n{B}\n",
    "val.txt": "".join(
        f"ILSVRC2012_val_0000000{i}.JPEG {c}\n" for i, c in ((1, 1), (2, 0), (3, 1))
    ),
    "ILSVRC2012_validation_ground_truth.txt": "7\n9\n7\n",
}


@pytest.mark.parametrize("name", TRUTHS)
def test_a_flat_val_with_its_classes(images, opened, name, labels_by_name):
    root = images(*TRAIN, *VALID)
    (root / "val" / name).write_text(TRUTHS[name])
    if name == "ILSVRC2012_validation_ground_truth.txt":
        with pytest.raises(DataError, match="map_clsloc.txt"):
            opened("imagenet", root, split="valid")
        (root / "map_clsloc.txt").write_text(f"{A} 9 tench\n{B} 7 kit_fox\n")
    source = opened("imagenet", root, split="valid")
    assert labels_by_name(source) == [1, 0, 1]
    (root / "val" / name).write_text(TRUTHS[name].rsplit("\n", 2)[0])
    with pytest.raises(DataError, match="no class is given for|classes of 2 images, but 3"):
        opened("imagenet", root, split="valid")


def test_a_flat_val_without_classes(images, opened):
    with pytest.raises(DataError, match="the classes of val/.*LOC_val_solution.csv"):
        opened("imagenet", images(*TRAIN, *VALID), split="valid")
    with pytest.raises(NoSplitError, match="no images in train/.*image-net.org"):
        opened("imagenet", images(f"{A}/x.JPEG", root="other"))


def test_cmyk_and_png_that_are_named_jpeg(images, tmp_path):
    """Red in three codings comes out red."""
    root = images(*TRAIN)
    folder = root / "train" / A
    rgb = Image.new("RGB", (40, 40), (250, 10, 10))
    rgb.save(folder / f"{A}_1.JPEG", "JPEG")
    rgb.convert("CMYK").save(folder / f"{A}_2.JPEG", "JPEG")
    rgb.save(folder / f"{A}_3.JPEG", "PNG")
    Image.new("L", (40, 40), 100).save(folder / f"{A}_4.JPEG", "JPEG")
    cfg = DataConfig(source="imagenet", root=str(root), image_size=16, prepare_workers=1)
    manifest = prepare(cfg)
    assert manifest.num_samples == 5 and not manifest.bad
    with ShardStream(manifest, DataConfig(shuffle=False), seed=0, local_batch=5) as stream:
        pixels = next(stream).x.numpy()
    means = pixels.mean((2, 3))
    assert (np.abs(means - [250, 10, 10]).max(1) < 12).sum() == 3
    assert (np.abs(means - 100).max(1) < 3).sum() == 1


def test_16_bit_images_are_bad_and_not_grey_noise(images):
    root = images(*(f"train/{A}/{i}.JPEG" for i in range(3)), TRAIN[1])
    buffer = io.BytesIO()
    Image.fromarray(np.full((20, 20), 40_000, np.uint16)).save(buffer, "PNG")
    (root / "train" / A / "deep.png").write_bytes(buffer.getvalue())
    cfg = DataConfig(source="imagenet", root=str(root), image_size=8, max_bad=0.5)
    assert prepare(cfg).bad == (f"train/{A}/deep.png",)
