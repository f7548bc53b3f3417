"""Features of the classifier that was trained on the data itself."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from vmcmc_dist.data import DataConfig
from vmcmc_dist.data.scaling import to_model_range
from vmcmc_dist.errors import CheckpointError
from vmcmc_dist.evaluation.classifier import ImageClassifier, load_classifier
from vmcmc_dist.evaluation.classifier_training import Progress
from vmcmc_dist.evaluation.features.base import Features
from vmcmc_dist.evaluation.judge import cached_judge


def classifier_features(
    data: DataConfig,
    *,
    weights: Path | None = None,
    device: str | torch.device = "cpu",
    progress: Progress | None = None,
) -> Features:
    """The classifier in folder ``weights``, else the cache's of this data, trained if missing."""
    model = cached_judge(data, progress) if weights is None else load_classifier(weights)
    return features_of(model, device)


def features_of(model: ImageClassifier, device: str | torch.device = "cpu") -> Features:
    """A classifier's features: the input of its last layer."""
    if model.card is None:
        raise CheckpointError("this classifier has no card: train it with train_classifier")
    card, model = model.card, model.to(device)

    def net(pixels: Tensor) -> tuple[Tensor, Tensor]:
        features = model.features(to_model_range(pixels))
        return features, model.classify(features)

    channels, height, width = card.input_shape
    return Features(
        "classifier",
        card.feature_dim,
        card.classes if card.labels == "class" else None,
        card.weights_sha256,
        net,
        shape=(channels, height, width),
        labels=card.labels,
        accuracy=card.test_accuracy,
        device=device,
        batch_size=500,
    )
