"""Every random number of an iteration as a function of (seed, images, what it is for)."""

from __future__ import annotations

import torch

from vmcmc_dist.langevin.noise import Noise, stream_seed


class NoisePlan:
    """Hands out the :class:`Noise` of one iteration by purpose and micro-batch.

    Two layouts:

    - per rank (default): each worker draws its own, seeded by (seed, rank, images);
    - per sample: each worker draws the noise of the whole global batch and keeps the rows
      rank, rank + N, rank + 2N, …  Then N workers with batch B see the very numbers that one
      worker with batch N·B sees, in one micro-batch or many, at N times (and per micro-batch) the
      small cost of drawing.

    Args:
        salt: changes every number; raised by one when a guard rolls a run back.
    """

    def __init__(
        self,
        seed: int,
        images: int,
        *,
        rank: int = 0,
        world_size: int = 1,
        per_sample: bool = False,
        salt: int = 0,
        device: torch.device | str = "cpu",
    ):
        self.seed, self.images, self.salt = seed, images, salt
        self.rank, self.world_size = rank, world_size
        self.per_sample, self.device = per_sample, torch.device(device)

    def __call__(self, purpose: str, chunk: int, rows: int, chunks: int = 1) -> Noise:
        """The noise for ``rows`` local samples of micro-batch ``chunk`` of ``chunks``."""
        if self.per_sample:
            seed = stream_seed(self.seed, self.salt, self.images, purpose)
            n = rows * self.world_size
            return Noise(
                seed,
                self.device,
                rows=slice(chunk * n + self.rank, (chunk + 1) * n, self.world_size),
                total=chunks * n,
            )
        seed = stream_seed(self.seed, self.salt, self.images, purpose, chunk, "rank", self.rank)
        return Noise(seed, self.device)
