"""Four 2-D densities with exact log p(x), and an endless stream of their samples.

All lie within about [-4, 4]². ``log_prob`` is normalised: ∫ exp(log_prob(x)) dx = 1.
"""

from __future__ import annotations

import math
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from vmcmc_dist.data.stream import Batch
from vmcmc_dist.errors import ConfigError

BLOCK = 4096  # samples drawn at once; the stream's content does not depend on batch or world size


class Density(Protocol):
    """A density on the plane: float32 [N, 2] samples, float32 [N] natural log densities."""

    def sample(self, n: int, generator: torch.Generator) -> Tensor: ...
    def log_prob(self, x: Tensor) -> Tensor: ...


def _normal(x: Tensor, mean: float | Tensor, std: float) -> Tensor:
    return -0.5 * ((x - mean) / std) ** 2 - math.log(std * math.sqrt(2 * math.pi))


class Rings:
    """Four circles, r = R + σε folded at 0, R uniform over radii, the angle uniform:
    p(x) = ¼ Σ_R [N(|x|; R, σ²) + N(−|x|; R, σ²)] / (2π|x|).
    """

    radii: ClassVar[tuple[float, ...]] = (0.8, 1.6, 2.4, 3.2)
    std = 0.1

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        ring = torch.randint(len(self.radii), (n,), generator=generator)
        radius = torch.tensor(self.radii)[ring] + self.std * torch.randn(n, generator=generator)
        angle = 2 * math.pi * torch.rand(n, generator=generator)
        return torch.stack([angle.cos(), angle.sin()], 1) * radius.abs()[:, None]

    def log_prob(self, x: Tensor) -> Tensor:
        radius = x.norm(dim=1, keepdim=True).clamp_min(1e-6)
        centres = torch.tensor(self.radii, device=x.device)
        folded = torch.cat(
            [_normal(radius, centres, self.std), _normal(-radius, centres, self.std)], 1
        )
        return folded.logsumexp(1) - math.log(len(self.radii)) - (2 * math.pi * radius[:, 0]).log()


class Pinwheel:
    """Five arms: u ~ N((2, 0), diag(0.6², 0.16²)), turned by 2πk/5 + w|u|, k uniform.

    A rotation by an angle that depends on |u| alone keeps areas, so
    p(x) = ⅕ Σ_k N(Rot(−2πk/5 − w|x|) x; (2, 0), diag(0.6², 0.16²)).
    """

    arms, radius, radial_std, side_std, twist = 5, 2.0, 0.6, 0.16, 0.9

    def _angles(self, norm: Tensor, arm: Tensor) -> Tensor:
        return 2 * math.pi * arm / self.arms + self.twist * norm

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        arm = torch.randint(self.arms, (n,), generator=generator)
        u = torch.randn(n, 2, generator=generator)
        a, b = self.radius + self.radial_std * u[:, 0], self.side_std * u[:, 1]
        angle = self._angles(torch.hypot(a, b), arm)
        cos, sin = angle.cos(), angle.sin()
        return torch.stack([a * cos - b * sin, a * sin + b * cos], 1)

    def log_prob(self, x: Tensor) -> Tensor:
        arm = torch.arange(self.arms, device=x.device)
        angle = self._angles(x.norm(dim=1, keepdim=True), arm)
        cos, sin = angle.cos(), angle.sin()
        a, b = x[:, :1] * cos + x[:, 1:] * sin, x[:, 1:] * cos - x[:, :1] * sin
        parts = _normal(a, self.radius, self.radial_std) + _normal(b, 0.0, self.side_std)
        return parts.logsumexp(1) - math.log(self.arms)


class Checkerboard:
    """Uniform on the 8 dark squares of a 4x4 board of side 8: p = 1/32 there, 0 (log p = −∞) off
    them. Cell (i, j) is dark where i + j is even.
    """

    cells, side = 4, 2.0

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        row = torch.randint(self.cells, (n,), generator=generator)
        column = 2 * torch.randint(self.cells // 2, (n,), generator=generator) + row % 2
        inside = torch.rand(n, 2, generator=generator)
        return (torch.stack([column, row], 1) + inside - self.cells / 2) * self.side

    def log_prob(self, x: Tensor) -> Tensor:
        cell = torch.floor(x / self.side + self.cells / 2)
        on_board = ((cell >= 0) & (cell < self.cells)).all(1)
        dark = cell.sum(1) % 2 == 0
        area = self.cells**2 / 2 * self.side**2
        return torch.where(on_board & dark, -math.log(area), -math.inf).to(x.dtype)


class Gaussians:
    """Eight Gaussians of std 0.25 on a circle of radius 3, equally weighted."""

    modes, radius, std = 8, 3.0, 0.25

    def _centres(self) -> Tensor:
        angle = 2 * math.pi * torch.arange(self.modes) / self.modes
        return self.radius * torch.stack([angle.cos(), angle.sin()], 1)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        mode = torch.randint(self.modes, (n,), generator=generator)
        return self._centres()[mode] + self.std * torch.randn(n, 2, generator=generator)

    def log_prob(self, x: Tensor) -> Tensor:
        parts = _normal(x[:, None], self._centres().to(x), self.std).sum(2)
        return parts.logsumexp(1) - math.log(self.modes)


DENSITIES: dict[str, Density] = {
    "rings": Rings(),
    "pinwheel": Pinwheel(),
    "checkerboard": Checkerboard(),
    "gaussians": Gaussians(),
}


def density(name: str) -> Density:
    """The density of that name; raises ConfigError for an unknown one."""
    if name not in DENSITIES:
        raise ConfigError(f"unknown density {name!r}; known are {', '.join(DENSITIES)}")
    return DENSITIES[name]


class DensityStream:
    """Endless fresh samples of a density, with ShardStream's interface.

    Global sample p is a function of (seed, p) alone; rank r's batch k holds the samples
    images + k·B + r, + world_size, ...; ``x`` is float32 [B, 2], ``y`` None, ``row`` equals p.
    """

    def __init__(
        self,
        density: Density,
        *,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        local_batch: int,
        images: int = 0,
    ) -> None:
        self.density, self.seed, self.images = density, seed, images
        self.rank, self.world_size, self.local_batch = rank, world_size, local_batch
        self.batch_size = local_batch * world_size
        self._blocks: dict[int, Tensor] = {}

    def _block(self, number: int) -> Tensor:
        if number not in self._blocks:
            generator = torch.Generator().manual_seed((self.seed * 1_000_003 + number) % 2**63)
            self._blocks = {k: v for k, v in self._blocks.items() if k >= number - 1}
            self._blocks[number] = self.density.sample(BLOCK, generator)
        return self._blocks[number]

    def __iter__(self) -> DensityStream:
        return self

    def __next__(self) -> Batch:
        index = self.images + self.rank + self.world_size * torch.arange(self.local_batch)
        x = torch.empty(self.local_batch, 2)
        block = index // BLOCK
        for number in block.unique().tolist():
            here = block == number
            x[here] = self._block(number)[index[here] % BLOCK]
        self.images += self.batch_size
        return Batch(x, None, index, index.clone())

    def counts(self) -> dict[str, int]:
        """Nothing is read, so nothing is counted."""
        return {}

    def close(self) -> None:
        """Nothing to stop."""

    def __enter__(self) -> DensityStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
