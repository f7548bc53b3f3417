"""Densities: normalised, their samples follow them, their stream is the same for all readers."""

from __future__ import annotations

import pytest
import torch

from vmcmc_dist.data import DENSITIES, DataConfig, density, ensure_prepared, open_stream
from vmcmc_dist.errors import ConfigError

SIDE, CELLS = 6.0, 600


def grid():
    axis = (torch.arange(CELLS, dtype=torch.float64) + 0.5) / CELLS * 2 * SIDE - SIDE
    x, y = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([x, y], -1).reshape(-1, 2), (2 * SIDE / CELLS) ** 2


@pytest.mark.parametrize("name", DENSITIES)
def test_integrates_to_one(name):
    points, cell = grid()
    assert float(density(name).log_prob(points).exp().sum() * cell) == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize("name", DENSITIES)
def test_samples_follow_it(name):
    """Mean of log p over samples = −entropy, and each coarse cell has its mass."""
    points, cell = grid()
    p = density(name).log_prob(points).exp() * cell
    x = density(name).sample(40_000, torch.Generator().manual_seed(0)).double()
    log_p = density(name).log_prob(points)
    entropy = -(p * torch.where(p > 0, log_p, 0.0)).sum()
    assert float(density(name).log_prob(x).mean()) == pytest.approx(-float(entropy), abs=0.03)
    mass = p.reshape(12, CELLS // 12, 12, CELLS // 12).sum((1, 3))
    place = ((x + SIDE) / (2 * SIDE) * 12).floor().long()
    share = torch.bincount(place[:, 0] * 12 + place[:, 1], minlength=144).reshape(12, 12) / 40_000
    assert float((share - mass).abs().max()) < 0.006
    assert float(x.abs().max()) < 5


def test_stream_is_a_function_of_seed_and_position():
    cfg = DataConfig(source="toy2d", density="pinwheel")

    def take(seed, images, world, local):
        parts = []
        for r in range(world):
            with open_stream(cfg, seed=seed, rank=r, world_size=world, local_batch=local,
                             images=images) as stream:  # fmt: skip
                parts.append(next(stream))
        out = torch.empty(world * local, 2)
        for r, batch in enumerate(parts):
            assert batch.index.tolist() == list(range(images + r, images + world * local, world))
            out[r::world] = batch.x
        return out

    whole = take(0, 4000, 1, 192)
    assert torch.equal(take(0, 4000, 3, 64), whole) and torch.equal(take(0, 4000, 8, 24), whole)
    assert torch.equal(take(0, 4096, 1, 96), whole[96:])
    assert not torch.equal(take(1, 4000, 1, 192), whole)
    assert len(whole.unique(dim=0)) == 192


def test_manifest_and_unknown_name():
    assert ensure_prepared(DataConfig(source="toy2d")).shape == (2,)
    with pytest.raises(ConfigError, match="known are rings"):
        density("spiral")
