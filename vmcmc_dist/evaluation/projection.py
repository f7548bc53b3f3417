"""The alternating projection on the plane, watched half-iteration by half-iteration.

    walk = Projection(model.config, energy_net, vae, images=model.images, lr_scale=0.1)
    for _ in range(40):
        walk.iterate()
    walk.halves         # [(0, "start", Divergences), (0.5, "energy", …), (1, "vae", …), …]

One iteration of teaching on fresh data: chains are proposed and revised, then the energy learns
(θ moves by KL(p_data‖p_θ) − KL(M_θp_α‖p_θ)), then the VAE (α, β move by KL(M_θp_α‖p_α) and its
posterior's). Every number drawn is a function of (seed, images).
"""

from __future__ import annotations

import copy
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from vmcmc_dist.config import Config
from vmcmc_dist.data import DensityStream, density
from vmcmc_dist.evaluation.quadrature import Divergences, measure
from vmcmc_dist.langevin import stream_seed
from vmcmc_dist.models import VAE
from vmcmc_dist.teaching.learner import TorchLearner
from vmcmc_dist.teaching.noise_plan import NoisePlan
from vmcmc_dist.teaching.step import (
    Refined,
    TeachingPlan,
    learn_energy,
    learn_vae,
    propose_and_revise,
)

Half = Literal["start", "energy", "vae"]


class HalfStep(NamedTuple):
    """Where the three densities stand after a half: iteration counts in steps of ½."""

    iteration: float
    half: Half
    divergences: Divergences


class Projection:
    """Copies of two nets that go on learning, measured after each half.

    Args:
        config: of a toy2d run; its losses, chain, batch, and rates of Adam.
        images: that the nets have seen; data and noise go on from there.
        repeats: steps of Adam in a half, each on new data and chains; 1 is training's own
            iteration (the VAE learns from the chains that the energy learnt from), many come
            nearer to whole projections.
        lr_scale: times the config's learning rates.
        total: iterations over which the rates fall to zero, linearly; 0 = they stay.
        warmup: iterations over which they rise, for Adam's new moments.
        particles: of the quadrature, see :func:`~vmcmc_dist.evaluation.quadrature.measure`. Its
            draws are the same each time, so that differences between halves are not noise.
    """

    def __init__(
        self,
        config: Config,
        energy_net: nn.Module,
        vae: VAE,
        *,
        images: int = 0,
        repeats: int = 1,
        lr_scale: float = 1.0,
        total: int = 0,
        warmup: int = 5,
        particles: int = 2**12,
        seed: int = 0,
    ):
        self.config, self.images, self.particles = config, images, particles
        self.lr_scale, self.total, self.warmup = lr_scale, total, warmup
        self.repeats, self.iteration = repeats, 0
        self.seed = stream_seed(seed, "projection")
        vae = copy.deepcopy(vae)
        self.energy = _learner(copy.deepcopy(energy_net), config.energy)
        self.vae = _learner(vae, config.vae, sampler=vae.decode)
        self.device = next(energy_net.parameters()).device
        batch = config.train.batch_size
        self.plan = TeachingPlan(
            config.langevin, config.energy, config.vae, config.vae.latent_dim,
            chains=config.train.chains or batch,
        )  # fmt: skip
        self.stream = DensityStream(
            density(config.data.density), seed=seed, local_batch=batch, images=images
        )
        self.halves, self.measured_at = [self.measure(0.0, "start")], 0

    def iterate(self, *, measured: bool = True) -> None:
        """The energy's half, then the VAE's; measured before, between and after them, or not."""
        if measured and self.measured_at != self.iteration:
            self.halves.append(self.measure(float(self.iteration), "vae"))
        for learner, settings in (
            (self.energy, self.config.energy), (self.vae, self.config.vae),
        ):  # fmt: skip
            for group in learner.optimizer.param_groups:
                group["lr"] = settings.lr * self.rate()
        for _ in range(self.repeats):
            x, refined, noise = self.revise()
            learn_energy(self.energy, x, refined, self.plan, noise, 0)
            self.energy.step()
        if measured:
            self.halves.append(self.measure(self.iteration + 0.5, "energy"))
        for k in range(self.repeats):
            if k:
                x, refined, noise = self.revise()
            learn_vae(self.vae, x, refined, self.plan, noise, 0)
            self.vae.step()
        self.iteration += 1
        if measured:
            self.halves.append(self.measure(float(self.iteration), "vae"))
            self.measured_at = self.iteration

    def revise(self) -> tuple[Tensor, Refined, NoisePlan]:
        """The next batch of data, chains of the nets as they are, and the noise of this batch."""
        noise = NoisePlan(self.seed, self.images, device=self.device)
        x = next(self.stream).x.to(self.device)
        self.images += len(x)
        return x, propose_and_revise(self.energy, self.vae, self.plan, noise, 0), noise

    def rate(self) -> float:
        """Factor of both learning rates at this iteration."""
        fall = 1 - self.iteration / self.total if self.total else 1.0
        return self.lr_scale * fall * min(1.0, (self.iteration + 1) / max(1, self.warmup))

    def measure(self, iteration: float, half: Half) -> HalfStep:
        """All divergences of the nets as they are."""
        vae = self.vae.module
        assert isinstance(vae, VAE)
        vae.eval()
        divergences, _ = measure(
            density(self.config.data.density).log_prob,
            self.energy.module,
            vae.decode,
            self.config.vae.latent_dim,
            self.config.vae.sigma,
            self.config.langevin,
            images=self.images,
            particles=self.particles,
        )
        vae.train()
        return HalfStep(iteration, half, divergences)

    def state(self) -> dict[str, Tensor]:
        """Everything that changes but ``halves``, as tensors: :meth:`load` goes on from it."""
        state = {"place": torch.tensor([self.iteration, self.images, self.measured_at])}
        for name, learner in (("energy", self.energy), ("vae", self.vae)):
            state |= {f"{name}.{k}": v for k, v in learner.module.state_dict().items()}
            moments = learner.optimizer.state_dict()["state"]
            state |= {f"{name}_adam.{i}.{k}": v for i, m in moments.items() for k, v in m.items()}
        return state

    def load(self, state: dict[str, Tensor]) -> None:
        """Take over what :meth:`state` gave."""
        self.iteration, self.images, self.measured_at = state["place"].tolist()
        self.stream.images = self.images
        for name, learner in (("energy", self.energy), ("vae", self.vae)):
            weights, moments = f"{name}.", f"{name}_adam."
            learner.module.load_state_dict(
                {k[len(weights) :]: v for k, v in state.items() if k.startswith(weights)}
            )
            found: dict[int, dict[str, Tensor]] = {}
            for key in (k for k in state if k.startswith(moments)):
                index, moment = key[len(moments) :].split(".")
                found.setdefault(int(index), {})[moment] = state[key]
            groups = learner.optimizer.state_dict()["param_groups"]
            learner.optimizer.load_state_dict({"state": found, "param_groups": groups})


def _learner(module: nn.Module, settings: object, **extra: object) -> TorchLearner:
    from vmcmc_dist.config import EnergyConfig, VAEConfig

    assert isinstance(settings, EnergyConfig | VAEConfig)
    module.train().requires_grad_(True)
    optimizer = torch.optim.AdamW(
        module.parameters(),
        settings.lr,
        betas=(settings.beta1, settings.beta2),
        weight_decay=settings.weight_decay,
    )
    return TorchLearner(module, optimizer, clip=settings.clip or None, **extra)  # type: ignore
