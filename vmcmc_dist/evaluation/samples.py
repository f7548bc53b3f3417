"""One record of how good a trained pair's samples are, judged by a classifier.

judge = load_classifier("cache/classifier-fashion_mnist")
reference = reference_statistics(train_images, judge)
record = evaluate_samples(vmcmc_dist.load(run), reference, judge, n=1000, real=test_images)
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from vmcmc_dist.errors import CheckpointError, DataError
from vmcmc_dist.evaluation.classifier import ImageClassifier
from vmcmc_dist.evaluation.classifier_training import data_checksum
from vmcmc_dist.evaluation.metrics import MomentSums, PredictionSums, frechet_distance
from vmcmc_dist.langevin import LangevinConfig, stream_seed

MIN_PER_FEATURE = 2  # samples per feature dimension below which a covariance is mostly noise


class Sampler(Protocol):
    """What is judged: refined samples [n, C, H, W] in [-1, 1] and the proposals they began as."""

    def sample(
        self, n: int, *, steps: int | None, seed: int, return_proposals: bool
    ) -> tuple[Tensor, Tensor]: ...

    def chain_config(self, steps: int | None) -> LangevinConfig: ...


@dataclass
class Judged:
    """Feature moments and predictions of one set of images, in sums that add up over workers."""

    features: MomentSums
    predictions: PredictionSums

    @classmethod
    def empty(cls, classifier: ImageClassifier) -> Judged:
        head = classifier.classify
        return cls(MomentSums.empty(head.in_features), PredictionSums.empty(head.out_features))

    def add(self, images: Tensor, classifier: ImageClassifier) -> None:
        """Take in images [B, C, H, W], uint8 or in [-1, 1]."""
        features, logits = classifier.judge(images)
        self.features.add(features)
        self.predictions.add(logits)

    def __add__(self, other: Judged) -> Judged:
        return Judged(self.features + other.features, self.predictions + other.predictions)

    def fd_classifier(self, other: Judged) -> float:
        """Fréchet distance of the two sets in the classifier's features."""
        return frechet_distance(*self.features.moments(), *other.features.moments())


@dataclass
class Reference:
    """Statistics of real images: what distances are measured to."""

    mean: list[float]
    covariance: list[list[float]]
    n: int
    inception_score: float
    class_shares: list[float]
    data_checksum: str
    classifier_sha256: str

    def save(self, path: str | Path) -> Path:
        """Write as JSON; fp64 survives exactly."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self)) + "\n")
        return path

    @classmethod
    def load(cls, path: str | Path) -> Reference:
        """Read what ``save`` wrote; CheckpointError if it is missing or something else."""
        try:
            return cls(**json.loads(Path(path).read_text()))
        except (OSError, ValueError, TypeError) as error:
            raise CheckpointError(
                f"{path} holds no reference statistics ({error}): compute them again"
            ) from error

    def fd_classifier(self, judged: Judged) -> float:
        """Fréchet distance of judged images to this reference."""
        mean = torch.tensor(self.mean, dtype=torch.float64)
        covariance = torch.tensor(self.covariance, dtype=torch.float64)
        return frechet_distance(*judged.features.moments(), mean, covariance)


def reference_statistics(
    images: Tensor, classifier: ImageClassifier, *, checksum: str | None = None
) -> Reference:
    """Statistics of real images [N, C, H, W]; ``checksum`` names them (else their bytes do)."""
    judged = Judged.empty(classifier)
    judged.add(images, classifier)
    mean, covariance = judged.features.moments()
    return Reference(
        mean=mean.tolist(),
        covariance=covariance.tolist(),
        n=judged.features.count,
        inception_score=judged.predictions.inception_score(),
        class_shares=judged.predictions.class_shares(),
        data_checksum=checksum or data_checksum(images, torch.empty(0)),
        classifier_sha256=_sha256(classifier),
    )


def evaluate_samples(
    trained: Sampler,
    reference: Reference,
    classifier: ImageClassifier,
    n: int = 1000,
    *,
    steps: int | None = None,
    seed: int = 0,
    batch_size: int = 250,
    real: Tensor | None = None,
    ema: bool | None = None,
) -> dict[str, Any]:
    """Draw ``n`` chains in batches and judge both of their ends; a flat record for JSON.

    is_refined, is_proposals, is_real        inception scores by this classifier
    fd_refined, fd_proposals[, fd_real]      Fréchet distances to ``reference`` in its features
    class_shares, class_shares_proposals     by its largest logit
    n, seed, steps, temperature, ema, …      what is needed to draw them again

    ``real``: held-out images, the mark to reach. A Fréchet distance falls with n: compare equal n.
    DataError: n below twice the feature dimension; CheckpointError: a reference of another
    classifier.
    """
    dim = classifier.classify.in_features
    if n < MIN_PER_FEATURE * dim:
        raise DataError(
            f"a Fréchet distance in {dim} features needs at least {MIN_PER_FEATURE * dim} "
            f"samples, got n={n}: ask for more"
        )
    if reference.classifier_sha256 != _sha256(classifier):
        raise CheckpointError(
            "the reference statistics were made with another classifier: compute them again"
        )
    refined, proposals = Judged.empty(classifier), Judged.empty(classifier)
    for start in range(0, n, batch_size):
        count = min(batch_size, n - start)
        batch_seed = stream_seed(seed, "evaluate", start)
        ends, starts = trained.sample(count, steps=steps, seed=batch_seed, return_proposals=True)
        refined.add(ends.clamp(-1, 1), classifier)
        proposals.add(starts.clamp(-1, 1), classifier)
    chain = trained.chain_config(steps)
    record: dict[str, Any] = {
        "is_refined": refined.predictions.inception_score(),
        "is_proposals": proposals.predictions.inception_score(),
        "is_real": reference.inception_score,
        "fd_refined": reference.fd_classifier(refined),
        "fd_proposals": reference.fd_classifier(proposals),
        "fd_features": f"classifier {_sha256(classifier)[:12]}",
        "class_shares": refined.predictions.class_shares(),
        "class_shares_proposals": proposals.predictions.class_shares(),
        "n": n,
        "reference_n": reference.n,
        "seed": seed,
        "batch_size": batch_size,
        "steps": chain.steps,
        "temperature": chain.temperature,
        "ema": ema,
        "data_checksum": reference.data_checksum,
        "classifier_accuracy": classifier.card.test_accuracy if classifier.card else None,
    }
    if real is not None:
        held_out = Judged.empty(classifier)
        held_out.add(real[:n], classifier)
        record["is_real"] = held_out.predictions.inception_score()
        record["fd_real"] = reference.fd_classifier(held_out)
    return record


def _sha256(classifier: ImageClassifier) -> str:
    return classifier.card.weights_sha256 if classifier.card else ""
