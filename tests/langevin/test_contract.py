"""One contract for every sampler that ``run_chain`` offers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from vmcmc_dist.errors import ConfigError
from vmcmc_dist.langevin import LangevinConfig, Noise, frozen, run_chain
from vmcmc_dist.models.mlp import MLPEnergy

SAMPLERS = {
    "ula": LangevinConfig(steps=5, step_size=0.1),
    "cold": LangevinConfig(steps=5, step_size=0.1, temperature=0.01),
    "noise-free": LangevinConfig(steps=5, step_size=0.1, temperature=0.0, reference_std=0.5),
    "mala": LangevinConfig(steps=5, step_size=0.1, adjusted=True),
    "clipped": LangevinConfig(steps=5, step_size=0.1, clip_move=0.01),
    "clamped": LangevinConfig(steps=5, step_size=0.5, clamp=0.5),
    "scheduled": LangevinConfig(steps=5, step_size=0.1, schedule="cosine", final_scale=0.1),
}
SHAPE = (3, 4, 4)


@pytest.fixture(params=SAMPLERS, ids=str)
def config(request: pytest.FixtureRequest) -> LangevinConfig:
    return SAMPLERS[request.param]


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    net = MLPEnergy(SHAPE, width=8, depth=2)
    next(net.parameters()).requires_grad_(False)  # one that was frozen before
    return net


def start(batch: int = 6) -> Tensor:
    return torch.randn(batch, *SHAPE, generator=torch.Generator().manual_seed(1))


def test_shapes_dtypes_and_record(config: LangevinConfig, net: nn.Module) -> None:
    x0 = start()
    before = x0.clone()
    x, info = run_chain(net, x0, config, Noise(0), final_energy=True)
    assert x.shape == x0.shape and x.dtype == torch.float32 and not x.requires_grad
    assert torch.equal(x0, before) and not torch.equal(x, x0)
    assert info.energy.shape == (6,) and info.grad_rms.shape == (5,)
    assert info.displacement.shape == (6,)
    for record in (info.energy, info.grad_rms, info.displacement):
        assert record.dtype == torch.float32 and not record.requires_grad
    torch.testing.assert_close(info.displacement, (x - x0).flatten(1).norm(dim=1))
    assert (info.acceptance is not None) == config.adjusted
    reference = 0 if config.reference_std is None else x0.flatten(1).square().sum(1) * 2
    if config.clamp is None:
        torch.testing.assert_close(info.energy[0], (net(x0) + reference).mean().detach())
        reference = 0 if config.reference_std is None else x.flatten(1).square().sum(1) * 2
        torch.testing.assert_close(info.energy[-1], (net(x) + reference).mean().detach())


def test_seed_decides(config: LangevinConfig, net: nn.Module) -> None:
    runs = [run_chain(net, start(), config, Noise(seed))[0] for seed in (3, 3, 4)]
    assert torch.equal(runs[0], runs[1])
    assert torch.equal(runs[0], runs[2]) == (config.temperature == 0)


def test_weights_are_left_as_they_were(config: LangevinConfig, net: nn.Module) -> None:
    flags = [p.requires_grad for p in net.parameters()]
    weights = [p.clone() for p in net.parameters()]
    seen = []

    def watch(step: int, x: Tensor, energy: Tensor, grad: Tensor) -> None:
        seen.append((step, x.shape, energy.shape, grad.shape))
        assert not any(p.requires_grad for p in net.parameters())

    run_chain(net, start(), config, Noise(0), callback=watch)
    assert seen == [(k, start().shape, (6,), start().shape) for k in range(5)]
    assert [p.requires_grad for p in net.parameters()] == flags == [False] + [True] * 5
    assert all(p.grad is None for p in net.parameters())
    assert all(torch.equal(p, w) for p, w in zip(net.parameters(), weights, strict=True))


class Failing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.fixed = nn.Parameter(torch.ones(1), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("energy failed")


def test_flags_come_back_when_the_energy_raises(config: LangevinConfig) -> None:
    net = Failing()
    with pytest.raises(RuntimeError, match="energy failed"):
        run_chain(net, start(), config, Noise(0))
    assert net.weight.requires_grad and not net.fixed.requires_grad


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_runs_inside_any_grad_mode(config: LangevinConfig, net: nn.Module, mode: Callable) -> None:
    expected, _ = run_chain(net, start(), config, Noise(0))
    with mode():
        x, _ = run_chain(net, start(), config, Noise(0))
        assert not torch.is_grad_enabled()
    assert torch.equal(x, expected)


def test_plain_function_and_module_agree(config: LangevinConfig, net: nn.Module) -> None:
    expected, _ = run_chain(net, start(), config, Noise(0))
    x, _ = run_chain(lambda x: net(x), start(), config, Noise(0))
    assert torch.equal(x, expected)
    assert all(p.grad is None for p in net.parameters())


def test_ambient_autocast_does_not_leak_into_fp32(config: LangevinConfig, net: nn.Module) -> None:
    expected, _ = run_chain(net, start(), config, Noise(0))
    with torch.autocast("cpu", torch.bfloat16):
        x, _ = run_chain(net, start(), config, Noise(0))
    assert torch.equal(x, expected)


def test_state_is_fp32_under_autocast(config: LangevinConfig, net: nn.Module) -> None:
    expected, _ = run_chain(net, start(), config, Noise(0))
    x, _ = run_chain(net, start(), config, Noise(0), precision="bf16")
    assert x.dtype == torch.float32
    if not config.adjusted:  # a rounded energy may turn an acceptance
        torch.testing.assert_close(x, expected, atol=2e-3, rtol=1e-2)
    assert not torch.equal(x, expected)


def test_no_steps_is_the_start(net: nn.Module) -> None:
    x, info = run_chain(net, start(), LangevinConfig(steps=0), Noise(0))
    assert torch.equal(x, start()) and len(info.energy) == 0 and info.acceptance is None
    assert torch.equal(info.displacement, torch.zeros(6))


def test_frozen_nests_and_restores() -> None:
    net = Failing()
    with frozen(net), frozen(net):
        assert not net.weight.requires_grad
    assert net.weight.requires_grad and not net.fixed.requires_grad


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (LangevinConfig(step_size=-1.0), "langevin.step_size"),
        (LangevinConfig(steps=-1), "langevin.steps"),
        (LangevinConfig(clip_move=0.0), "langevin.clip_move"),
        (LangevinConfig(temperature=0.0, adjusted=True), "temperature"),
        (LangevinConfig(final_scale=0.1), "langevin.schedule"),
        (LangevinConfig(schedule="linear"), "langevin.schedule"),  # type: ignore[arg-type]
    ],
)
def test_bad_config_is_named(config: LangevinConfig, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        run_chain(lambda x: x.sum(1), torch.zeros(2, 2), config, Noise(0))


def test_energy_of_wrong_shape_is_named() -> None:
    with pytest.raises(ValueError, match=r"one value per sample, shape \[2\].*\[2, 3\]"):
        run_chain(lambda x: x, torch.zeros(2, 3), LangevinConfig(steps=1), Noise(0))


def test_unknown_precision_is_named() -> None:
    with pytest.raises(ValueError, match="fp8"):
        run_chain(
            lambda x: x.sum(1),
            torch.zeros(2, 3),
            LangevinConfig(steps=1),
            Noise(0),
            precision="fp8",  # type: ignore[arg-type]
        )
