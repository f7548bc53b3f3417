"""All that the metrics need of a set of images, in sums that add up over workers.

scores = Scores.empty(features)
for first, images in chunks:
    scores.add(images, first=first)
record = scores.record(reference)         # {"fd_resnet56": 12.3, "kid_resnet56": …, "n": …}
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from vmcmc_dist.errors import CheckpointError, DataError
from vmcmc_dist.evaluation.features import Features
from vmcmc_dist.evaluation.kid import kernel_distance
from vmcmc_dist.evaluation.manifolds import manifolds
from vmcmc_dist.evaluation.metrics import MomentSums, PredictionSums, frechet_distance

if TYPE_CHECKING:
    from vmcmc_dist.evaluation.reference import Reference

SAMPLE = 10_000  # feature vectors kept for kernel distances and nearest neighbours
MIN_PER_FEATURE = 2  # samples per feature dimension below which a covariance is mostly noise
PUBLISHED = 50_000  # samples of the published FID


@dataclass
class Scores:
    """Moments of features, predictions, and a bounded sample of the features themselves.

    The sample is the ``SAMPLE`` images whose numbers hash lowest: a random subset, the same
    however the images were dealt to workers.

    Attributes:
        features: the net.
        moments: n, Σφ, Σφφᵀ in fp64.
        predictions: sums over the classes; None where the net has none.
        keys: int64 [m], hashes of the sample's numbers, ascending.
        sample: fp32 [m, D], m ≤ SAMPLE.
    """

    features: Features
    moments: MomentSums
    predictions: PredictionSums | None
    keys: Tensor
    sample: Tensor

    @classmethod
    def empty(cls, features: Features) -> Scores:
        """Of no images yet."""
        return cls(
            features,
            MomentSums.empty(features.dim),
            None if features.classes is None else PredictionSums.empty(features.classes),
            torch.empty(0, dtype=torch.int64),
            torch.empty(0, features.dim),
        )

    @property
    def n(self) -> int:
        """Images taken in."""
        return self.moments.count

    def add(self, images: Tensor, first: int | None = None) -> None:
        """Take in images [B, C, H, W], uint8 or in [-1, 1].

        ``first`` is the number of the first of them in the whole set, over all workers; by
        default they follow those that were added here.
        """
        self.add_features(*self.features(images), first=first)

    def add_features(self, phi: Tensor, logits: Tensor | None, first: int | None = None) -> None:
        """Take in what ``features(images)`` gave: phi [B, D] and logits [B, K] or None."""
        first = self.n if first is None else first
        self.moments.add(phi)
        if self.predictions is not None and logits is not None:
            self.predictions.add(logits)
        self._keep(torch.cat([self.keys, _hash(first, len(phi))]), torch.cat([self.sample, phi]))

    def __add__(self, other: Scores) -> Scores:
        """Of both sets; CheckpointError if they were judged by different nets."""
        _same_net(self.features.fingerprint, other.features.fingerprint)
        predictions = None
        if self.predictions is not None and other.predictions is not None:
            predictions = self.predictions + other.predictions
        both = Scores(
            self.features, self.moments + other.moments, predictions, self.keys, self.sample
        )
        both._keep(torch.cat([self.keys, other.keys]), torch.cat([self.sample, other.sample]))
        return both

    def _keep(self, keys: Tensor, sample: Tensor) -> None:
        order = keys.argsort(stable=True)[:SAMPLE]
        self.keys, self.sample = keys[order], sample[order]

    def state_dict(self) -> dict[str, Tensor]:
        """Everything as tensors, for a file or another process."""
        state = {
            "fingerprint": torch.frombuffer(bytearray.fromhex(self._hex()), dtype=torch.uint8),
            "count": torch.tensor(self.moments.count),
            "total": self.moments.total,
            "outer": self.moments.outer,
            "keys": self.keys,
            "sample": self.sample,
        }
        if self.predictions is not None:
            state["probability"] = self.predictions.probability
            state["negative_entropy"] = torch.tensor(
                self.predictions.negative_entropy, dtype=torch.float64
            )
            state["predicted"] = self.predictions.predicted
        return state

    def _hex(self) -> str:
        return self.features.fingerprint

    @classmethod
    def from_state(cls, features: Features, state: dict[str, Tensor]) -> Scores:
        """What ``state_dict`` gave; CheckpointError if it is of another net or incomplete."""
        try:
            _same_net(features.fingerprint, bytes(state["fingerprint"].tolist()).hex())
            count = int(state["count"])
            predictions = None
            if features.classes is not None:
                predictions = PredictionSums(
                    count,
                    state["probability"],
                    state["negative_entropy"].item(),
                    state["predicted"],
                )
            moments = MomentSums(count, state["total"], state["outer"])
            return cls(features, moments, predictions, state["keys"], state["sample"])
        except KeyError as error:
            raise CheckpointError(f"stored scores lack {error}: judge the images again") from None

    def record(self, reference: Reference) -> dict[str, Any]:
        """Every metric of these images against real ones, by name (NET = ``features.name``).

            fd_NET                              squared Fréchet distance
            kid_NET, kid_std_NET                kernel distance over subsets
            is_NET                              inception score, where NET has classes
            precision_NET, recall_NET, density_NET, coverage_NET    of ``manifold_n`` images
            n, reference_n, biased              biased: fewer than 50,000, compare equal n alone

        The Fréchet distance is called ``fid`` only as published: Inception-v3, 50,000 samples,
        the whole training split. With other n Inception's is ``fd_inception_10k`` and so on.

        Raises:
            DataError: too few samples, and how many are needed.
            CheckpointError: a reference of another net.
        """
        name, real = self.features.name, reference.scores
        _same_net(self.features.fingerprint, real.features.fingerprint)
        for what, n in (("samples", self.n), ("reference images", real.n)):
            enough_for_covariance(self.features, n, what)
        size = min(len(self.sample), len(real.sample))
        kid, kid_std = kernel_distance(self.sample, real.sample)
        found = manifolds(self.sample[:size], real.sample[:size])
        record: dict[str, Any] = {
            self._frechet_name(reference): frechet_distance(
                *self.moments.moments(), *real.moments.moments()
            ),
            f"kid_{name}": kid,
            f"kid_std_{name}": kid_std,
        }
        if self.predictions is not None:
            record[f"is_{name}"] = self.predictions.inception_score()
        record |= {f"{metric}_{name}": value for metric, value in vars(found).items()}
        return record | {
            "manifold_n": size,
            "n": self.n,
            "reference_n": real.n,
            "biased": self.n < PUBLISHED,
        }

    def _frechet_name(self, reference: Reference) -> str:
        if self.features.name != "inception":
            return f"fd_{self.features.name}"
        if self.n == PUBLISHED and reference.whole_training_split:
            return "fid"
        return f"fd_inception_{_thousands(self.n)}"


def enough_for_covariance(features: Features, n: int, what: str = "samples") -> None:
    """DataError if a Fréchet distance of ``n`` samples would be mostly noise."""
    needed = MIN_PER_FEATURE * features.dim
    if n < needed:
        raise DataError(
            f"a Fréchet distance in the {features.dim} features of {features.name} needs at least "
            f"{needed} {what}, got {n}: ask for more"
        )


def _same_net(one: str, other: str) -> None:
    if one != other:
        raise CheckpointError(
            f"scores of two different nets ({one[:12]}…, {other[:12]}…): compute them again"
        )


def _thousands(n: int) -> str:
    return f"{n // 1000}k" if n % 1000 == 0 and n else str(n)


def _hash(first: int, count: int) -> Tensor:
    """63 well-mixed bits of the numbers first … first + count − 1 (splitmix64): int64 [count]."""
    z = np.arange(first + 1, first + count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return torch.from_numpy(((z ^ (z >> np.uint64(31))) >> np.uint64(1)).astype(np.int64))
