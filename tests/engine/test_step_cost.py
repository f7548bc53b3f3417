"""The work that is counted is the work that an iteration does."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from vmcmc_dist.config import load_config
from vmcmc_dist.engine.step_cost import step_cost
from vmcmc_dist.langevin.frozen import frozen
from vmcmc_dist.models import build_energy, build_vae
from vmcmc_dist.teaching.learner import TorchLearner
from vmcmc_dist.teaching.noise_plan import NoisePlan
from vmcmc_dist.teaching.step import TeachingPlan, teach

SMALL = [
    "energy.width=4", "energy.depth=1", "vae.width=4", "vae.depth=1", "vae.latent_dim=8",
    "langevin.steps=3",
]  # fmt: skip


@pytest.mark.parametrize(
    "settings", [[], ["vae.data_weight=1", "vae.refined_weight=0", "vae.same_z_weight=0.3"]]
)
def test_what_is_counted_without_computing_is_what_an_iteration_computes(settings) -> None:
    config, shape = load_config(None, [*SMALL, *settings]), (1, 28, 28)
    u, g = build_energy(config.energy, shape), build_vae(config.vae, shape)

    def viewed(x: Tensor) -> Tensor:  # torch's counter cannot look at a leaf
        with frozen(u):
            return u(x.view_as(x))

    energy = TorchLearner(u, torch.optim.Adam(u.parameters()), sampler=viewed)
    vae = TorchLearner(g, torch.optim.Adam(g.parameters()), sampler=g.decode)
    plan = TeachingPlan(config.langevin, config.energy, config.vae, latent_dim=8, chains=2)
    with FlopCounterMode(display=False) as real:
        teach(torch.zeros(2, *shape), energy, vae, plan, NoisePlan(0, 0))
    cost = step_cost(config, shape)
    assert cost.flops(2) == real.get_total_flops() > 0
    assert cost.parameters["energy"] == sum(p.numel() for p in u.parameters())
    assert 3 * cost.langevin.operations < cost.operations < 5000
