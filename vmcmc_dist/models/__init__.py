"""Energy nets and VAEs by name, each a plain ``nn.Module``."""

from vmcmc_dist.models.build import (
    EnergyNetConfig,
    VAENetConfig,
    build_energy,
    build_vae,
    check_nets,
)
from vmcmc_dist.models.condition import Condition
from vmcmc_dist.models.sampler_copy import SamplerCopy
from vmcmc_dist.models.vae import VAE, VAEOutput

__all__ = [
    "Condition",
    "EnergyNetConfig",
    "SamplerCopy",
    "VAE",
    "VAEOutput",
    "VAENetConfig",
    "build_energy",
    "build_vae",
    "check_nets",
]
