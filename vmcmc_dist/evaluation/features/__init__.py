"""Nets that distances are measured in, by name.

    features = features_for(config.data)                # chosen by the data
    phi, logits = features(images)                      # [B, D], [B, K] or None

| name | net | for |
|---|---|---|
| resnet56, resnet20 | CIFAR-10 ResNets with published weights | 32×32 colour |
| classifier | a small CNN trained on the data itself and kept in the cache | data with labels |
| inception | Inception-v3 of 2015, the published FID's | any; extra ``fid`` |
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from vmcmc_dist.data import DataConfig
from vmcmc_dist.errors import ConfigError, ResourceError
from vmcmc_dist.evaluation.features.base import Features
from vmcmc_dist.evaluation.features.inception import inception_features
from vmcmc_dist.evaluation.features.judge import classifier_features, features_of
from vmcmc_dist.evaluation.features.resnet import SHAPE, resnet_features
from vmcmc_dist.evaluation.judge import whole

NETS = ("resnet56", "resnet20", "classifier", "inception")

__all__ = ["NETS", "Features", "features_for", "features_of"]


def features_for(
    data: DataConfig,
    name: str = "auto",
    *,
    weights: Path | None = None,
    device: str | torch.device = "cpu",
    progress: Callable[[int, int, float], None] | None = None,
) -> Features:
    """The net ``name`` for this data, ready to be called.

    ``auto``: CIFAR-10 → resnet56; labelled data → classifier; else inception. There is no second
    choice where the first cannot be had. ``weights`` is a file (a folder for the classifier);
    without it the cache is asked, then the net's download, or the classifier is trained
    (``progress(update, updates, loss)``).

    Raises:
        ConfigError: an unknown name, points instead of images, a missing extra.
        CheckpointError: weights with a wrong checksum. ResourceError: no weights to be had.
        DataError: a classifier asked for on data without labels.
    """
    if name not in ("auto", *NETS):
        raise ConfigError(f"no features {name!r}; there are auto, {', '.join(NETS)}")
    if data.source == "toy2d":
        raise ConfigError("points on the plane have no features: distances are for images")
    chosen = _automatic(data) if name == "auto" else name
    try:
        if chosen.startswith("resnet"):
            return resnet_features(int(chosen[len("resnet") :]), weights=weights, device=device)
        if chosen == "classifier":
            return classifier_features(data, weights=weights, device=device, progress=progress)
        return inception_features(weights=weights, device=device)
    except (ConfigError, ResourceError) as error:
        others = _others(data, chosen)
        if name != "auto" or not others:
            raise
        raise type(error)(f"{error} (or choose features={' or '.join(others)})") from None


def _automatic(data: DataConfig) -> str:
    manifest = whole(data)
    if manifest.source == "cifar10" and manifest.shape == SHAPE:
        return "resnet56"
    return "classifier" if manifest.labels.kind != "none" else "inception"


def _others(data: DataConfig, chosen: str) -> list[str]:
    """What else could judge this data, if the user says so."""
    possible = ["inception"] if whole(data).labels.kind == "none" else ["classifier", "inception"]
    return [name for name in possible if name != chosen]
