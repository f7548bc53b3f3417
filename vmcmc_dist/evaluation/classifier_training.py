"""Training the judge: one learning-rate cycle of AdamW on labelled images."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vmcmc_dist.data.scaling import to_model_range
from vmcmc_dist.errors import DataError
from vmcmc_dist.evaluation.classifier import ClassifierCard, ImageClassifier
from vmcmc_dist.settings import setting

Progress = Callable[[int, int, float], None]
"""(update, updates, loss), after each update."""

SHORTEST = 8  # updates of a whole learning-rate cycle; fewer are its beginning


@dataclass
class ClassifierConfig:
    """How the judge is built and trained."""

    width: int = setting(24, "channels of the first stage; 2× and 4× follow", ge=1)
    feature_dim: int = setting(64, "size of the features that distances are measured in", ge=2)
    epochs: int = setting(4, "passes over the training set", ge=1)
    min_updates: int = setting(0, "more passes over small sets, until this many updates", ge=0)
    batch_size: int = setting(128, "images per update", unit="images", ge=2)
    lr: float = setting(4e-3, "peak learning rate of AdamW, one cycle", gt=0)
    weight_decay: float = setting(0.02, "weight decay of AdamW", ge=0)
    seed: int = setting(0, "of the initial weights and of the order", ge=0)


def train_classifier(
    train_images: Tensor,
    train_labels: Tensor,
    test_images: Tensor,
    test_labels: Tensor,
    config: ClassifierConfig | None = None,
    *,
    checksum: str | None = None,
    device: str | torch.device = "cpu",
    progress: Progress | None = None,
) -> ImageClassifier:
    """Train the judge on images [N, C, H, W] (uint8, or float in [-1, 1]) and their labels.

    Labels [N] 0…K−1 are learnt by cross entropy; attributes [N, A] of 0 and 1 by the binary one,
    each by itself. Deterministic given the seed. ``checksum`` names the data (a manifest's; else
    the bytes are hashed). Returned in eval mode, with its accuracy on the test images in the card.
    """
    config = config or ClassifierConfig()
    check_labelled("training", train_images, train_labels)
    check_labelled("test", test_images, test_labels)
    if bool((train_labels == train_labels[:1]).all()):
        raise DataError(
            "all training images have the same label, so there is nothing to learn: choose "
            "features=inception, or give labels that differ"
        )
    many = train_labels.ndim == 2
    classes = train_labels.shape[1] if many else int(train_labels.max()) + 1
    loss_of = F.binary_cross_entropy_with_logits if many else F.cross_entropy
    targets = train_labels.float() if many else train_labels
    count, shape = len(train_images), list(train_images.shape[1:])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = ImageClassifier(shape, classes, config.width, config.feature_dim).to(device)
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    order = torch.Generator().manual_seed(config.seed)
    per_epoch = max(1, count // config.batch_size)
    epochs = max(config.epochs, math.ceil(config.min_updates / per_epoch))
    updates = epochs * per_epoch
    optimizer = torch.optim.AdamW(model.parameters(), config.lr, weight_decay=config.weight_decay)
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.lr, max(updates, SHORTEST), pct_start=0.25
    )
    update = 0
    for _ in range(epochs):
        permutation = torch.randperm(count, generator=order)
        for index in permutation.split(config.batch_size)[:per_epoch]:
            x = to_model_range(train_images[index]).to(device)
            x = x.contiguous(memory_format=torch.channels_last)
            loss = loss_of(model(x), targets[index].to(device))
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
        labels="attributes" if many else "class",
        chance=_chance(train_labels, test_labels),
    )
    model.card.test_accuracy = accuracy(model, test_images, test_labels)
    return model


def accuracy(model: ImageClassifier, images: Tensor, labels: Tensor) -> float:
    """Share of images whose largest logit is their label's; of attributes with the right sign."""
    logits = model.judge(images)[1]
    predicted = logits.argmax(1) if labels.ndim == 1 else (logits > 0).long()
    return (predicted == labels).double().mean().item()


def _chance(train_labels: Tensor, test_labels: Tensor) -> float:
    """Accuracy on the test labels of always saying what is most frequent in training."""
    if train_labels.ndim == 2:
        constant = (train_labels.float().mean(0) > 0.5).long()
    else:
        constant = torch.bincount(train_labels).argmax()
    return (test_labels == constant).double().mean().item()


def data_checksum(images: Tensor, labels: Tensor) -> str:
    """sha256 over the bytes of images and labels."""
    digest = hashlib.sha256(images.contiguous().numpy().tobytes())
    digest.update(labels.contiguous().numpy().tobytes())
    return digest.hexdigest()


def check_labelled(what: str, images: Tensor, labels: Tensor) -> None:
    """DataError unless images [N, C, H ≥ 16, W ≥ 16] have labels [N] or attributes [N, A]."""
    if images.ndim != 4 or min(images.shape[2:]) < 16:
        raise DataError(
            f"{what} images must be [N, C, H, W] with H, W ≥ 16, got {list(images.shape)}"
        )
    if len(images) == 0 or len(images) != len(labels):
        raise DataError(
            f"{len(images)} {what} images with {len(labels)} labels: give one label per image"
        )
