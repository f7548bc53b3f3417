"""Langevin sampling of any callable energy: one step, one chain, seeded noise."""

from vmcmc_dist.langevin.chain import run_chain
from vmcmc_dist.langevin.config import LangevinConfig
from vmcmc_dist.langevin.frozen import frozen
from vmcmc_dist.langevin.gradient import Energy, Precision, energy_and_grad
from vmcmc_dist.langevin.mala import MalaState, mala_step
from vmcmc_dist.langevin.memory import keep_freed_memory
from vmcmc_dist.langevin.noise import Noise, stream_seed
from vmcmc_dist.langevin.record import ChainInfo
from vmcmc_dist.langevin.schedules import step_sizes
from vmcmc_dist.langevin.step import drift_mean, langevin_step

__all__ = [
    "ChainInfo",
    "Energy",
    "LangevinConfig",
    "MalaState",
    "Noise",
    "Precision",
    "drift_mean",
    "energy_and_grad",
    "frozen",
    "keep_freed_memory",
    "langevin_step",
    "mala_step",
    "run_chain",
    "step_sizes",
    "stream_seed",
]
