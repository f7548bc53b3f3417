"""A small classifier of MNIST-like images: the judge of what the samplers draw.

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
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load as load_weights
from safetensors.torch import save as save_weights
from torch import Tensor, nn

from vmcmc_dist.data.scaling import to_model_range
from vmcmc_dist.errors import CheckpointError, DataError
from vmcmc_dist.settings import setting

WEIGHTS, CARD = "classifier.safetensors", "classifier.json"


@dataclass
class ClassifierConfig:
    """How the judge is built and trained."""

    width: int = setting(24, "channels of the first stage; 2× and 4× follow", ge=1)
    feature_dim: int = setting(64, "size of the features that distances are measured in", ge=2)
    epochs: int = setting(4, "passes over the training set", ge=1)
    batch_size: int = setting(128, "images per update", unit="images", ge=2)
    lr: float = setting(4e-3, "peak learning rate of AdamW, one cycle", gt=0)
    weight_decay: float = setting(0.02, "weight decay of AdamW", ge=0)
    seed: int = setting(0, "of the initial weights and of the order", ge=0)


@dataclass
class ClassifierCard:
    """What a saved classifier is and what it learnt from."""

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
        """Unnormalised log p(y|x) [B, K]."""
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
        """Write weights and card into ``folder``; returns it."""
        if self.card is None:
            raise CheckpointError("this classifier has no card: train it with train_classifier")
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / WEIGHTS).write_bytes(self.weights())
        (folder / CARD).write_text(json.dumps(dataclasses.asdict(self.card), indent=2) + "\n")
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


def collect(batches: Iterable[Any], count: int) -> tuple[Tensor, Tensor]:
    """The first ``count`` images and labels of a stream of batches with ``x`` and ``y``.

    DataError: batches without labels, or too few of them.
    """
    images: list[Tensor] = []
    labels: list[Tensor] = []
    have = 0
    for batch in batches:
        if batch.y is None:
            raise DataError("a classifier learns from labels, and this data set has none")
        images.append(batch.x)
        labels.append(batch.y)
        have += len(batch.x)
        if have >= count:
            return torch.cat(images)[:count], torch.cat(labels)[:count]
    raise DataError(f"the stream ended after {have} of {count} images")


def data_checksum(images: Tensor, labels: Tensor) -> str:
    """sha256 over the bytes of images and labels."""
    digest = hashlib.sha256(images.contiguous().numpy().tobytes())
    digest.update(labels.contiguous().numpy().tobytes())
    return digest.hexdigest()


def accuracy(model: ImageClassifier, images: Tensor, labels: Tensor) -> float:
    """Share of images whose largest logit is their label's."""
    return (model.judge(images)[1].argmax(1) == labels).double().mean().item()


def train_classifier(
    train_images: Tensor,
    train_labels: Tensor,
    test_images: Tensor,
    test_labels: Tensor,
    config: ClassifierConfig | None = None,
    *,
    checksum: str | None = None,
    device: str | torch.device = "cpu",
    progress: Callable[[int, int, float], None] | None = None,
) -> ImageClassifier:
    """Train the judge on images [N, C, H, W] (uint8, or float in [-1, 1]) and labels [N] 0…K−1.

    AdamW with one learning-rate cycle on the cross entropy; deterministic given the seed.
    ``checksum`` names the data (a manifest's; else the bytes are hashed);
    ``progress(update, updates, loss)`` is called after each update. Returned in eval mode.
    """
    config = config or ClassifierConfig()
    _check_labelled("training", train_images, train_labels)
    _check_labelled("test", test_images, test_labels)
    classes, shape = int(train_labels.max()) + 1, list(train_images.shape[1:])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = ImageClassifier(shape, classes, config.width, config.feature_dim).to(device)
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    order = torch.Generator().manual_seed(config.seed)
    count = len(train_images)
    updates = config.epochs * max(1, count // config.batch_size)
    optimizer = torch.optim.AdamW(model.parameters(), config.lr, weight_decay=config.weight_decay)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.lr, updates, pct_start=0.25)
    update = 0
    for _ in range(config.epochs):
        permutation = torch.randperm(count, generator=order)
        for index in permutation.split(config.batch_size)[: max(1, count // config.batch_size)]:
            x = (
                to_model_range(train_images[index])
                .to(device)
                .contiguous(memory_format=torch.channels_last)
            )
            loss = F.cross_entropy(model(x), train_labels[index].to(device))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            cycle.step()
            update += 1
            if progress:
                progress(update, updates, loss.item())
    model.eval().requires_grad_(False)
    model.card = ClassifierCard(
        classes=classes,
        input_shape=shape,
        feature_dim=config.feature_dim,
        width=config.width,
        test_accuracy=0.0,
        test_samples=len(test_images),
        train_samples=count,
        data_checksum=checksum or data_checksum(train_images, train_labels),
        seed=config.seed,
        weights_sha256=hashlib.sha256(model.weights()).hexdigest(),
    )
    model.card.test_accuracy = accuracy(model, test_images, test_labels)
    return model


def _check_labelled(what: str, images: Tensor, labels: Tensor) -> None:
    if images.ndim != 4 or min(images.shape[2:]) < 16:
        raise DataError(
            f"{what} images must be [N, C, H, W] with H, W ≥ 16, got {list(images.shape)}"
        )
    if len(images) == 0 or len(images) != len(labels):
        raise DataError(
            f"{len(images)} {what} images with {len(labels)} labels: give one label per image"
        )
