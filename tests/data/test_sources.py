"""Each raw layout is read as it is published, and says what is missing."""

from __future__ import annotations

import gzip
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vmcmc_dist.data import DataConfig
from vmcmc_dist.data.sources import OPENERS
from vmcmc_dist.data.sources.celeba import centre
from vmcmc_dist.errors import DataError


def open_source(name: str, root: Path, **changes):
    return OPENERS[name](DataConfig(source=name, root=str(root), **changes), root)


@pytest.fixture
def celeba(tmp_path: Path) -> Path:
    """Six CelebA-like images; 4 train, 1 valid, 1 test."""
    root = tmp_path / "celeba"
    (root / "img_align_celeba").mkdir(parents=True)
    names = [f"{i:06d}.jpg" for i in range(1, 7)]
    for i, name in enumerate(names):
        Image.new("RGB", (178, 218), (40 * i, 0, 0)).save(root / "img_align_celeba" / name)
    rows = [f"{n} {'1' if i % 2 else '-1'} -1  1" for i, n in enumerate(names)]
    attributes = ["6", "Eyeglasses Smiling Young ", *rows]
    (root / "list_attr_celeba.txt").write_text("\n".join(attributes) + "\n")
    parts = [f"{n} {max(0, i - 3)}" for i, n in enumerate(names)]
    (root / "list_eval_partition.txt").write_text("\n".join(parts))
    return root


@pytest.mark.parametrize("split,numbers", [("train", [0, 1, 2, 3]), ("valid", [4]), ("test", [5])])
@pytest.mark.parametrize("form", ["folder", "zip", "zip of images", "csv"])
def test_celeba(celeba, tmp_path, split, numbers, form):
    root = celeba
    if form == "zip":
        root = tmp_path / "celeba.zip"
        with zipfile.ZipFile(root, "w") as archive:
            for path in sorted(celeba.rglob("*.*")):
                archive.write(path, path.relative_to(celeba))
    if form == "zip of images":
        with zipfile.ZipFile(celeba / "img_align_celeba.zip", "w") as archive:
            for path in sorted(celeba.rglob("*.jpg")):
                archive.write(path, path.relative_to(celeba))
                path.unlink()
    if form == "csv":
        for path in celeba.glob("*.txt"):
            lines = path.read_text().splitlines()
            lines = lines[1:] if lines[0] == "6" else lines
            path.with_suffix(".csv").write_text("\n".join(",".join(x.split()) for x in lines))
            path.unlink()
    source = open_source("celeba", root, split=split)
    assert source.name == "celeba" and source.labels.names == ("Eyeglasses", "Smiling", "Young")
    samples = [source.load(i) for i in range(len(source))]
    assert [s.label for s in samples] == [[n % 2, 0, 1] for n in numbers]
    assert all(s.value.size == (140, 140) for s in samples)
    assert [s.value.getpixel((70, 70))[0] for s in samples] == pytest.approx(
        [40 * n for n in numbers], abs=3
    )


def test_celeba_crop_is_central_and_for_aligned_images_only():
    pixels = np.zeros((218, 178), np.uint8)
    pixels[39:179, 19:159] = 255
    assert np.asarray(centre(Image.fromarray(pixels))).min() == 255
    assert centre(Image.new("RGB", (64, 64))).size == (64, 64)


@pytest.mark.parametrize("gone", ["list_attr_celeba", "list_eval_partition", "img_align_celeba"])
def test_celeba_says_what_is_missing(celeba, gone):
    for path in celeba.glob(f"{gone}*"):
        path.rename(celeba.parent / path.name)
    with pytest.raises(DataError, match=f"{gone}.*mmlab"):
        open_source("celeba", celeba)


def test_cifar10_binary(tmp_path):
    records = np.random.default_rng(0).integers(0, 256, (6, 3073), dtype=np.uint8)
    records[:, 0] %= 10
    for k in range(3):
        records[2 * k : 2 * k + 2].tofile(tmp_path / ["data_batch_1.bin", "data_batch_2.bin",
                                                       "test_batch.bin"][k])  # fmt: skip
    train = open_source("cifar10", tmp_path)
    assert len(train) == 4 and len(open_source("cifar10", tmp_path, split="test")) == 2
    raw = train.load(3)
    assert raw.label == records[3, 0]
    assert (np.asarray(raw.value)[..., 1].ravel() == records[3, 1025:2049]).all()
    (tmp_path / "data_batch_1.bin").write_bytes(b"short")
    with pytest.raises(DataError, match="no multiple of 3073"):
        open_source("cifar10", tmp_path)


def test_cifar10_pickles_are_not_opened(tmp_path):
    (tmp_path / "cifar-10-batches-py").mkdir()
    with pytest.raises(DataError, match="pickles.*cifar-10-binary.tar.gz"):
        open_source("cifar10", tmp_path)


def idx(magic: int, array: np.ndarray) -> bytes:
    return np.array([magic, *array.shape], ">i4").tobytes() + array.tobytes()


@pytest.mark.parametrize("packed", [False, True])
def test_idx(tmp_path, packed):
    images = np.random.default_rng(0).integers(0, 256, (5, 28, 28), dtype=np.uint8)
    labels = np.arange(5, dtype=np.uint8)
    for stem, content in (("images-idx3", idx(2051, images)), ("labels-idx1", idx(2049, labels))):
        path = tmp_path / f"t10k-{stem}-ubyte{'.gz' if packed else ''}"
        path.write_bytes(gzip.compress(content) if packed else content)
    source = open_source("mnist", tmp_path, split="test")
    assert (np.asarray(source.load(4).value) == images[4]).all() and source.load(4).label == 4
    with pytest.raises(DataError, match="train-images-idx3-ubyte"):
        open_source("mnist", tmp_path)
    path = next(tmp_path.glob("t10k-images*"))
    content = path.read_bytes()[:-9]
    path.write_bytes(content)
    with pytest.raises(DataError, match="torn|cannot be read"):
        open_source("mnist", tmp_path, split="test")


def test_images_of_classes_are_mixed_and_a_limit_takes_of_all(tmp_path, labels_by_name):
    for kind in ("cat", "dog"):
        (tmp_path / kind).mkdir()
        for i in range(40):
            Image.new("RGB", (9, 9)).save(tmp_path / kind / f"{i}.png")
    whole = open_source("folder", tmp_path, image_size=8)
    labels = [whole.load(i).label for i in range(80)]
    changes = sum(a != b for a, b in zip(labels, labels[1:], strict=False))
    assert sorted(labels) == [0] * 40 + [1] * 40 and 25 < changes < 55  # by chance 40 ± 4.4
    assert labels_by_name(whole) == [0] * 40 + [1] * 40
    few = open_source("folder", tmp_path, image_size=8, limit=20)
    assert few.paths == whole.paths[:20] and few.labels.names == ("cat", "dog")
    assert 4 < sum(few.load(i).label for i in range(20)) < 16


def test_folder_splits_and_classes(tmp_path, labels_by_name):
    for name in ("train/cat/a.png", "train/dog/b.png", "val/cat/c.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 9)).save(tmp_path / name)
    train = open_source("folder", tmp_path, image_size=8)
    assert (
        len(train) == 2 and train.labels.names == ("cat", "dog") and labels_by_name(train) == [0, 1]
    )
    assert len(open_source("folder", tmp_path, image_size=8, split="valid")) == 1
    with pytest.raises(DataError, match="no images in test"):
        open_source("folder", tmp_path, image_size=8, split="test")
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="any image not found"):
        open_source("folder", tmp_path / "none", image_size=8)


@pytest.mark.parametrize("shape,channels", [((3, 8, 8), 1), ((3, 8, 8, 3), 3), ((4, 3, 8, 8), 3)])
def test_arrays(tmp_path, shape, channels):
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    np.save(tmp_path / "images.npy", images)
    source = open_source("arrays", tmp_path)
    assert (source.image_size, source.channels) == (8, channels)
    want = images[1].transpose(1, 2, 0) if shape[0] == 4 else images[1]
    assert (np.asarray(source.load(1).value) == want).all()


@pytest.mark.parametrize(
    "array", [np.zeros((2, 8, 8), np.float32), np.zeros((2, 5, 8, 8), np.uint8), np.array([{}])]
)
def test_arrays_of_another_kind_are_refused(tmp_path, array):
    np.save(tmp_path / "images.npy", array, allow_pickle=True)
    with pytest.raises(DataError, match=r"images\.npy"):
        open_source("arrays", tmp_path)
