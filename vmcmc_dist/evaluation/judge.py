"""The judge of a data set: a classifier trained on it once and kept in the cache."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from vmcmc_dist.data import DataConfig, Manifest, cache_dir
from vmcmc_dist.errors import DataError
from vmcmc_dist.evaluation.classifier import CARD, ImageClassifier, load_classifier
from vmcmc_dist.evaluation.classifier_training import (
    ClassifierConfig,
    Progress,
    train_classifier,
)
from vmcmc_dist.evaluation.real import find_part, real_images

MIN_UPDATES = 600  # for sets of a few thousand images


def training_split(data: DataConfig) -> DataConfig:
    """The whole training split of ``data``, whatever part of it a run used."""
    if data.limit is None and data.split == "train":
        return data
    return dataclasses.replace(data, split="train", limit=None, shards=None)


def whole(data: DataConfig) -> Manifest:
    """The manifest of the whole training split."""
    return find_part(training_split(data), "train").manifest


def judge_folder(data: DataConfig) -> Path:
    """Where the classifier of this data is kept; another data set has another folder."""
    return cache_dir() / "classifiers" / f"{data.source}-{whole(data).checksum[:12]}"


def cached_judge(data: DataConfig, progress: Progress | None = None) -> ImageClassifier:
    """The classifier of this data in the cache, trained first if there is none.

    CheckpointError: its files are damaged. DataError: data without labels.
    """
    folder = judge_folder(data)
    if not (folder / CARD).is_file():
        return train_judge(data, progress)
    return load_classifier(folder, expected_checksum=whole(data).checksum)


def train_judge(data: DataConfig, progress: Progress | None = None) -> ImageClassifier:
    """Train on the whole training split, test on held-out data, keep in the cache.

    Held out is the test split, else the validation split, else the last tenth of the training
    split, which is then not learnt from. Classes and 0/1 attributes are learnt.

    DataError: data without labels.
    """
    cfg = training_split(data)
    train, test = real_images(cfg, "train"), real_images(cfg, "held out")
    if train.labels is None or test.labels is None:
        raise DataError(
            f"{whole(data).source} has no labels, so no classifier can be trained on it: "
            "choose features=inception"
        )
    if find_part(cfg, "held out").manifest.checksum == whole(data).checksum:
        learnt = ~torch.isin(train.rows, test.rows)
        train.images, train.labels = train.images[learnt], train.labels[learnt]
    judge = train_classifier(
        train.images,
        train.labels,
        test.images,
        test.labels,
        ClassifierConfig(min_updates=MIN_UPDATES),
        checksum=whole(data).checksum,
        progress=progress,
    )
    judge.save(judge_folder(data))
    return judge
