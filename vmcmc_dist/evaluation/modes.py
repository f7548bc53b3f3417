"""Which class a classifier sees before and after a chain: how often chains change modes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Jumps:
    """Predicted classes at the start and at the end of N chains.

    Attributes:
        counts: int64 [K, K]; [i, j] chains that began in class i and ended in class j.
        confidence_start, confidence_end: mean largest probability, how sure the classifier is.
    """

    counts: Tensor
    confidence_start: float
    confidence_end: float

    @classmethod
    def of(cls, start: Tensor, end: Tensor) -> Jumps:
        """From logits [N, K] of the same chains."""
        classes = start.shape[1]
        pair = start.argmax(1) * classes + end.argmax(1)
        counts = torch.bincount(pair, minlength=classes**2).view(classes, classes)
        return cls(counts, *(x.softmax(1).amax(1).mean().item() for x in (start, end)))

    @property
    def share(self) -> float:
        """Share of the chains whose class changed."""
        return 1 - (self.counts.diagonal().sum() / self.counts.sum()).item()

    def transition(self) -> Tensor:
        """P(end = j | start = i), float64 [K, K]; a row of zeros where no chain began."""
        return self.counts.double() / self.counts.sum(1, keepdim=True).clamp_min(1)
