"""The judge in the cache: what it learns from, attributes by the command line."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from vmcmc_dist.cli import main
from vmcmc_dist.data import DataConfig
from vmcmc_dist.errors import CheckpointError
from vmcmc_dist.evaluation import judge
from vmcmc_dist.evaluation.classifier import CARD, WEIGHTS, load_classifier
from vmcmc_dist.evaluation.features import features_for

CONFIG = Path(__file__).parents[2] / "configs" / "faces.yaml"


@pytest.fixture(autouse=True)
def quick(tmp_path, monkeypatch):
    monkeypatch.setenv("VMCMC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(judge, "MIN_UPDATES", 4)


def arrays(root, splits=("train",)) -> DataConfig:
    """80 images a split, each of its own shade; the class is its parity."""
    for number, split in enumerate(splits):
        shade = np.arange(80) + 100 * number
        images = np.broadcast_to(shade[:, None, None, None], (80, 16, 16, 1))
        np.save(root / f"{split}.npy", images.astype(np.uint8))
        np.save(root / f"{split}_labels.npy", shade % 2)
    return DataConfig(source="arrays", root=str(root), prepare_workers=1, workers=0)


@pytest.mark.parametrize(("splits", "learnt"), [(("train",), 72), (("train", "test"), 80)])
def test_held_out_images_are_not_learnt(tmp_path, monkeypatch, splits, learnt):
    seen = {}

    def spy(x, y, test_x, test_y, *args, **kwargs):
        seen.update(train=x[:, 0, 0, 0], test=test_x[:, 0, 0, 0])
        return real(x, y, test_x, test_y, *args, **kwargs)

    real = judge.train_classifier
    monkeypatch.setattr(judge, "train_classifier", spy)
    card = judge.train_judge(arrays(tmp_path, splits)).card
    assert card.train_samples == learnt == len(seen["train"])
    assert not torch.isin(seen["train"], seen["test"]).any() and len(seen["test"]) > 0


def test_changed_data_gets_its_own_and_damage_is_said(tmp_path):
    data = arrays(tmp_path)
    first = judge.cached_judge(data)
    np.save(tmp_path / "train_labels.npy", np.arange(80) // 40)
    second = judge.cached_judge(data)
    assert second.card.data_checksum != first.card.data_checksum
    (judge.judge_folder(data) / CARD).unlink()  # as if killed between the two files
    assert judge.cached_judge(data).card == second.card
    weights = judge.judge_folder(data) / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="sha256 differs"):
        judge.cached_judge(data)


def test_the_command_learns_attributes_of_faces(capsys):
    settings = ["data.faces=60", "data.image_size=32", "data.prepare_workers=1", "data.workers=0"]
    assert main(["classifier", str(CONFIG), *settings]) == 0
    printed = capsys.readouterr().out
    found = re.search(
        r"accuracy (0\.\d+) over (\d+) attributes \((0\.\d+) by .*\)\s+(\S+)", printed
    )
    assert found, printed
    card = load_classifier(found[4]).card
    assert card.labels == "attributes" and card.classes == int(found[2]) > 1
    data = DataConfig(source="faces", faces=60, image_size=32, flip=True, prepare_workers=1)
    features = features_for(data)
    assert (features.name, features.classes, features.labels) == ("classifier", None, "attributes")
    assert features(torch.zeros(3, 3, 32, 32))[1].shape == (3, card.classes)
    assert features.fingerprint == card.weights_sha256
