"""The copy that chains run on: what it equals, how it follows, what it refuses."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from vmcmc_dist.models import SamplerCopy
from vmcmc_dist.models.layers import EnergyHead
from vmcmc_dist.models.mlp import MLPEnergy, mlp_vae
from vmcmc_dist.models.reference import ReferenceEnergy, reference_vae
from vmcmc_dist.models.spectral import SpectralConv2d, SpectralLinear


class SpectralNet(nn.Module):
    """A convolutional energy with spectral norm at every layer, one without a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            SpectralConv2d(2, 8, 3, stride=2, padding=1),
            nn.SiLU(),
            SpectralConv2d(8, 8, 3, padding=1, bias=False),
            nn.Flatten(),
            SpectralLinear(128, 16),
            nn.SiLU(),
        )
        self.head = EnergyHead(16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers(x))


NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mlp": (lambda: MLPEnergy((3,), 16, 2), (3,)),
    "spectral mlp": (lambda: MLPEnergy((3,), 16, 2, spectral_norm=True), (3,)),
    "mnist": (lambda: ReferenceEnergy((1, 28, 28), 8), (1, 28, 28)),
    "cifar": (lambda: ReferenceEnergy((3, 32, 32), 8), (3, 32, 32)),
    "spectral": (SpectralNet, (2, 8, 8)),
}


@pytest.fixture(params=NETS, ids=str)
def net_and_x(request: pytest.FixtureRequest) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    make, shape = NETS[request.param]
    net = make()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return net.eval(), torch.randn(6, *shape)


def grad_of(energy: Callable, x: torch.Tensor) -> torch.Tensor:
    x = x.clone().requires_grad_(True)
    return torch.autograd.grad(energy(x).sum(), x)[0]


def test_fp32_copy_equals_the_module_to_the_last_bit(net_and_x: tuple) -> None:
    net, x = net_and_x
    copy = SamplerCopy(net)
    assert torch.equal(copy(x), net(x))
    assert torch.equal(grad_of(copy, x), grad_of(net, x))


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float32, 1e-5), (torch.bfloat16, 0.12), (torch.float16, 0.02)],
)
def test_channels_last_copy_is_close(
    net_and_x: tuple, dtype: torch.dtype, tolerance: float
) -> None:
    net, x = net_and_x
    copy = SamplerCopy(net, dtype, channels_last=True)
    for mine, its in ((copy(x), net(x)), (grad_of(copy, x), grad_of(net, x))):
        assert mine.dtype == torch.float32
        assert (mine - its).norm() < tolerance * its.norm()
        assert mine.isfinite().all()


def test_refresh_follows_the_weights(net_and_x: tuple) -> None:
    net, x = net_and_x
    copy, half = SamplerCopy(net), SamplerCopy(net, torch.bfloat16)
    before = copy(x)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(1.5).add_(0.01)
    assert torch.equal(copy(x), before)
    copy.refresh(net.state_dict())
    half.refresh((name, tensor) for name, tensor in net.state_dict().items())
    assert torch.equal(copy(x), net(x)) and not torch.equal(copy(x), before)
    assert (half(x) - net(x)).norm() < 0.03 * net(x).norm()


def test_copy_is_apart_and_frozen(net_and_x: tuple) -> None:
    net, x = net_and_x
    calls: list[str] = []
    net.register_forward_hook(lambda *_: calls.append("hook"))
    copy = SamplerCopy(net)
    copy(x)
    assert not calls
    assert not any(p.requires_grad for p in copy.parameters())
    assert not {p.data_ptr() for p in copy.parameters()} & {p.data_ptr() for p in net.parameters()}
    assert all(p.requires_grad for p in net.parameters())


def test_ambient_autocast_changes_nothing(net_and_x: tuple) -> None:
    net, x = net_and_x
    copy = SamplerCopy(net)
    expected = copy(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(copy(x), expected)


def test_half_copy_keeps_the_last_reduction_in_fp32() -> None:
    """Energies of an all but constant net differ by less than bf16 can tell apart."""
    net = MLPEnergy((2,), 16, 1)
    nn.init.constant_(net.head.bias, 100.0)
    copy = SamplerCopy(net, torch.bfloat16)
    assert {p.dtype for p in copy.module.features.parameters()} == {torch.bfloat16}  # type: ignore[union-attr]
    assert copy.module.head.weight.dtype == torch.float32  # type: ignore[union-attr]
    x = torch.randn(50, 2)
    assert (copy(x) - net(x)).abs().max() < 0.02  # bf16 counts in steps of 0.5 at 100


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_vae_copy_proposes_and_encodes(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    z = torch.randn(8, 5)
    for vae in (reference_vae((1, 28, 28), 5, 8, dropout=0.0), mlp_vae((2,), 5, 16, 2)):
        copy, decoder = SamplerCopy(vae, dtype), SamplerCopy(vae.decoder, dtype)
        tolerance = 0 if dtype == torch.float32 else 0.05
        x = vae.decode(z).detach()
        for mine in (copy.decode(z), decoder(z)):
            assert mine.dtype == torch.float32
            assert (mine - x).norm() <= tolerance * x.norm()
        for mine, its in zip(copy.encode(x), vae.encode(x), strict=True):
            assert (mine - its).norm() <= tolerance * its.norm()
        out = copy(x, torch.zeros(8, 5))
        assert out.recon.dtype == torch.float32 and out.decoded is None


def test_refresh_names_what_is_wrong() -> None:
    net = MLPEnergy((3,), 16, 1, spectral_norm=True)
    copy = SamplerCopy(net)
    state = net.state_dict()
    with pytest.raises(ValueError, match="features.1.u"):
        copy.refresh({k: v for k, v in state.items() if k != "features.1.u"})
    with pytest.raises(ValueError, match="unknown.*extra"):
        copy.refresh(state | {"extra": torch.zeros(1)})
    plain = SamplerCopy(MLPEnergy((3,), 16, 1))
    state = MLPEnergy((3,), 16, 1).state_dict()
    with pytest.raises(ValueError, match="missing.*features.1.bias"):
        plain.refresh({k: v for k, v in state.items() if k != "features.1.bias"})
    with pytest.raises(ValueError, match=r"features.1.weight.*\[0\].*\[16, 3\].*gather"):
        plain.refresh(state | {"features.1.weight": torch.empty(0)})
    with pytest.raises(ValueError, match="float64"):
        SamplerCopy(net, torch.float64)
