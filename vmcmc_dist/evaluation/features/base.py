"""What a net of features is to a metric: images in, features and logits out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from vmcmc_dist.data.scaling import to_pixels
from vmcmc_dist.errors import DataError

Net = Callable[[Tensor], tuple[Tensor, Tensor | None]]
"""uint8 [B, C, H, W] → features [B, D] and logits [B, K] or None."""


@dataclass(frozen=True)
class Features:
    """A frozen net that distances are measured in.

        features = features_for(config.data)
        phi, logits = features(images)          # uint8, or float in [-1, 1]: [B, C, H, W]

    Images are judged as they would be saved: floats are clamped and rounded to 8 bits.

    Attributes:
        name: goes into the name of every number: ``resnet56``, ``classifier``, ``inception``.
        dim: D, size of the features.
        classes: K where the logits are of one class per image; None for attributes and no logits.
        fingerprint: sha256 of the weights.
        shape: (C, H, W) that the net reads; None = any size, grey or colour.
        labels: what the logits are: one ``class`` of K, or K independent ``attributes``.
        accuracy: share of held-out images (or attributes) that the net gets right; None = unknown.
    """

    name: str
    dim: int
    classes: int | None
    fingerprint: str
    net: Net = field(repr=False)
    shape: tuple[int, int, int] | None = None
    labels: Literal["class", "attributes"] | None = "class"
    accuracy: float | None = None
    device: str | torch.device = "cpu"
    batch_size: int = 250

    @torch.no_grad()
    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Features [B, D] fp32 and logits [B, K] fp32 (or None), on the CPU.

        DataError: images of another shape, or values that are not finite.
        """
        self.check(images)
        parts = [
            self.net(to_pixels(part).to(self.device)) for part in images.split(self.batch_size)
        ]
        phi = torch.cat([features.float().cpu() for features, _ in parts])
        logits = [part.float().cpu() for _, part in parts if part is not None]
        return phi, torch.cat(logits) if logits else None

    def check(self, images: Tensor) -> None:
        """DataError unless ``images`` are [B ≥ 1, C, H, W] that this net can read, and finite."""
        found = list(images.shape)
        if len(found) != 4 or found[0] == 0 or (self.shape is None and found[1] not in (1, 3)):
            raise DataError(f"{self.name} reads images [B, 1 or 3, H, W], got {found}")
        if self.shape is not None and found[1:] != list(self.shape):
            raise DataError(
                f"{self.name} reads images of shape {list(self.shape)}, got {found[1:]}: "
                "choose other features, or images of that shape"
            )
        if images.is_floating_point() and not torch.isfinite(images).all():
            raise DataError("images to judge hold values that are not finite: the sampler diverged")
