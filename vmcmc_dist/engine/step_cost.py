"""The work of one iteration, counted from the nets of a config without computing anything.

cost = step_cost(load_config("configs/celeba_hq_256.yaml", ["preset=modern"]), (3, 256, 256))
cost.flops(images=512)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.optim import SGD
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from vmcmc_dist.config import Config
from vmcmc_dist.langevin.frozen import frozen
from vmcmc_dist.langevin.gradient import energy_and_grad
from vmcmc_dist.langevin.record import ChainInfo
from vmcmc_dist.models import build_energy, build_vae
from vmcmc_dist.teaching.learner import TorchLearner
from vmcmc_dist.teaching.noise_plan import NoisePlan
from vmcmc_dist.teaching.step import Refined, TeachingPlan, learn_energy, learn_vae


@dataclass(frozen=True)
class Part:
    """One part of an iteration: floating-point operations an image, and tensor operations that
    the host must issue, however many images there are.
    """

    flops: float
    operations: int


@dataclass(frozen=True)
class StepCost:
    """Parts of an iteration after the VAE's head start, and the weights of each net.

    ``langevin`` is one step of a chain, of which there are ``steps``.
    """

    propose: Part
    langevin: Part
    energy: Part
    vae: Part
    steps: int
    parameters: dict[str, int]

    def flops(self, images: float) -> float:
        """Of an iteration with as many chains as images."""
        chain = self.steps * self.langevin.flops
        return images * (self.propose.flops + chain + self.energy.flops + self.vae.flops)

    @property
    def operations(self) -> int:
        """That the host issues in an iteration, on each worker."""
        chain = self.steps * self.langevin.operations
        return self.propose.operations + chain + self.energy.operations + self.vae.operations


class _Operations(TorchDispatchMode):
    """Counts torch's operations, views aside."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func.namespace == "aten" and not func.is_view
        return func(*args, **(kwargs or {}))


def step_cost(config: Config, shape: tuple[int, ...]) -> StepCost:
    """Count an iteration of ``teaching.step`` on samples of ``shape`` [C, H, W], in fp32."""
    plan = TeachingPlan(
        config.langevin, config.energy, config.vae, latent_dim=config.vae.latent_dim, chains=1
    )
    noise = NoisePlan(0, 0)
    with FakeTensorMode():
        u = build_energy(config.energy, shape)
        g = build_vae(config.vae, shape)
        energy, vae = TorchLearner(u, SGD(u.parameters(), 1.0)), _vae_learner(g)
        x, z = torch.randn(1, *shape), torch.randn(1, plan.latent_dim)
        refined = Refined(z, x, x, ChainInfo(z, z, z, None))

        def propose() -> None:
            with torch.no_grad():
                g.decode(z)

        def langevin() -> None:
            with frozen(u):  # the counter cannot look at a leaf
                energy_and_grad(lambda leaf: u(leaf.view_as(leaf)), x)

        return StepCost(
            propose=_count(propose),
            langevin=_count(langevin),
            energy=_count(lambda: learn_energy(energy, x, refined, plan, noise, 0)),
            vae=_count(lambda: learn_vae(vae, x, refined, plan, noise, 0)),
            steps=config.langevin.steps,
            parameters={"energy": _size(u), "vae": _size(g)},
        )


def _vae_learner(g: Any) -> TorchLearner:
    return TorchLearner(g, SGD(g.parameters(), 1.0), sampler=g.decode)


def _count(run: Callable[[], object]) -> Part:
    with FlopCounterMode(display=False) as flops, _Operations() as operations:
        run()
    return Part(flops.get_total_flops(), operations.count)


def _size(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())
