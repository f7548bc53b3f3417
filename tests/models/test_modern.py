"""The residual nets: shapes at every size, samples independent of their batch, dials, precision."""

import pytest
import torch

from vmcmc_dist.models.modern import ModernEnergy, ModernVAE
from vmcmc_dist.models.residual import ChannelNorm, stages
from vmcmc_dist.models.sampler_copy import SamplerCopy


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("size", [28, 32, 64, 128, 256])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_shapes_at_every_size(size, channels):
    shape = (channels, size, size)
    x = torch.rand(2, *shape) * 2 - 1
    assert ModernEnergy(shape, 4, 1)(x).shape == (2,)
    vae = ModernVAE(shape, 4, 1, latent_dim=6)
    out = vae(x, torch.randn(2, 6), torch.randn(3, 6))
    assert out.recon.shape == x.shape and out.decoded.shape == (3, *shape)
    assert out.mu.shape == out.logvar.shape == (2, 6)
    assert out.recon.abs().max() <= 1
    assert {t.dtype for t in out} == {torch.float32}


def test_stages_stop_at_seven_or_four_pixels():
    assert stages(28, 8) == [(14, 8), (7, 16)]
    assert stages(64, 8) == [(32, 8), (16, 16), (8, 32), (4, 32)]


def test_a_sample_is_independent_of_its_batch():
    torch.manual_seed(0)
    shape = (1, 28, 28)
    energy, vae = ModernEnergy(shape, 8, 1), ModernVAE(shape, 8, 1, 4)
    x, z, eps = torch.randn(6, *shape), torch.randn(6, 4), torch.randn(6, 4)
    torch.testing.assert_close(energy(x)[:2], energy(x[:2]))
    torch.testing.assert_close(vae.decode(z)[:2], vae.decode(z[:2]))
    torch.testing.assert_close(vae(x, eps).recon[:2], vae(x[:2], eps[:2]).recon)


def test_width_and_depth_are_dials():
    shape = (3, 64, 64)
    small, wide, deep = (
        ModernEnergy(shape, 8, 1),
        ModernEnergy(shape, 16, 1),
        ModernEnergy(shape, 8, 2),
    )
    assert 3.5 < count(wide) / count(small) < 4.1
    assert count(deep) > 1.5 * count(small)


def test_every_weight_gets_a_gradient():
    shape = (3, 32, 32)
    energy, vae = ModernEnergy(shape, 4, 2), ModernVAE(shape, 4, 2, 5)
    x = torch.rand(4, *shape) * 2 - 1
    energy(x).sum().backward()
    out = vae(x, torch.randn(4, 5))
    ((out.recon - x).pow(2).sum() + out.mu.pow(2).sum() + out.logvar.exp().sum()).backward()
    for name, weight in [*energy.named_parameters(), *vae.named_parameters()]:
        assert weight.grad is not None and weight.grad.isfinite().all(), name
        if name != "head.bias":
            assert weight.grad.abs().max() > 0, name


def test_channel_norm_is_layer_norm_of_each_pixel():
    x = torch.randn(2, 5, 3, 3) * 4 + 2
    y = ChannelNorm(5)(x)
    torch.testing.assert_close(y.mean(1), torch.zeros(2, 3, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(y.var(1, correction=0), torch.ones(2, 3, 3), atol=1e-3, rtol=0)


def test_spectral_norm_bounds_every_convolution():
    torch.manual_seed(0)
    energy = ModernEnergy((1, 28, 28), 8, 1, spectral_norm=True)
    convolutions = [m for m in energy.modules() if hasattr(m, "normalised_weight")]
    assert len(convolutions) == 6  # stem, two per block, the skip that changes channels
    for conv in convolutions:
        sigma = torch.linalg.matrix_norm(conv.normalised_weight().detach().flatten(1), ord=2)
        assert sigma == pytest.approx(1, abs=0.1)


def test_a_bf16_copy_gives_the_same_energy_and_pictures():
    torch.manual_seed(0)
    shape = (3, 32, 32)
    energy, vae = ModernEnergy(shape, 16, 1), ModernVAE(shape, 16, 1, 8)
    x, z = torch.rand(8, *shape) * 2 - 1, torch.randn(8, 8)
    with torch.no_grad():
        u, picture = energy(x), vae.decode(z)
    scale = float(u.std()) + 0.01
    torch.testing.assert_close(SamplerCopy(energy, torch.bfloat16)(x), u, atol=0.3 * scale, rtol=0)
    copy = SamplerCopy(vae, torch.bfloat16).decode(z)
    torch.testing.assert_close(copy, picture, atol=0.05, rtol=0)


def test_the_energy_cannot_be_lowered_by_dots_of_two_pixels():
    torch.manual_seed(0)
    energy = ModernEnergy((1, 28, 28), 8, 1)
    x = torch.zeros(3, 1, 28, 28, requires_grad=True)
    (gradient,) = torch.autograd.grad(energy(x + torch.rand_like(x)).sum(), x)
    sign = torch.ones(28)
    sign[1::2] = -1
    inner = gradient[..., 2:-2, 2:-2]
    for pattern in (sign.expand(28, 28), sign[:, None].expand(28, 28), sign[:, None] * sign):
        share = (inner * pattern[2:-2, 2:-2]).sum((1, 2, 3)).abs() / inner.abs().sum((1, 2, 3))
        assert share.max() < 0.05
