"""Spectral norm: the singular value it reaches, when it iterates, its gradient."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vmcmc_dist.langevin import LangevinConfig, Noise, frozen, run_chain
from vmcmc_dist.models.mlp import MLPEnergy
from vmcmc_dist.models.spectral import SpectralConv2d, SpectralLinear


def layers() -> list[tuple[nn.Module, torch.Tensor]]:
    torch.manual_seed(0)
    return [
        (SpectralLinear(7, 5), torch.randn(3, 7)),
        (SpectralConv2d(4, 6, 3, padding=1), torch.randn(3, 4, 8, 8)),
    ]


@pytest.mark.parametrize("index", [0, 1])
def test_norm_becomes_one(index: int) -> None:
    layer, x = layers()[index]
    nn.init.normal_(layer.weight, std=3.0)  # type: ignore[arg-type]
    for _ in range(60):
        layer(x)
    weight = layer.normalised_weight().detach().flatten(1)  # type: ignore[operator]
    assert torch.linalg.matrix_norm(weight, 2).item() == pytest.approx(1, abs=1e-3)
    raw = layer.weight.detach().flatten(1)  # type: ignore[operator, union-attr]
    torch.testing.assert_close(weight, raw / torch.linalg.matrix_norm(raw, 2), rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("index", [0, 1])
def test_iterates_once_per_training_forward_only(index: int) -> None:
    layer, x = layers()[index]
    nn.init.normal_(layer.weight)  # type: ignore[arg-type]

    def moved(call: object) -> bool:
        before = layer.u.clone()  # type: ignore[union-attr, operator]
        call()  # type: ignore[operator]
        return not torch.equal(before, layer.u)  # type: ignore[arg-type]

    assert moved(lambda: layer(x))
    with torch.no_grad():
        assert not moved(lambda: layer(x))
    with frozen(layer):
        assert not moved(lambda: layer(x))
    layer.eval()
    assert not moved(lambda: layer(x))


def test_energy_stands_still_under_a_chain() -> None:
    net = MLPEnergy((2,), 8, 2, spectral_norm=True)
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    run_chain(net, torch.randn(4, 2), LangevinConfig(steps=3, step_size=0.1), Noise(0))
    assert all(torch.equal(state[name], tensor) for name, tensor in net.state_dict().items())


def test_gradient_is_that_of_the_quotient() -> None:
    """d/dW of W/(uᵀWv), with u and v held, by finite differences; two forwards before it."""
    layer, x = layers()[0]
    layer.double()
    layer.eval()
    x = x.double()
    assert torch.autograd.gradcheck(
        lambda w: nn.functional.linear(x, w / (layer.u @ w @ layer.v)),  # type: ignore[operator]
        layer.weight,
    )
    layer.float().train()
    x = x.float()
    (layer(x).square().sum() + layer(2 * x).square().sum()).backward()
    assert layer.weight.grad.isfinite().all()  # type: ignore[union-attr, operator]
    # scaling W does not change W/σ, so the gradient is orthogonal to W
    inner = (layer.weight.grad * layer.weight).sum()  # type: ignore[operator]
    assert inner.abs() < 1e-3 * layer.weight.grad.norm() * layer.weight.norm()  # type: ignore[operator, union-attr]
