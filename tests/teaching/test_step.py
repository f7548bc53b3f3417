"""One iteration of teaching against the same iteration written out by hand, and on Gaussians."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from vmcmc_dist.errors import DivergenceError
from vmcmc_dist.langevin.chain import run_chain
from vmcmc_dist.langevin.config import LangevinConfig
from vmcmc_dist.models.mlp import MLPEnergy, mlp_vae
from vmcmc_dist.models.vae import VAE, VAEOutput
from vmcmc_dist.teaching.config import EnergyObjective, GuardConfig, VAEObjective
from vmcmc_dist.teaching.guard import Guard
from vmcmc_dist.teaching.learner import TorchLearner
from vmcmc_dist.teaching.noise_plan import NoisePlan
from vmcmc_dist.teaching.step import TeachingPlan, noise_level, teach

BATCH, CHAINS, D, Z = 12, 8, 3, 2
LANGEVIN = LangevinConfig(steps=4, step_size=0.3)
NOISE = NoisePlan(seed=3, images=600, per_sample=True)


def nets() -> tuple[nn.Module, VAE]:
    torch.manual_seed(0)
    return MLPEnergy((D,), 8, 2), mlp_vae((D,), Z, 8, 2)


def data() -> Tensor:
    return torch.randn(BATCH, D, generator=torch.Generator().manual_seed(1))


def plan(
    energy: EnergyObjective | None = None, vae: VAEObjective | None = None, **rest
) -> TeachingPlan:
    return TeachingPlan(
        LANGEVIN,
        energy or EnergyObjective(),
        vae or VAEObjective(sigma=0.5),
        **{"latent_dim": Z, "chains": CHAINS, **rest},
    )


def learners(u: nn.Module, g: VAE, accumulation: int = 1) -> tuple[TorchLearner, TorchLearner]:
    """Gradient descent with rate 1: the change of a weight is minus its gradient."""
    return (
        TorchLearner(u, torch.optim.SGD(u.parameters(), 1.0), accumulation=accumulation),
        TorchLearner(
            g,
            torch.optim.SGD(g.parameters(), 1.0),
            accumulation=accumulation,
            sampler=g.decode,
        ),
    )


def taught(plan: TeachingPlan, noise: NoisePlan = NOISE) -> tuple[list[Tensor], list[Tensor], dict]:
    """(gradients of the energy, of the VAE, the record) of one call of ``teach``."""
    u, g = nets()
    before = (
        [p.detach().clone() for p in u.parameters()],
        [p.detach().clone() for p in g.parameters()],
    )
    record = teach(data(), *learners(u, g, plan.accumulation), plan, noise)
    gradients = [
        [old - new.detach() for old, new in zip(was, net.parameters(), strict=True)]
        for was, net in zip(before, (u, g), strict=True)
    ]
    return gradients[0], gradients[1], record


def by_hand(energy: EnergyObjective, vae: VAEObjective, std: float) -> tuple[list, list]:
    """The gradients of the same iteration, each term as METHOD writes it."""
    (u, g), x = nets(), data()
    z = NOISE("z", 0, CHAINS).normal((CHAINS, Z))
    x_tilde, _ = run_chain(u, g.decode(z).detach(), LANGEVIN, NOISE("chain", 0, CHAINS))

    u_data = u(x + std * NOISE("data", 0, BATCH).normal((BATCH, D)))
    u_refined = u(x_tilde)
    energy_loss = u_data.mean() - u_refined.mean()
    energy_loss = energy_loss + energy.penalty * ((u_data**2).mean() + (u_refined**2).mean())

    def negative_elbo(x: Tensor, eps: Tensor) -> Tensor:
        mu, logvar = g.encode(x)
        q = Normal(mu, (0.5 * logvar).exp())
        fit = ((x - g.decode(mu + q.stddev * eps)) ** 2).sum(1) / (2 * vae.sigma**2)
        return (fit + vae.kl_weight * kl_divergence(q, Normal(0.0, 1.0)).sum(1)).mean()

    eps = NOISE("posterior", 0, CHAINS).normal((CHAINS, Z))
    eps_data = NOISE("posterior_data", 0, BATCH).normal((BATCH, Z))
    vae_loss = vae.refined_weight * negative_elbo(x_tilde, eps)
    vae_loss = vae_loss + vae.data_weight * negative_elbo(x, eps_data)
    same = ((x_tilde - g.decode(z)) ** 2).sum(1).mean() / (2 * vae.sigma**2)
    vae_loss = vae_loss + vae.same_z_weight * same
    mu, logvar = g.encode(x_tilde)
    log_q = Normal(mu, (0.5 * logvar).exp()).log_prob(z).sum(1).mean()
    vae_loss = vae_loss - vae.z_regression_weight * log_q
    return (
        list(torch.autograd.grad(energy_loss, list(u.parameters()))),
        list(torch.autograd.grad(vae_loss, list(g.parameters()))),
    )


LEVERS = {
    "paper": ({}, {}),
    "penalty": ({"penalty": 0.3}, {}),
    "data noise": ({"data_noise": 0.4}, {}),
    "data noise that falls": ({"data_noise": 0.4, "data_noise_images": 800}, {}),
    "kl weight": ({}, {"kl_weight": 2.5}),
    "sees data": ({}, {"data_weight": 0.7}),
    "data alone": ({}, {"data_weight": 1.0, "refined_weight": 0.0}),
    "same z": ({}, {"same_z_weight": 0.6}),
    "z regression": ({}, {"z_regression_weight": 0.2}),
    "all": (
        {"penalty": 0.1, "data_noise": 0.1},
        {"data_weight": 0.5, "same_z_weight": 0.5, "z_regression_weight": 0.5},
    ),
}


@pytest.mark.parametrize("lever", LEVERS)
def test_the_update_is_the_one_written_out_by_hand(lever: str) -> None:
    energy, vae = (
        kind(**LEVERS[lever][i], **extra)
        for i, (kind, extra) in enumerate(((EnergyObjective, {}), (VAEObjective, {"sigma": 0.5})))
    )
    std = {"data noise": 0.4, "data noise that falls": 0.1, "all": 0.1}.get(lever, 0.0)
    got_energy, got_vae, _ = taught(plan(energy, vae))
    expected_energy, expected_vae = by_hand(energy, vae, std)
    torch.testing.assert_close(got_energy, expected_energy, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(got_vae, expected_vae, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("lever", [name for name in LEVERS if name != "paper"])
def test_a_lever_moves_its_own_net_and_leaves_the_other(lever: str) -> None:
    settings = LEVERS[lever]
    paper_energy, paper_vae, _ = taught(plan())
    energy, vae, _ = taught(
        plan(EnergyObjective(**settings[0]), VAEObjective(sigma=0.5, **settings[1]))
    )
    same_energy = all(torch.equal(a, b) for a, b in zip(energy, paper_energy, strict=True))
    same_vae = all(torch.equal(a, b) for a, b in zip(vae, paper_vae, strict=True))
    assert same_energy == (not settings[0]) and same_vae == (not settings[1])


def test_data_noise_falls_linearly_to_zero() -> None:
    objective = EnergyObjective(data_noise=0.2, data_noise_images=1000)
    assert [noise_level(objective, images) for images in (0, 500, 1000, 5000)] == [0.2, 0.1, 0, 0]
    assert noise_level(EnergyObjective(data_noise=0.2), 10**9) == 0.2


@pytest.mark.parametrize("chunks", [2, 4])
def test_micro_batches_give_the_update_of_the_whole_batch(chunks: int) -> None:
    objectives = (
        EnergyObjective(penalty=0.1, data_noise=0.1),
        VAEObjective(sigma=0.5, data_weight=0.5, same_z_weight=0.5, z_regression_weight=0.5),
    )
    whole = taught(plan(*objectives))
    parts = taught(plan(*objectives, accumulation=chunks))
    torch.testing.assert_close(parts[0], whole[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(parts[1], whole[1], rtol=1e-4, atol=1e-5)
    for name in ("gap", "kl", "energy_loss", "vae_loss", "displacement", "mean"):
        assert float(parts[2][name]) == pytest.approx(float(whole[2][name]), rel=1e-4), name


@pytest.mark.parametrize("chunks", [1, 2])
def test_a_head_start_is_the_elbo_of_the_data_alone(chunks: int) -> None:
    lever = VAEObjective(sigma=0.5, kl_weight=0.5, head_start_images=601)
    alone = VAEObjective(sigma=0.5, kl_weight=0.5, data_weight=1.0, refined_weight=0.0)
    energy, vae, record = taught(plan(vae=lever, accumulation=chunks))
    assert not any(gradient.any() for gradient in energy)
    _, expected = by_hand(EnergyObjective(), alone, 0.0)
    torch.testing.assert_close(vae, expected, rtol=1e-4, atol=1e-5)
    assert "gap" not in record and "vae_loss" in record


def test_after_the_head_start_both_learn() -> None:
    energy, _, record = taught(plan(vae=VAEObjective(sigma=0.5, head_start_images=600)))
    assert any(gradient.any() for gradient in energy) and "gap" in record


def test_data_that_are_not_finite_end_the_run() -> None:
    (u, g), x = nets(), data()
    x[3, 1] = float("nan")
    record = teach(x, *learners(u, g), plan(), NOISE)
    with pytest.raises(DivergenceError, match="not finite after 7 images: .*energy_data"):
        Guard(GuardConfig()).check_finite({k: float(v) for k, v in record.items()}, 7)
    with pytest.raises(DivergenceError, match="Langevin chain: the energy was not finite"):
        teach(data(), *learners(u, g), plan(), NOISE)


def test_the_record_is_what_it_says() -> None:
    _, _, record = taught(plan())
    (u, g), x = nets(), data()
    z = NOISE("z", 0, CHAINS).normal((CHAINS, Z))
    x0 = g.decode(z).detach()
    refined, info = run_chain(u, x0, LANGEVIN, NOISE("chain", 0, CHAINS))
    expected = {
        "energy_data": u(x).mean(),
        "energy_refined": u(refined).mean(),
        "gap": u(refined).mean() - u(x).mean(),
        "displacement": (refined - x0).norm(dim=1).mean(),
        "energy_std": u(x).std(correction=0),
        "spread": refined.std(0, correction=0).mean(),
        "spread_data": x.std(0, correction=0).mean(),
        "mean": refined.mean(),
        "mean_data": x.mean(),
        "drop": info.energy[0] - info.energy[-1],
        "grad_rms": info.grad_rms.mean(),
    }
    for name, value in expected.items():
        assert float(record[name]) == pytest.approx(float(value.detach()), rel=1e-4, abs=1e-6), name
    assert all(value.ndim == 0 for value in record.values())
    assert {"energy_loss", "vae_loss", "reconstruction", "kl"} <= record.keys()


def test_gradients_are_clipped_and_their_norm_recorded() -> None:
    u, g = nets()
    before = [p.detach().clone() for p in u.parameters()]
    energy, vae = learners(u, g)
    energy.clip = 0.01
    record = teach(data(), energy, vae, plan(), NOISE)
    moved = torch.cat(
        [(a - b.detach()).flatten() for a, b in zip(before, u.parameters(), strict=True)]
    ).norm()
    assert float(moved) == pytest.approx(0.01, rel=1e-3)
    assert float(record["energy_grad_norm"]) > 0.01 and "vae_grad_norm" not in record


def test_weights_are_trainable_again_after_the_chain() -> None:
    u, g = nets()
    teach(data(), *learners(u, g), plan(), NOISE)
    assert all(p.requires_grad for p in [*u.parameters(), *g.parameters()])


def test_a_diverged_chain_reaches_agree_before_any_weight_moves() -> None:
    u, g = nets()
    before = copy.deepcopy([u.state_dict(), g.state_dict()])
    seen: list[DivergenceError | None] = []

    def agree(error: DivergenceError | None) -> None:
        seen.append(error)
        if error is not None:
            raise error

    wild = dataclasses.replace(LANGEVIN, step_size=1e18)
    with pytest.raises(DivergenceError, match="Langevin chain"):
        teach(
            data(),
            *learners(u, g),
            dataclasses.replace(plan(agree=agree), langevin=wild),
            NOISE,
        )
    assert len(seen) == 1 and isinstance(seen[0], DivergenceError)
    for old, net in zip(before, (u, g), strict=True):
        assert all(torch.equal(old[name], value) for name, value in net.state_dict().items())


def test_agree_is_called_once_a_step_with_nothing_wrong() -> None:
    seen: list[DivergenceError | None] = []
    taught(plan(agree=seen.append, accumulation=2))
    assert seen == [None]


# -- any two modules learn -------------------------------------------------------------------------


class Gaussian(nn.Module):
    """U(x) = Σ e^l (x − m)²/2: a Gaussian whose divergence is known in closed form."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.m, self.l = nn.Parameter(torch.zeros(d)), nn.Parameter(torch.zeros(d))

    def forward(self, x: Tensor) -> Tensor:
        return (0.5 * self.l.exp() * (x - self.m) ** 2).sum(1)

    def density(self) -> Normal:
        return Normal(self.m.detach(), (-0.5 * self.l.detach()).exp())


class Linear(nn.Module):
    """A linear-Gaussian VAE, not of this package: encode, decode, and a forward."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.q, self.g = nn.Linear(d, 2 * d), nn.Linear(d, d)

    def decode(self, z: Tensor) -> Tensor:
        return self.g(z)

    def forward(self, x: Tensor, eps: Tensor, z: Tensor | None = None):
        mu, logvar = self.q(x).chunk(2, 1)
        return VAEOutput(self.g(mu + (0.5 * logvar).exp() * eps), mu, logvar, None)


@pytest.mark.parametrize("d", [1, 2])
def test_two_plain_modules_learn_a_gaussian(d: int) -> None:
    """KL(p_data‖p_θ) falls from about a nat to less than 0.05, and the sampler follows."""
    torch.manual_seed(0)
    data = Normal(torch.tensor([1.2, -0.8][:d]), torch.tensor([0.6, 1.4][:d]))
    u, g = Gaussian(d), Linear(d)
    energy = TorchLearner(u, torch.optim.Adam(u.parameters(), 0.03))
    vae = TorchLearner(g, torch.optim.Adam(g.parameters(), 0.03), sampler=g.decode)
    settings = TeachingPlan(
        LangevinConfig(steps=20, step_size=0.5),
        EnergyObjective(),
        VAEObjective(sigma=0.3),
        latent_dim=d,
        chains=128,
    )
    start = float(kl_divergence(data, u.density()).sum())
    averages = []
    for i in range(200):
        record = teach(data.sample((128,)), energy, vae, settings, NoisePlan(0, 128 * i))
        if i >= 150:
            averages.append(float(kl_divergence(data, u.density()).sum()))
    assert start > 0.7
    assert sum(averages) / len(averages) < 0.05
    assert abs(float(record["gap"])) < 0.5
    proposals = g.decode(torch.randn(4000, d)).detach()
    assert torch.allclose(proposals.mean(0), data.mean, atol=0.25)
