"""The step against its formula, term by term."""

from __future__ import annotations

import math

import pytest
import torch

from vmcmc_dist.langevin import LangevinConfig, Noise, langevin_step, run_chain, step_sizes
from vmcmc_dist.models.reference import ReferenceEnergy


def test_reference_update_without_noise() -> None:
    """x ← x − ½δ²(x/s² − ∂f/∂x), s = 0.016, δ = 0.002: the reference's, for 15 steps."""
    torch.manual_seed(0)
    net = ReferenceEnergy((3, 32, 32), width=4)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(80)  # so that ∂f/∂x counts beside the Gaussian
    x0 = torch.rand(3, 3, 32, 32) * 2 - 1
    config = LangevinConfig(steps=15, step_size=0.002, temperature=0.0, reference_std=0.016)
    refined, _ = run_chain(net, x0, config, Noise(0))

    x, gaussian_alone = x0, x0
    for _ in range(15):
        x = x.detach().requires_grad_(True)
        (grad_f,) = torch.autograd.grad(-net(x).sum(), x)
        x = x - 0.5 * 0.002**2 * (x / 0.016**2 - grad_f)
        gaussian_alone = gaussian_alone * (1 - 0.5 * 0.002**2 / 0.016**2)
    torch.testing.assert_close(refined, x.detach(), rtol=1e-6, atol=1e-7)
    assert (refined - gaussian_alone).abs().max() > 1e-4


def test_each_term_of_the_step() -> None:
    x, grad, eps = torch.randn(3, 4, 5).unbind(0)
    step = langevin_step(x, grad, eps, step_size=0.3, temperature=0.5, reference_std=2.0)
    expected = x - 0.3**2 / 2 * (grad + x / 4) + 0.3 * math.sqrt(0.5) * eps
    torch.testing.assert_close(step, expected)


def test_clip_limits_the_drift_of_each_sample_alone() -> None:
    x = torch.zeros(3, 2, 2)
    grad = torch.tensor([1.0, 100.0, 0.0]).view(3, 1, 1).expand(3, 2, 2)
    step = langevin_step(x, grad, None, step_size=0.1, temperature=0.0, clip_move=0.05)
    length = step.flatten(1).norm(dim=1)
    torch.testing.assert_close(length, torch.tensor([0.1**2 / 2 * 2, 0.05, 0.0]))
    assert (step[:2] < 0).all()
    noisy = langevin_step(x, grad, torch.ones(3, 2, 2), step_size=0.1, clip_move=0.05)
    torch.testing.assert_close(noisy, step + 0.1)  # the noise is not clipped


def test_clamp_holds_state_and_start() -> None:
    x = torch.full((2, 3), 0.9)
    step = langevin_step(x, -torch.ones(2, 3), None, step_size=1.0, temperature=0.0, clamp=1.0)
    assert torch.equal(step, torch.ones(2, 3))
    config = LangevinConfig(steps=20, step_size=0.5, clamp=0.25)
    x0, seen = torch.full((50, 3), 5.0), []
    x, info = run_chain(
        lambda x: x.square().sum(1), x0, config, Noise(0), callback=lambda *args: seen.append(args)
    )
    assert x.abs().max() <= 0.25
    assert all(state.abs().max() <= 0.25 for _, state, _, _ in seen)
    torch.testing.assert_close(info.displacement, (x - x0).norm(dim=1))


def test_step_leaves_its_inputs_alone() -> None:
    x, grad, eps = torch.randn(3, 4, 5).unbind(0)
    before = x.clone(), grad.clone(), eps.clone()
    langevin_step(x, grad, eps, step_size=0.3, reference_std=1.0, clip_move=0.1, clamp=0.1)
    assert all(torch.equal(a, b) for a, b in zip((x, grad, eps), before, strict=True))


@pytest.mark.parametrize("schedule", ["geometric", "cosine"])
def test_schedule_falls_from_first_to_last(schedule: str) -> None:
    config = LangevinConfig(steps=9, step_size=0.4, schedule=schedule, final_scale=0.25)
    sizes = step_sizes(config)
    assert sizes[0] == pytest.approx(0.4) and sizes[-1] == pytest.approx(0.1)
    assert sizes == sorted(sizes, reverse=True) and len(sizes) == 9
    middle = {"geometric": 0.4 * 0.5, "cosine": (0.4 + 0.1) / 2}[schedule]
    assert sizes[4] == pytest.approx(middle)
    assert step_sizes(LangevinConfig(steps=1, step_size=0.4)) == [0.4]


def test_chain_follows_the_schedule() -> None:
    """Energy zero: the displacement's variance is Σ δ_t²."""
    config = LangevinConfig(steps=10, step_size=1.0, schedule="geometric", final_scale=0.01)
    x, _ = run_chain(lambda x: 0 * x.sum(1), torch.zeros(20_000, 1), config, Noise(0))
    assert x.var() == pytest.approx(sum(d**2 for d in step_sizes(config)), rel=0.05)


def test_gradient_is_recorded_per_dimension() -> None:
    config = LangevinConfig(steps=1, step_size=0.1)
    _, info = run_chain(lambda x: 3 * x.flatten(1).sum(1), torch.zeros(4, 5, 2), config, Noise(0))
    torch.testing.assert_close(info.grad_rms, torch.tensor([3.0]))
