"""The judge of a data set: a classifier trained on it once and kept in the cache."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from vmcmc_dist.data import DataConfig, cache_dir, ensure_prepared, open_stream
from vmcmc_dist.errors import DataError
from vmcmc_dist.evaluation.classifier import (
    ImageClassifier,
    collect,
    load_classifier,
    train_classifier,
)
from vmcmc_dist.evaluation.samples import evaluate_samples, reference_statistics
from vmcmc_dist.trained import Trained


def read_split(data: DataConfig, split: Literal["train", "test"]) -> tuple[Tensor, Tensor, str]:
    """All images [N, C, H, W] uint8 and labels [N] of a split in their own order, and a checksum.

    Raises:
        DataError: data without one class label per image.
    """
    cfg = dataclasses.replace(data, split=split, shuffle=False, flip=False, limit=None)
    manifest = ensure_prepared(cfg)
    with open_stream(cfg, seed=0, local_batch=min(500, manifest.num_samples)) as stream:
        images, labels = collect(stream, manifest.num_samples)
    if labels.ndim != 1:
        raise DataError(f"{manifest.source} has attributes, no classes: no classifier can judge it")
    return images, labels, manifest.checksum


def judge_folder(data: DataConfig) -> Path:
    """Where the classifier of this data is kept."""
    size = f"-{data.image_size}" if data.image_size else ""
    return cache_dir() / "classifiers" / f"{data.source}{size}"


def train_judge(
    data: DataConfig, progress: Callable[[int, int, float], None] | None = None
) -> ImageClassifier:
    """Train on the training split, test on the test split, keep in the cache."""
    images, labels, checksum = read_split(data, "train")
    test_images, test_labels, _ = read_split(data, "test")
    judge = train_classifier(
        images, labels, test_images, test_labels, checksum=checksum, progress=progress
    )
    judge.save(judge_folder(data))
    return judge


def judge_run(
    model: Trained,
    *,
    n: int = 1000,
    steps: int | None = None,
    seed: int = 0,
    ema: bool | None = None,
    progress: Callable[[int, int, float], None] | None = None,
) -> dict[str, Any]:
    """Inception score and Fréchet distance of refined samples and proposals, in a classifier.

    The classifier is trained first if the cache has none of this data. Distances are to the
    whole training split; ``is_real`` and ``fd_real`` are of ``n`` test images.
    """
    data = model.config.data
    images, _, checksum = read_split(data, "train")
    folder = judge_folder(data)
    if folder.exists():
        judge = load_classifier(folder, expected_checksum=checksum)
    else:
        judge = train_judge(data, progress)
    reference = reference_statistics(images, judge, checksum=checksum)
    test_images, _, _ = read_split(data, "test")
    record = evaluate_samples(
        model, reference, judge, n, steps=steps, seed=seed, real=test_images, ema=ema
    )
    return {"images": model.images, **record}


def write_record(record: dict[str, Any], path: Path) -> None:
    """Append one record to a JSON-lines file."""
    with path.open("a") as file:
        file.write(json.dumps(record) + "\n")
