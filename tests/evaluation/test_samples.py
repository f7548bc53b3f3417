"""The record of a sampler that is known to be better at its end than at its start."""

from __future__ import annotations

import json
import math

import pytest
import torch

from vmcmc_dist.errors import CheckpointError, DataError
from vmcmc_dist.evaluation.classifier_training import ClassifierConfig, train_classifier
from vmcmc_dist.evaluation.samples import (
    Judged,
    Reference,
    evaluate_samples,
    reference_statistics,
)
from vmcmc_dist.langevin import LangevinConfig


def bars(count: int, seed: int, noise: float = 0.1):
    """Four classes: a bright bar in one of four places; [-1, 1]."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 4
    images = torch.full((count, 1, 20, 20), -0.8)
    for k in range(4):
        images[labels == k, :, 5 * k : 5 * k + 3] = 0.8
    return images + noise * torch.randn(images.shape, generator=rng), labels


class Denoiser:
    """Proposals are noisy bars; the longer the chain the less noise is left."""

    def __init__(self):
        self.calls: list[tuple[int, int]] = []

    def sample(self, n, *, steps, seed, return_proposals):
        assert return_proposals
        self.calls.append((n, seed))
        left = 1.0 if steps == 0 else 0.1
        return bars(n, seed, left)[0], bars(n, seed, 1.0)[0]

    def chain_config(self, steps):
        return LangevinConfig(steps=20 if steps is None else steps, temperature=0.25)


@pytest.fixture(scope="module")
def judge():
    config = ClassifierConfig(width=4, feature_dim=8, epochs=6, batch_size=16, lr=0.01)
    return train_classifier(*bars(320, 0), *bars(64, 1), config)


@pytest.fixture(scope="module")
def reference(judge):
    return reference_statistics(bars(400, 2)[0], judge)


def test_record_tells_refined_from_proposals_and_real(judge, reference):
    sampler = Denoiser()
    record = evaluate_samples(
        sampler, reference, judge, 200, seed=3, batch_size=80, real=bars(200, 9)[0], ema=True
    )
    assert record["is_refined"] == pytest.approx(4, abs=0.3)
    assert record["is_refined"] > record["is_proposals"]
    assert record["fd_refined"] < 0.2 * record["fd_proposals"]
    assert record["fd_real"] < 0.2 * record["fd_proposals"]
    assert record["class_shares"] == pytest.approx([0.25] * 4, abs=0.02)
    assert [n for n, _ in sampler.calls] == [80, 80, 40]
    assert len({seed for _, seed in sampler.calls}) == 3
    stated = {key: record[key] for key in ("n", "seed", "steps", "temperature", "ema")}
    assert stated == {"n": 200, "seed": 3, "steps": 20, "temperature": 0.25, "ema": True}
    assert json.loads(json.dumps(record)) == record


def test_chain_length_reaches_the_sampler_and_the_record(judge, reference):
    record = evaluate_samples(Denoiser(), reference, judge, 64, steps=0)
    assert record["steps"] == 0 and record["fd_refined"] == record["fd_proposals"]
    assert record["is_real"] == reference.inception_score


def test_same_seed_same_record(judge, reference):
    first = evaluate_samples(Denoiser(), reference, judge, 64, seed=5)
    assert evaluate_samples(Denoiser(), reference, judge, 64, seed=5) == first
    assert evaluate_samples(Denoiser(), reference, judge, 64, seed=6) != first


def test_workers_sums_equal_the_whole(judge):
    images = bars(90, 4)[0]
    whole, left, right = (Judged.empty(judge) for _ in range(3))
    whole.add(images, judge)
    left.add(images[:50], judge)
    right.add(images[50:], judge)
    assert (left + right).fd_classifier(whole) == pytest.approx(0, abs=1e-6)
    assert (left + right).predictions.count == 90


def test_reference_survives_the_disk_exactly(judge, reference, tmp_path):
    loaded = Reference.load(reference.save(tmp_path / "deep" / "reference.json"))
    assert loaded == reference and loaded.n == 400
    (tmp_path / "bad.json").write_text("[]")
    with pytest.raises(CheckpointError, match="compute them again"):
        Reference.load(tmp_path / "bad.json")
    with pytest.raises(CheckpointError, match="compute them again"):
        Reference.load(tmp_path / "none.json")


def test_too_few_samples_and_a_foreign_reference_are_named(judge, reference):
    with pytest.raises(DataError, match="at least 16"):
        evaluate_samples(Denoiser(), reference, judge, 15)
    foreign = Reference(**{**vars(reference), "classifier_sha256": "0"})
    with pytest.raises(CheckpointError, match="another classifier"):
        evaluate_samples(Denoiser(), foreign, judge, 64)


def test_distance_grows_with_noise(judge, reference):
    distances = []
    for noise in (0.1, 0.4, 0.8, 1.6):
        judged = Judged.empty(judge)
        judged.add(bars(200, 7, noise)[0], judge)
        distances.append(reference.fd_classifier(judged))
    assert distances == sorted(distances) and math.isfinite(distances[-1])
