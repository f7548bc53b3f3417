"""Nets by name: from a config and a sample's shape to a module."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from vmcmc_dist.errors import ConfigError
from vmcmc_dist.models.condition import Condition
from vmcmc_dist.models.mlp import MLPEnergy, mlp_vae
from vmcmc_dist.models.reference import ReferenceEnergy, extra_stages, reference_vae
from vmcmc_dist.models.vae import VAE
from vmcmc_dist.settings import out_of_range, setting

Shape = tuple[int, ...]
MODERN_SIZES = (28, 32, 64, 128, 256)


@dataclass
class EnergyNetConfig:
    """The energy net: family, and the dials of its size."""

    net: Literal["mlp", "reference", "modern"] = setting(
        "modern", "family: mlp for vectors; reference or modern for images"
    )
    width: int = setting(64, "channels of the first stage, or units of an mlp layer", ge=1)
    depth: int = setting(
        2, "residual blocks per stage (modern), hidden layers (mlp); reference ignores it", ge=1
    )
    spectral_norm: bool = setting(False, "every layer's weight has spectral norm 1 (modern, mlp)")


@dataclass
class VAENetConfig:
    """The VAE's nets: family, and the dials of their size."""

    net: Literal["mlp", "reference", "modern"] = setting(
        "modern", "family: mlp for vectors; reference or modern for images"
    )
    width: int = setting(64, "channels of the first stage, or units of an mlp layer", ge=1)
    depth: int = setting(
        2, "residual blocks per stage (modern), hidden layers (mlp); reference ignores it", ge=1
    )
    latent_dim: int = setting(100, "d, the size of z", ge=1)
    dropout: float | None = setting(
        None, "dropout in the encoder; null: the net's own (0.2 in the 28×28 reference)", ge=0, lt=1
    )


def check_nets(
    config: EnergyNetConfig | VAENetConfig,
    shape: Shape,
    name: str = "net",
    condition: Condition | None = None,
) -> None:
    """Raise ``ConfigError`` where ``config`` cannot make a net for samples of ``shape``.

    Allocates nothing. ``name`` is the config's place, for the message (e.g. ``energy``).
    """
    for field in dataclasses.fields(config):
        problem = out_of_range(field, getattr(config, field.name))
        if problem:
            raise ConfigError(f"{name}.{field.name} {problem}")
    if config.net not in ("mlp", "reference", "modern"):
        raise ConfigError(f"{name}.net must be mlp, reference or modern, got {config.net!r}")
    if condition is not None and config.net != "modern":
        raise ConfigError(f"{name}.net={config.net} takes no condition: set {name}.net=modern")
    if config.net == "mlp":
        return
    if len(shape) != 3:
        raise ConfigError(
            f"{name}.net={config.net} needs images, but the data are {list(shape)}: "
            f"set {name}.net=mlp"
        )
    if config.net == "reference":
        extra_stages(shape)
        if getattr(config, "spectral_norm", False):
            raise ConfigError(
                f"the reference net has no spectral norm: set {name}.net=modern "
                f"or {name}.spectral_norm=false"
            )
    elif shape[1] != shape[2] or shape[1] not in MODERN_SIZES:
        raise ConfigError(
            f"{name}.net=modern takes square images of {MODERN_SIZES} pixels a side, "
            f"not {list(shape)}; change data.image_size"
        )


def build_energy(
    config: EnergyNetConfig, shape: Shape, condition: Condition | None = None
) -> nn.Module:
    """The energy net U: x [B, *shape] (and c) → [B], low = data.

    ``ConfigError`` where it cannot be.
    """
    check_nets(config, shape, "energy", condition)
    match config.net:
        case "mlp":
            return MLPEnergy(shape, config.width, config.depth, config.spectral_norm)
        case "reference":
            return ReferenceEnergy(shape, config.width)
    from vmcmc_dist.models.modern import ModernEnergy

    return ModernEnergy(
        shape,
        config.width,
        config.depth,
        spectral_norm=config.spectral_norm,
        condition=condition,
    )


def build_vae(config: VAENetConfig, shape: Shape, condition: Condition | None = None) -> VAE:
    """The VAE for samples of ``shape``, given c or not. ``ConfigError`` where it cannot be."""
    check_nets(config, shape, "vae", condition)
    match config.net:
        case "mlp":
            return mlp_vae(
                shape, config.latent_dim, config.width, config.depth, config.dropout or 0.0
            )
        case "reference":
            return reference_vae(shape, config.latent_dim, config.width, config.dropout)
    from vmcmc_dist.models.modern import ModernVAE

    extra: dict[str, Any] = {} if config.dropout is None else {"dropout": config.dropout}
    extra["condition"] = condition
    return ModernVAE(shape, config.width, config.depth, config.latent_dim, **extra)
