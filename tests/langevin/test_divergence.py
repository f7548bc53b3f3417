"""What is not finite is said, with the step where it began; never masked."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from vmcmc_dist.errors import DivergenceError
from vmcmc_dist.langevin import LangevinConfig, Noise, run_chain

COLD = {"step_size": 0.1, "temperature": 0.0}


def turns_bad(value: float, at_call: int) -> Callable[[Tensor], Tensor]:
    """|x|²/2 whose first sample's energy becomes ``value`` at one call, and ever after."""
    calls = 0

    def energy(x: Tensor) -> Tensor:
        nonlocal calls
        u = x.square().sum(1) / 2
        if calls >= at_call:
            u = u * torch.tensor([value] + [1.0] * (len(x) - 1))
        calls += 1
        return u

    return energy


@pytest.mark.parametrize("adjusted", [False, True])
@pytest.mark.parametrize("clamp", [None, 1.0])
def test_nan_energy_names_its_step(adjusted: bool, clamp: float | None) -> None:
    config = LangevinConfig(steps=6, step_size=0.1, clamp=clamp, adjusted=adjusted)
    with pytest.raises(DivergenceError, match=f"step {2 if adjusted else 3} of 6"):
        run_chain(turns_bad(math.nan, 3), torch.full((4, 2), 0.5), config, Noise(0))


def test_nan_at_the_end_is_seen() -> None:
    config = LangevinConfig(steps=3, **COLD)
    with pytest.raises(DivergenceError, match="step 3 of 3"):
        run_chain(turns_bad(math.nan, 3), torch.ones(4, 2), config, Noise(0), final_energy=True)


def test_gradient_alone_is_enough() -> None:
    """√x at 0: the energy is finite, its gradient is not; the clamp would hide it."""
    config = LangevinConfig(steps=2, clamp=1.0, **COLD)
    with pytest.raises(DivergenceError, match="the gradient of the energy.*step 0 of 2"):
        run_chain(lambda x: x.sqrt().sum(1), torch.zeros(3, 2), config, Noise(0))


def test_runaway_state_counts_its_samples() -> None:
    x0 = torch.tensor([[0.0], [3.0], [4.0]])
    config = LangevinConfig(steps=60, step_size=1.0, temperature=0.0)
    with pytest.raises(DivergenceError, match=r"2 of 3 samples.*step_size"):
        run_chain(lambda x: -(x**4).sum(1), x0, config, Noise(0))


def test_bad_start_is_seen() -> None:
    with pytest.raises(DivergenceError, match="step 0"):
        run_chain(
            lambda x: x.sum(1), torch.full((2, 2), math.nan), LangevinConfig(steps=0), Noise(0)
        )


def test_infinite_wall_is_a_rejection_not_a_divergence() -> None:
    def energy(x: Tensor) -> Tensor:
        return torch.where(x[:, 0] > 0, x.square().sum(1) / 2, math.inf)

    config = LangevinConfig(steps=50, step_size=0.8, adjusted=True)
    x, info = run_chain(energy, torch.ones(4000, 1), config, Noise(0))
    assert (x > 0).all()
    assert x.mean() == pytest.approx(math.sqrt(2 / math.pi), rel=0.05)  # half-normal
