"""Noise as a function of (seed, images, purpose), the same for a global sample on any worker."""

from __future__ import annotations

import itertools

import pytest
import torch

from vmcmc_dist.teaching.noise_plan import NoisePlan


def draws(plan: NoisePlan, rows: int, chunk: int = 0, chunks: int = 1) -> torch.Tensor:
    noise = plan("z", chunk, rows, chunks)
    return torch.stack([noise.normal((rows, 3)) for _ in range(2)])


@pytest.mark.parametrize("workers", [2, 3, 4])
def test_per_sample_noise_does_not_see_the_workers(workers: int) -> None:
    whole = draws(NoisePlan(5, 640, per_sample=True), 12)
    for rank in range(workers):
        plan = NoisePlan(5, 640, rank=rank, world_size=workers, per_sample=True)
        assert torch.equal(draws(plan, 12 // workers), whole[:, rank::workers])


@pytest.mark.parametrize(("workers", "chunks"), [(1, 2), (1, 4), (2, 2), (2, 3)])
def test_per_sample_noise_does_not_see_the_micro_batches(workers: int, chunks: int) -> None:
    whole = draws(NoisePlan(5, 640, per_sample=True), 12)
    for rank in range(workers):
        plan = NoisePlan(5, 640, rank=rank, world_size=workers, per_sample=True)
        rows = 12 // workers // chunks
        parts = [draws(plan, rows, chunk, chunks) for chunk in range(chunks)]
        assert torch.equal(torch.cat(parts, 1), whole[:, rank::workers])


def test_everything_it_depends_on_changes_every_number() -> None:
    plans = [
        NoisePlan(5, 640),
        NoisePlan(6, 640),
        NoisePlan(5, 704),
        NoisePlan(5, 640, salt=1),
        NoisePlan(5, 640, rank=1, world_size=2),
        NoisePlan(5, 640, per_sample=True),
        NoisePlan(6, 640, per_sample=True),
        NoisePlan(5, 704, per_sample=True),
        NoisePlan(5, 640, per_sample=True, salt=1),
    ]
    numbers = [draws(plan, 4) for plan in plans]
    numbers += [draws(plans[0], 4, chunk=1, chunks=2), plans[0]("chain", 0, 4).normal((4, 3))[None]]
    for a, b in itertools.combinations(numbers, 2):
        assert not torch.isin(a, b).any()


def test_the_same_plan_gives_the_same_numbers_again() -> None:
    assert torch.equal(draws(NoisePlan(5, 640), 4), draws(NoisePlan(5, 640), 4))
