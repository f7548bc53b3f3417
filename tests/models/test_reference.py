"""The reference's nets: parameter counts, shapes, padding, batch norm, initial weights."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vmcmc_dist.errors import ConfigError
from vmcmc_dist.models import EnergyNetConfig, VAENetConfig, build_energy, build_vae
from vmcmc_dist.models.layers import (
    EnergyHead,
    SameConv2d,
    SameConvTranspose2d,
    ShiftBatchNorm,
    same_padding,
)
from vmcmc_dist.models.reference import ReferenceEnergy, reference_vae

CIFAR, MNIST = (3, 32, 32), (1, 28, 28)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("shape", "energy", "encoder", "decoder"),
    [(CIFAR, 1_710_465, 4_393_800, 1_104_515), (MNIST, 1_625_188, 759_688, 779_713)],
)
def test_parameter_counts(shape: tuple, energy: int, encoder: int, decoder: int) -> None:
    """Those of the reference, where batch norm has a shift and no scale; a scale per channel
    would add 448 parameters to either decoder."""
    assert count(ReferenceEnergy(shape)) == energy
    vae = reference_vae(shape, latent_dim=100)
    assert count(vae.encoder) == encoder
    assert count(vae.decoder) == decoder
    shifts = [layer for layer in vae.decoder.modules() if isinstance(layer, ShiftBatchNorm)]
    assert sum(count(layer) for layer in shifts) == 448


@pytest.mark.parametrize("size", [28, 32, 64, 128])
@pytest.mark.parametrize("channels", [1, 3])
def test_shapes(size: int, channels: int) -> None:
    shape = (channels, size, size)
    energy = build_energy(EnergyNetConfig(net="reference", width=4), shape)
    vae = build_vae(VAENetConfig(net="reference", width=4, latent_dim=7), shape)
    x = torch.randn(2, *shape)
    assert energy(x).shape == (2,)
    out = vae(x, torch.randn(2, 7), torch.randn(5, 7))
    assert out.recon.shape == x.shape and out.mu.shape == out.logvar.shape == (2, 7)
    assert out.decoded is not None and out.decoded.shape == (5, *shape)
    nn.init.normal_(list(vae.decoder.parameters())[-1], std=3)
    assert vae.decode(torch.randn(2, 7)).abs().max() <= 1
    assert vae(x, torch.randn(2, 7)).decoded is None
    assert vae.latent_dim == 7


def test_each_doubling_adds_one_stage() -> None:
    for size, strided in ((32, 3), (64, 4), (128, 5)):
        energy = ReferenceEnergy((3, size, size), width=4)
        strides = [m.stride[0] for m in energy.modules() if isinstance(m, nn.Conv2d)]
        assert strides == [1] + [2] * strided


def test_initial_weights() -> None:
    torch.manual_seed(0)
    for module in (ReferenceEnergy(CIFAR), reference_vae(MNIST, 100)):
        for layer in module.modules():
            if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, EnergyHead)):
                if layer.weight.numel() > 1000:
                    assert layer.weight.std().item() == pytest.approx(0.005, rel=0.1)
                assert layer.bias is not None and layer.bias.abs().max() == 0


@pytest.mark.parametrize(
    ("size", "kernel", "stride"), [(28, 5, 2), (14, 3, 2), (32, 4, 2), (7, 4, 1)]
)
def test_same_padding(size: int, kernel: int, stride: int) -> None:
    """TensorFlow's rule: ⌈n/s⌉ outputs, the odd pixel of padding at the end."""
    before, after = same_padding(size, kernel, stride)
    assert after - before in (0, 1)
    conv = SameConv2d(2, 3, kernel, stride)
    x = torch.randn(2, 2, size, size)
    expected = F.conv2d(F.pad(x, (before, after) * 2), conv.weight, conv.bias, stride)
    assert expected.shape[-1] == -(-size // stride)
    torch.testing.assert_close(conv(x), expected)


@pytest.mark.parametrize(("size_out", "kernel"), [(7, 3), (14, 3), (28, 3), (32, 4)])
def test_deconvolution_is_the_transpose(size_out: int, kernel: int) -> None:
    """⟨conv(x), y⟩ = ⟨x, deconv(y)⟩ for the SAME convolution with the same weight."""
    deconv = SameConvTranspose2d(3, 2, kernel, 2, size_out)
    nn.init.zeros_(deconv.bias)
    x = torch.randn(1, 2, size_out, size_out)
    conv = SameConv2d(2, 3, kernel, 2)
    conv.weight, conv.bias = deconv.weight, None
    y = torch.randn_like(conv(x))
    assert deconv(y).shape == x.shape
    torch.testing.assert_close((conv(x) * y).sum(), (x * deconv(y)).sum(), rtol=1e-4, atol=1e-3)


def test_batch_norm_uses_the_batch_always() -> None:
    norm = ShiftBatchNorm(3).eval()
    nn.init.constant_(norm.bias, 0.5)
    x = 4 + 3 * torch.randn(50, 3, 8, 8)
    y = norm(x)
    torch.testing.assert_close(y.mean((0, 2, 3)), torch.full((3,), 0.5), rtol=0, atol=1e-4)
    torch.testing.assert_close(y.std((0, 2, 3)), torch.ones(3), rtol=0, atol=1e-2)
    assert not list(norm.buffers())


def test_energy_head_sums_its_terms() -> None:
    head = EnergyHead(4, 3, 3, terms=10)
    nn.init.normal_(head.bias)
    h = torch.randn(6, 4, 3, 3)
    terms = F.conv2d(h, head.weight, head.bias).flatten(1)
    torch.testing.assert_close(head(h), terms.sum(1))
    torch.testing.assert_close(head(h.to(memory_format=torch.channels_last)), terms.sum(1))
    with torch.autocast("cpu", torch.bfloat16):
        assert head(h).dtype == torch.float32
        torch.testing.assert_close(head(h), terms.sum(1))


def test_low_energy_is_high_output() -> None:
    """U = −f: raising f's bias lowers U."""
    energy = ReferenceEnergy(CIFAR, width=4)
    x = torch.randn(2, *CIFAR)
    before = energy(x)
    nn.init.ones_(energy.head.bias)
    torch.testing.assert_close(energy(x), before - 1)


def test_dropout_of_the_28_encoder() -> None:
    rates = [m.p for m in reference_vae(MNIST, 5, width=4).modules() if isinstance(m, nn.Dropout)]
    assert rates == [0.2] * 3
    rates = [m.p for m in reference_vae(MNIST, 5, 4, 0.0).modules() if isinstance(m, nn.Dropout)]
    assert rates == []
    rates = [m.p for m in reference_vae(CIFAR, 5, 4).modules() if isinstance(m, nn.Dropout)]
    assert rates == []


@pytest.mark.parametrize("shape", [(3, 48, 48), (1, 16, 16), (3, 32, 64), (2,)])
def test_other_sizes_are_refused(shape: tuple) -> None:
    with pytest.raises(ConfigError, match="28, 32, 64|mlp"):
        build_energy(EnergyNetConfig(net="reference"), shape)
