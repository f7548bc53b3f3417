"""Noise by global sample, whatever the number of workers."""

from __future__ import annotations

import pytest
import torch

from vmcmc_dist.langevin import LangevinConfig, Noise, run_chain, stream_seed

TOTAL = 12


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_every_world_sees_the_same_chain(world_size: int) -> None:
    config = LangevinConfig(steps=4, step_size=0.3, adjusted=True)
    x0 = torch.randn(TOTAL, 2, generator=torch.Generator().manual_seed(0))

    def energy(x: torch.Tensor) -> torch.Tensor:
        return x.square().sum(1)

    expected, _ = run_chain(energy, x0, config, Noise(9))
    for rank in range(world_size):
        rows = slice(rank, None, world_size)
        noise = Noise(9, rows=rows, total=TOTAL)
        x, _ = run_chain(energy, x0[rows], config, noise)
        assert torch.equal(x, expected[rows])


def test_blocks_of_rows_work_too() -> None:
    full = Noise(1, total=TOTAL).normal((TOTAL, 3))
    assert torch.equal(Noise(1, rows=slice(4, 8), total=TOTAL).normal((4, 3)), full[4:8])


def test_draws_are_standard() -> None:
    noise = Noise(0)
    normal, uniform = noise.normal((50_000, 2)), noise.uniform((50_000, 2))
    assert normal.dtype == uniform.dtype == torch.float32
    assert normal.mean().abs() < 0.01 and normal.std() == pytest.approx(1, abs=0.01)
    assert uniform.min() >= 0 and uniform.max() < 1
    assert uniform.mean() == pytest.approx(0.5, abs=0.01)
    assert not torch.equal(normal, noise.normal((50_000, 2)))


def test_the_other_generator_does_not_shift_the_draws() -> None:
    plain, used = Noise(5), Noise(5)
    torch.randn(3, generator=used.generator)
    assert torch.equal(plain.normal((4, 2)), used.normal((4, 2)))


def test_seeds_differ_by_any_key() -> None:
    seeds = {stream_seed(s, name, i) for s in range(5) for name in "ab" for i in range(5)}
    assert len({seed & 0xFFFFFFFF for seed in seeds}) == 50  # torch's CPU generator uses 32 bits
    assert stream_seed(1, "a") == stream_seed(1, "a")
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_wrong_rows_are_named() -> None:
    with pytest.raises(ValueError, match="holds 6"):
        Noise(0, rows=slice(0, None, 2), total=TOTAL).normal((5, 2))
    with pytest.raises(ValueError, match="total"):
        Noise(0, rows=slice(0, None, 2))
