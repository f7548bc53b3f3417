"""Teaching with conditions: what reaches the nets, and what may move."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from vmcmc_dist.langevin import LangevinConfig
from vmcmc_dist.langevin.record import ChainInfo
from vmcmc_dist.models import Condition, EnergyNetConfig, VAENetConfig, build_energy, build_vae
from vmcmc_dist.models.vae import VAE, VAEOutput
from vmcmc_dist.teaching.config import EnergyObjective, VAEObjective
from vmcmc_dist.teaching.learner import TorchLearner
from vmcmc_dist.teaching.losses import label_loss
from vmcmc_dist.teaching.noise_plan import NoisePlan
from vmcmc_dist.teaching.step import (
    Refined,
    TeachingPlan,
    learn_energy,
    propose_and_revise,
    teach,
)

B, D = 8, 2
C = torch.arange(B)[:, None].float()
NOISE = NoisePlan(seed=0, images=64)


class Energy(nn.Module):
    """U(x, c) = w·|x − c|²/2; remembers which pairs it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(1.0))
        self.seen: list[tuple[Tensor, Tensor]] = []

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        self.seen.append((x.detach(), c))
        return self.w * (x - c).square().sum(1) / 2


class Net(VAE):
    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.latent_dim = D
        self.shift = nn.Parameter(torch.zeros(()))
        self.seen: list[tuple[Tensor, ...]] = []

    def decode(self, z: Tensor, *c: Tensor) -> Tensor:
        return z + 100 * c[0] + self.shift

    def encode(self, x: Tensor, *c: Tensor) -> tuple[Tensor, Tensor]:
        return x - 100 * c[0], torch.zeros_like(x)

    def forward(self, x, eps, z=None, c=None, c_z=None) -> VAEOutput:
        self.seen.append((x.detach(), c, c_z))
        return super().forward(x, eps, z, c, c_z)


def learners(energy: Energy, vae: Net, accumulation: int = 1) -> tuple[TorchLearner, TorchLearner]:
    make = torch.optim.SGD
    return (
        TorchLearner(energy, make(energy.parameters(), 0.0), accumulation=accumulation),
        TorchLearner(
            vae, make(vae.parameters(), 0.0), accumulation=accumulation, sampler=vae.decode
        ),
    )


def plan(**rest) -> TeachingPlan:
    vae = VAEObjective(data_weight=1.0, same_z_weight=1.0)
    chain = LangevinConfig(steps=3, step_size=0.1)
    return TeachingPlan(
        **{"langevin": chain, "energy": EnergyObjective(), "vae": vae, "latent_dim": D, "chains": B}
        | rest
    )


@pytest.mark.parametrize("accumulation", [1, 2])
def test_every_sample_keeps_its_condition(accumulation: int) -> None:
    """Data, chains, refined samples and codes meet their own c in every call of either net."""
    energy, vae = Energy(), Net()
    x = 100 * C + torch.zeros(B, D)
    teach(x, *learners(energy, vae, accumulation), plan(accumulation=accumulation), NOISE, C)
    assert len(energy.seen) == accumulation * (3 + 1) and len(vae.seen) == accumulation
    for rows, c in energy.seen:  # chains start at 100·c, data lie there
        assert (rows / 100 - c).abs().max() < 0.4
    for rows, c, c_z in vae.seen:
        assert (rows / 100 - c).abs().max() < 0.4 and len(c) == 2 * len(c_z) == len(rows)
    assert torch.equal(torch.cat([c_z for _, _, c_z in vae.seen]), C)


def test_the_head_start_is_conditional_too() -> None:
    energy, vae = Energy(), Net()
    settings = VAEObjective(data_weight=1.0, head_start_images=1000)
    record = teach(
        100 * C + torch.zeros(B, D), *learners(energy, vae), plan(vae=settings), NOISE, C
    )
    assert not energy.seen and torch.equal(vae.seen[0][1], C)
    assert "gap" not in record


def test_chains_and_conditions_must_be_as_many() -> None:
    energy, vae = Energy(), Net()
    with pytest.raises(ValueError, match="8 conditions for 4 chains"):
        teach(torch.zeros(B, D), *learners(energy, vae), plan(chains=4), NOISE, C)


def test_pinned_values_stay_in_proposal_chain_and_noise() -> None:
    """The first number of each sample is known: it stays so, and data noise leaves it alone."""
    energy, vae = Energy(), Net()
    free = torch.tensor([[0.0, 1.0]])

    def pin(c: Tensor) -> tuple[Tensor, Tensor]:
        return c.expand(B, D), free

    settings = plan(pin=pin, energy=EnergyObjective(data_noise=0.5))
    refined = propose_and_revise(*learners(energy, vae), settings, NOISE, 0, (C,))
    for x in (refined.proposal, refined.x):
        assert torch.equal(x[:, :1], C)
    assert (refined.x[:, 1:] != refined.proposal[:, 1:]).all()
    energy.seen.clear()
    x = torch.full((B, D), 7.0)
    teach(x, *learners(energy, vae), settings, NOISE, C)
    data = energy.seen[-1][0][:B]
    assert torch.equal(data[:, 0], x[:, 0]) and (data[:, 1] != 7).all()


def test_a_class_conditional_pair_learns_which_class_is_which() -> None:
    """Black and white images: after a few iterations each class has its own brightness."""
    torch.manual_seed(0)
    condition, shape = Condition("class", 2), (1, 28, 28)
    u = build_energy(EnergyNetConfig(net="modern", width=4, depth=1), shape, condition)
    g = build_vae(VAENetConfig(net="modern", width=8, depth=1, latent_dim=2), shape, condition)
    energy = TorchLearner(u, torch.optim.Adam(u.parameters(), 1e-3))
    vae = TorchLearner(g, torch.optim.Adam(g.parameters(), 1e-2), sampler=g.decode)
    c = torch.arange(16) % 2
    x = (c * 1.0 - 0.5).view(-1, 1, 1, 1).expand(16, *shape) + 0.1 * torch.randn(16, *shape)
    settings = TeachingPlan(
        LangevinConfig(steps=2, step_size=0.1),
        EnergyObjective(penalty=0.05),
        VAEObjective(refined_weight=0.0, data_weight=1.0, same_z_weight=0.3),
        latent_dim=2,
        chains=16,
    )
    for i in range(60):
        teach(x, energy, vae, settings, NoisePlan(0, 16 * i), c)
    with torch.no_grad():
        dark, bright = g.decode(torch.randn(16, 2), c).mean((1, 2, 3)).view(8, 2).mean(0)
    assert dark < -0.25 and bright > 0.25


def test_label_term_is_the_posterior_of_classes() -> None:
    """−log p(c|x) by Bayes with equal priors, and its gradient is added with its weight."""
    torch.manual_seed(0)
    condition, shape = Condition("class", 3), (1, 28, 28)
    u = build_energy(EnergyNetConfig(net="modern", width=4, depth=1), shape, condition)
    x, c = torch.rand(5, *shape), torch.tensor([0, 1, 2, 2, 1])
    every = torch.stack([u(x, torch.full((5,), k)) for k in range(3)], 1)
    torch.testing.assert_close(u(x), every)
    likelihood = (-every).exp()
    posterior = likelihood.gather(1, c[:, None])[:, 0] / likelihood.sum(1)
    torch.testing.assert_close(label_loss(every, c), -posterior.log().mean())

    def change(weight: float) -> list[Tensor]:
        net = copy.deepcopy(u)
        before = [p.detach().clone() for p in net.parameters()]
        learner = TorchLearner(net, torch.optim.SGD(net.parameters(), 1.0))
        settings = plan(energy=EnergyObjective(label_weight=weight), chains=5)
        info = ChainInfo(torch.zeros(1), torch.zeros(1), torch.zeros(5))
        refined = Refined(torch.zeros(5, D), x, x.flip(0), info, (c,))
        learn_energy(learner, x, refined, settings, NOISE, 0)
        learner.step()
        return [b - p.detach() for b, p in zip(before, net.parameters(), strict=True)]

    expected = torch.autograd.grad(label_loss(every, c), list(u.parameters()), allow_unused=True)
    for with_it, without, wanted in zip(change(0.5), change(0.0), expected, strict=True):
        wanted = torch.zeros_like(without) if wanted is None else wanted
        torch.testing.assert_close(with_it - without, 0.5 * wanted, rtol=1e-3, atol=1e-5)
