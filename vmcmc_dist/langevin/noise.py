"""Seeded noise that is the same for a global sample whatever the number of workers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def stream_seed(*keys: int | str) -> int:
    """A seed in [0, 2⁶³) as a function of the keys, e.g. ``stream_seed(seed, "chain", images)``.

    Hashed, because torch's CPU generator looks at the low 32 bits of a seed only, and
    neighbouring seeds should not start related streams.
    """
    digest = hashlib.blake2b(repr(keys).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class Noise:
    """Random numbers from one seed, for the rows of a global batch that this worker holds.

        noise = Noise(7, rows=slice(rank, None, world_size), total=64)
        eps = noise.normal((64 // world_size, 3, 32, 32))

    With ``total``, a draw is made for all ``total`` samples and the own ``rows`` are returned, so
    that one worker and many see the same number for the same sample. ``generator`` is a second
    stream of the same seed, for anything else: using it never shifts the draws made here.

    Errors: ``ValueError`` if a shape does not have as many rows as this worker holds.
    """

    def __init__(
        self,
        seed: int,
        device: torch.device | str = "cpu",
        rows: slice | None = None,
        total: int | None = None,
    ) -> None:
        if rows is not None and total is None:
            raise ValueError("rows of a global batch need its size: give total as well")
        self.seed, self.device = seed, torch.device(device)
        self.rows, self.total = rows or slice(None), total
        self._draws = torch.Generator(self.device).manual_seed(stream_seed(seed, "draws"))
        self.generator = torch.Generator(self.device).manual_seed(stream_seed(seed, "other"))

    def _local(self, draw: Callable[..., Tensor], shape: Sequence[int]) -> Tensor:
        if self.total is None:
            return draw(tuple(shape), generator=self._draws, device=self.device)
        held = len(range(self.total)[self.rows])
        if shape[0] != held:
            raise ValueError(
                f"asked for {shape[0]} rows, but {self.rows} of {self.total} holds {held}"
            )
        full = draw((self.total, *shape[1:]), generator=self._draws, device=self.device)
        return full[self.rows]

    def normal(self, shape: Sequence[int]) -> Tensor:
        """N(0, 1), float32, of ``shape`` [B, …]."""
        return self._local(torch.randn, shape)

    def uniform(self, shape: Sequence[int]) -> Tensor:
        """U[0, 1), float32, of ``shape`` [B, …]."""
        return self._local(torch.rand, shape)
