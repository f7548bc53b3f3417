"""Segments of one chain: they join without a seam."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from vmcmc_dist.evaluation.long_chain import continued, energies, segment
from vmcmc_dist.langevin import LangevinConfig, Noise, run_chain

MOVING = ("langevin.step_size=5", "langevin.steps=4")
COSINE = (*MOVING, "langevin.schedule=cosine", "langevin.final_scale=0.2")


@pytest.mark.parametrize("settings", [MOVING, COSINE])
def test_without_noise_segments_are_the_chain_in_one_piece(small_model, settings) -> None:
    model = small_model(*settings, "langevin.temperature=0")
    x = model.propose(3)
    there = segment(model, x, 0, 4)
    cut = segment(model, segment(model, there, 4, 6), 6, 9)
    assert (cut - there).abs().max() > 1e-3
    torch.testing.assert_close(cut, segment(model, there, 4, 9), rtol=0, atol=1e-6)


def test_the_training_length_follows_the_schedule_and_the_rest_its_last_step(small_model) -> None:
    model = small_model(*COSINE, "langevin.temperature=0")
    x = model.propose(3)
    whole, _ = run_chain(model.energy_net, x, model.chain_config(), Noise(0))
    torch.testing.assert_close(segment(model, x, 0, 4), whole, rtol=0, atol=1e-6)
    last = LangevinConfig(steps=2, step_size=1.0, temperature=0)
    after, _ = run_chain(model.energy_net, whole, last, Noise(0))
    torch.testing.assert_close(segment(model, whole, 4, 6), after, rtol=0, atol=1e-6)
    config = dataclasses.replace(model.chain_config(), temperature=1.0)
    assert (continued(config).schedule, continued(config).step_size) == ("constant", 1.0)
    with pytest.raises(ValueError, match="first 4 steps of a cosine chain"):
        segment(model, x, 0, 2)


@pytest.mark.parametrize("settings", [MOVING, COSINE])
def test_noise_is_a_function_of_the_seed_and_the_segment(small_model, settings) -> None:
    model = small_model(*settings)
    x = model.propose(2)
    first, again = (segment(model, x, 4, 6, seed=5) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, segment(model, x, 4, 6, seed=6))
    assert not torch.equal(first, segment(model, x, 6, 8, seed=5))


def test_the_callback_sees_every_step(small_model) -> None:
    model = small_model(*MOVING)
    seen = []
    x = model.propose(2)
    segment(model, x, 4, 9, callback=lambda step, x, u, grad: seen.append((step, u)))
    assert [step for step, _ in seen] == list(range(5))
    torch.testing.assert_close(seen[0][1], model.energy(x))


def test_energies_in_batches(small_model) -> None:
    model = small_model()
    x = model.propose(7)
    torch.testing.assert_close(energies(model, x, batch_size=3), model.energy(x).double())
