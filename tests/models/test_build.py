"""Nets by name: MLPs, dispatch, and what is refused before anything is allocated."""

from __future__ import annotations

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from vmcmc_dist.errors import ConfigError
from vmcmc_dist.models import (
    VAE,
    EnergyNetConfig,
    VAENetConfig,
    build_energy,
    build_vae,
    check_nets,
)


@pytest.mark.parametrize("shape", [(2,), (16,), (1, 4, 4)])
def test_mlp(shape: tuple) -> None:
    energy = build_energy(EnergyNetConfig(net="mlp", width=8, depth=3), shape)
    vae = build_vae(VAENetConfig(net="mlp", width=8, depth=2, latent_dim=3), shape)
    x = torch.randn(5, *shape)
    assert energy(x).shape == (5,)
    assert sum(isinstance(m, nn.SiLU) for m in energy.modules()) == 3
    out = vae(x, torch.randn(5, 3))
    assert out.recon.shape == x.shape and out.mu.shape == (5, 3)


def test_vae_reparameterises() -> None:
    """recon = decode(μ + e^{logvar/2}·ε), and encode and decode stand alone."""
    vae = build_vae(VAENetConfig(net="mlp", width=8, depth=1, latent_dim=3), (4,))
    x, eps, z = torch.randn(5, 4), torch.randn(5, 3), torch.randn(2, 3)
    mu, logvar = vae.encode(x)
    out = vae(x, eps, z)
    assert torch.equal(out.mu, mu) and torch.equal(out.logvar, logvar)
    torch.testing.assert_close(out.recon, vae.decode(mu + (logvar / 2).exp() * eps))
    assert out.decoded is not None
    torch.testing.assert_close(out.decoded, vae.decode(z))


@pytest.mark.parametrize("size", [28, 32, 64])
@pytest.mark.parametrize("channels", [1, 3])
def test_modern_is_found_by_name(size: int, channels: int) -> None:
    shape = (channels, size, size)
    x = torch.randn(2, *shape)
    for spectral_norm in (False, True):
        config = EnergyNetConfig(net="modern", width=8, depth=1, spectral_norm=spectral_norm)
        assert build_energy(config, shape)(x).shape == (2,)
    vae = build_vae(VAENetConfig(net="modern", width=8, depth=1, latent_dim=5), shape)
    assert isinstance(vae, VAE) and vae.latent_dim == 5
    out = vae(x, torch.randn(2, 5), torch.randn(3, 5))
    assert out.recon.shape == x.shape and out.mu.shape == (2, 5)
    assert out.decoded is not None and out.decoded.shape == (3, *shape)


@pytest.mark.parametrize(
    ("config", "shape", "words"),
    [
        (EnergyNetConfig(net="resnet"), (3, 32, 32), "energy.net must be"),  # type: ignore[arg-type]
        (EnergyNetConfig(net="modern"), (3, 48, 48), "energy.net=modern.*data.image_size"),
        (EnergyNetConfig(net="modern"), (2,), "energy.net=mlp"),
        (EnergyNetConfig(net="reference", spectral_norm=True), (3, 32, 32), "spectral_norm=false"),
        (EnergyNetConfig(net="mlp", width=0), (2,), "energy.width must be ≥ 1"),
        (VAENetConfig(net="mlp", dropout=1.0), (2,), "vae.dropout"),
        (VAENetConfig(net="mlp", latent_dim=0), (2,), "vae.latent_dim"),
    ],
)
def test_bad_config_is_named(
    config: EnergyNetConfig | VAENetConfig, shape: tuple, words: str
) -> None:
    name = "energy" if isinstance(config, EnergyNetConfig) else "vae"
    with pytest.raises(ConfigError, match=words):
        check_nets(config, shape, name)
    with pytest.raises(ConfigError, match=words):
        build_energy(config, shape) if name == "energy" else build_vae(config, shape)


@pytest.mark.parametrize("config", [EnergyNetConfig, VAENetConfig])
def test_configs_are_strict_omegaconf(config: type) -> None:
    schema = OmegaConf.structured(config)
    merged = OmegaConf.merge(schema, {"net": "mlp", "width": 3})
    assert OmegaConf.to_object(merged).width == 3  # type: ignore[union-attr]
    with pytest.raises(Exception, match="widht"):
        OmegaConf.merge(schema, {"widht": 3})
