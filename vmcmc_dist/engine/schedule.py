"""The learning rate as a function of images."""

from __future__ import annotations

import math

from vmcmc_dist.engine.config import OptimizerConfig


def learning_rate(config: OptimizerConfig, images: int, total: int) -> float:
    """lr after ``images`` of ``total``: linear warm-up times the schedule.

    exponential: lr · decay^(images / decay_images);  cosine: from lr to decay · lr at ``total``.
    """
    lr = config.lr
    if config.warmup_images:
        lr *= min(1.0, (images + 1) / config.warmup_images)
    if config.schedule == "exponential":
        lr *= config.decay ** (images / config.decay_images)
    elif config.schedule == "cosine":
        progress = min(1.0, images / max(total, 1))
        lr *= config.decay + (1 - config.decay) * 0.5 * (1 + math.cos(math.pi * progress))
    return lr
