"""A small classifier of images: the judge of what the samplers draw.

    judge = train_classifier(train_images, train_labels, test_images, test_labels)
    judge.save("cache/classifier-fashion_mnist")
    judge = load_classifier("cache/classifier-fashion_mnist")
    features, logits = judge.features(x), judge.logits(x)        # x in [-1, 1]

Kept as ``classifier.safetensors`` beside ``classifier.json``, which names the data it learnt from.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from safetensors.torch import load as load_weights
from safetensors.torch import save as save_weights
from torch import Tensor, nn

from vmcmc_dist.data.scaling import to_model_range
from vmcmc_dist.errors import CheckpointError, DataError, ResourceError

WEIGHTS, CARD = "classifier.safetensors", "classifier.json"


@dataclass
class ClassifierCard:
    """What a saved classifier is and what it learnt from.

    ``classes`` counts the logits: exclusive classes, or independent 0/1 attributes (``labels``).
    ``test_accuracy`` is the share of held-out images that it gets right, over attributes the mean.
    """

    classes: int
    input_shape: list[int]
    feature_dim: int
    width: int
    test_accuracy: float
    test_samples: int
    train_samples: int
    data_checksum: str
    seed: int
    weights_sha256: str
    labels: Literal["class", "attributes"] = "class"
    chance: float | None = None


class ImageClassifier(nn.Module):
    """CNN over x [B, C, H, W] in [-1, 1] with H, W ≥ 16: features [B, D], then logits [B, K]."""

    def __init__(self, input_shape: list[int], classes: int, width: int, feature_dim: int) -> None:
        super().__init__()
        channels, w = input_shape[0], width
        self.stages = nn.Sequential(
            _stage(channels, w, kernel=5, stride=2),
            _stage(w, 2 * w),
            nn.MaxPool2d(2),
            _stage(2 * w, 4 * w),
        )
        self.project = nn.Linear(4 * w, feature_dim)
        self.classify = nn.Linear(feature_dim, classes)
        self.card: ClassifierCard | None = None

    def features(self, x: Tensor) -> Tensor:
        """φ(x) [B, D], the input of the last linear layer."""
        return F.relu(self.project(self.stages(x).mean((2, 3))))

    def logits(self, x: Tensor) -> Tensor:
        """Unnormalised log p(y|x) [B, K]; of attributes the log odds of each."""
        return self.classify(self.features(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(x)

    @torch.no_grad()
    def judge(self, x: Tensor, batch_size: int = 500) -> tuple[Tensor, Tensor]:
        """Features [N, D] and logits [N, K] of images uint8 0…255 or float in [-1, 1]."""
        self.check(x)
        device = self.classify.weight.device
        parts = [self.features(to_model_range(b).to(device)) for b in x.split(batch_size)]
        features = torch.cat(parts)
        return features.cpu(), self.classify(features).cpu()

    def check(self, x: Tensor) -> None:
        """DataError unless x is [N, *input_shape]."""
        expected = self.card.input_shape if self.card else list(x.shape[1:])
        if list(x.shape[1:]) != expected:
            raise DataError(
                f"the classifier reads images of shape {expected}, got {list(x.shape[1:])}: "
                "train one on these images"
            )

    def weights(self) -> bytes:
        """The weights as a safetensors file; their sha256 names this classifier."""
        return save_weights({k: v.contiguous().cpu() for k, v in self.state_dict().items()})

    def save(self, folder: str | Path) -> Path:
        """Write weights, then the card that makes them count, into ``folder``; returns it.

        ResourceError if the disk does not take them.
        """
        if self.card is None:
            raise CheckpointError("this classifier has no card: train it with train_classifier")
        folder = Path(folder)
        card = json.dumps(dataclasses.asdict(self.card), indent=2) + "\n"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name, content in ((WEIGHTS, self.weights()), (CARD, card.encode())):
                partial = folder / f".{name}.{os.getpid()}"
                partial.write_bytes(content)
                partial.replace(folder / name)
        except OSError as error:
            raise ResourceError(
                f"{folder}: cannot be written ({error.strerror}); free space or set VMCMC_CACHE"
            ) from None
        return folder


def _stage(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


def load_classifier(folder: str | Path, expected_checksum: str | None = None) -> ImageClassifier:
    """The classifier saved in ``folder``, in eval mode.

    CheckpointError: files missing, weights that do not match their card, or (with
    ``expected_checksum``) a classifier of other data.
    """
    folder = Path(folder)
    for name in (WEIGHTS, CARD):
        if not (folder / name).is_file():
            raise CheckpointError(
                f"no {name} in {folder}: train the classifier first, or name its folder"
            )
    try:
        card = ClassifierCard(**json.loads((folder / CARD).read_text()))
    except (json.JSONDecodeError, TypeError) as error:
        raise CheckpointError(
            f"{folder / CARD} is not a classifier's card: train it anew"
        ) from error
    weights = (folder / WEIGHTS).read_bytes()
    if hashlib.sha256(weights).hexdigest() != card.weights_sha256:
        raise CheckpointError(
            f"{folder / WEIGHTS} is not the file that {CARD} describes (sha256 differs): "
            "train the classifier anew"
        )
    if expected_checksum is not None and card.data_checksum != expected_checksum:
        raise CheckpointError(
            f"the classifier in {folder} learnt from data {card.data_checksum[:12]}…, this data is "
            f"{expected_checksum[:12]}…: train one on this data"
        )
    model = ImageClassifier(card.input_shape, card.classes, card.width, card.feature_dim)
    model.load_state_dict(load_weights(weights))
    model.card = card
    return model.eval().requires_grad_(False)
