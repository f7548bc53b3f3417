"""The judge learns, is deterministic, survives the disk, and refuses what does not fit."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest
import torch

from vmcmc_dist.data.scaling import to_model_range
from vmcmc_dist.errors import CheckpointError, DataError, ResourceError
from vmcmc_dist.evaluation.classifier import CARD, WEIGHTS, load_classifier
from vmcmc_dist.evaluation.classifier_training import (
    ClassifierConfig,
    data_checksum,
    train_classifier,
)

TINY = ClassifierConfig(width=4, feature_dim=6, epochs=2, batch_size=16)


def stripes(count: int, size: int = 28, channels: int = 1, seed: int = 0):
    """Class 0 has horizontal stripes, class 1 vertical ones, both under noise; uint8."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 2, (count,), generator=rng)
    wave = 90 * torch.sin(torch.arange(size) * 1.5)
    flat, upright = wave.view(1, -1, 1).expand(1, size, size), wave.view(1, 1, -1)
    images = torch.where(labels.view(-1, 1, 1) == 0, flat, upright.expand(1, size, size))
    images = images[:, None].repeat(1, channels, 1, 1) + 128
    return (images + 20 * torch.randn(images.shape, generator=rng)).clamp(0, 255).byte(), labels


@pytest.fixture(scope="module")
def judge():
    return train_classifier(*stripes(256), *stripes(64, seed=1), TINY)


def test_it_learns_what_can_be_learnt(judge):
    assert judge.card.test_accuracy == 1.0
    assert judge.card.classes == 2 and judge.card.train_samples == 256


@pytest.mark.parametrize(("size", "channels"), [(32, 3), (28, 2)])
def test_other_sizes_and_channels(size, channels):
    train, test = stripes(128, size, channels), stripes(32, size, channels, seed=1)
    model = train_classifier(*train, *test, TINY)
    features, logits = model.judge(test[0])
    assert features.shape == (32, 6) and logits.shape == (32, 2)
    assert model.card.input_shape == [channels, size, size]


def test_features_lead_to_logits(judge):
    x = to_model_range(stripes(5, seed=2)[0])
    torch.testing.assert_close(judge.classify(judge.features(x)), judge.logits(x))
    torch.testing.assert_close(judge.judge(x, batch_size=2)[1], judge.logits(x))


def test_bytes_and_model_range_are_the_same_image(judge):
    images = stripes(8, seed=3)[0]
    torch.testing.assert_close(judge.judge(images), judge.judge(images.float() / 127.5 - 1))
    assert to_model_range(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [-1, 1]


def test_training_is_a_function_of_the_seed(judge):
    torch.manual_seed(99)
    again = train_classifier(*stripes(256), *stripes(64, seed=1), TINY)
    for name, weight in judge.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name]), name


def test_saved_and_loaded_it_judges_alike(judge, tmp_path):
    loaded = load_classifier(judge.save(tmp_path / "judge"))
    images = stripes(8, seed=4)[0]
    torch.testing.assert_close(judge.judge(images), loaded.judge(images))
    assert loaded.card == judge.card and not loaded.training
    card = json.loads((tmp_path / "judge" / CARD).read_text())
    assert card["data_checksum"] == data_checksum(*stripes(256)) and card["feature_dim"] == 6


def test_damaged_or_foreign_files_are_refused(judge, tmp_path):
    folder = judge.save(tmp_path)
    with pytest.raises(CheckpointError, match="learnt from data"):
        load_classifier(folder, expected_checksum="0" * 64)
    weights = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    with pytest.raises(CheckpointError, match="sha256 differs"):
        load_classifier(folder)
    (folder / CARD).write_text("{")
    with pytest.raises(CheckpointError, match="not a classifier's card"):
        load_classifier(folder)
    (folder / WEIGHTS).unlink()
    with pytest.raises(CheckpointError, match="train the classifier first"):
        load_classifier(folder)


def test_images_that_do_not_fit_are_named(judge):
    with pytest.raises(DataError, match=r"\[1, 28, 28\], got \[3, 28, 28\]"):
        judge.judge(torch.zeros(2, 3, 28, 28))
    images, labels = stripes(16)
    with pytest.raises(DataError, match="one label per image"):
        train_classifier(images, labels[:-1], images, labels, TINY)
    with pytest.raises(DataError, match="test images must be"):
        train_classifier(images, labels, images[:, 0], labels, TINY)


def test_attributes_are_learnt_each_by_itself(tmp_path):
    """Attribute 0 = upright stripes, attribute 1 = dark, attribute 2 = never."""

    def marked(count: int, seed: int):
        images, upright = stripes(count, seed=seed)
        dark = torch.rand(count, generator=torch.Generator().manual_seed(seed + 9)) < 0.5
        images[dark] //= 2
        return images, torch.stack([upright, dark.long(), torch.zeros_like(upright)], 1)

    config = ClassifierConfig(width=4, feature_dim=6, min_updates=60, batch_size=16)
    model = train_classifier(*marked(128, 0), *marked(64, 1), config)
    card = model.card
    assert (card.labels, card.classes) == ("attributes", 3)
    assert card.test_accuracy >= 0.95 and 0.6 < card.chance < 0.8
    images, wanted = marked(64, 2)
    right = ((model.judge(images)[1] > 0) == wanted).float().mean(0)
    assert right.min() > 0.9, right
    assert load_classifier(model.save(tmp_path)).card == card


def test_a_card_without_the_later_fields_is_read(judge, tmp_path):
    folder = judge.save(tmp_path)
    card = json.loads((folder / CARD).read_text())
    del card["labels"], card["chance"]
    (folder / CARD).write_text(json.dumps(card))
    assert load_classifier(folder).card.labels == "class"


def test_a_disk_that_takes_nothing_is_said(judge, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match="cannot be written"):
        judge.save(tmp_path / "file" / "judge")


def test_small_sets_are_passed_more_often():
    seen = []
    config = ClassifierConfig(width=4, feature_dim=6, epochs=2, batch_size=16, min_updates=21)
    train_classifier(
        *stripes(64), *stripes(8), config, progress=lambda i, n, loss: seen.append((i, n))
    )
    assert seen[-1] == (24, 24)


@pytest.mark.slow
def test_fashion_mnist_accuracy(shared_data):
    def read(name):
        raw = gzip.decompress((shared_data / "fashion_mnist" / name).read_bytes())
        shape = [int.from_bytes(raw[4 + 4 * k : 8 + 4 * k], "big") for k in range(raw[3])]
        return torch.from_numpy(np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).copy()).view(
            shape
        )

    parts = []
    for split in ("train", "t10k"):
        parts.append(read(f"{split}-images-idx3-ubyte.gz")[:, None])
        parts.append(read(f"{split}-labels-idx1-ubyte.gz").long())
    assert train_classifier(*parts).card.test_accuracy >= 0.88
