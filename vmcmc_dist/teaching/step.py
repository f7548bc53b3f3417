"""One iteration of variational MCMC teaching (arXiv:2012.14936).

    1. propose   z ~ N(0, I),  x₀ = g_α(z)
    2. revise    T Langevin steps on U_θ from x₀ give x̃
    3. energy    descend  E_data[U_θ] − E_x̃[U_θ]
    4. VAE       descend  E|x̃ − g_α(z')|²/(2σ²) + KL(q_β(z'|x̃) ‖ N(0, I))

The nets are :class:`~vmcmc_dist.teaching.learner.Learner`; any two modules will do:

    energy = TorchLearner(u, Adam(u.parameters(), 1e-4))
    vae = TorchLearner(g, Adam(g.parameters(), 3e-4), sampler=g.decode)
    plan = TeachingPlan(LangevinConfig(), EnergyObjective(), VAEObjective(), 64, chains=64)
    for i, x in enumerate(loader):                       # x in [-1, 1]
        record = teach(x, energy, vae, plan, NoisePlan(seed=0, images=64 * i))
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vmcmc_dist.errors import DivergenceError
from vmcmc_dist.langevin.chain import run_chain
from vmcmc_dist.langevin.config import LangevinConfig
from vmcmc_dist.langevin.gradient import Precision
from vmcmc_dist.langevin.record import ChainInfo
from vmcmc_dist.teaching.config import EnergyObjective, VAEObjective
from vmcmc_dist.teaching.learner import Learner
from vmcmc_dist.teaching.losses import (
    energy_loss,
    gaussian_nll,
    label_loss,
    negative_elbo,
    vae_loss,
)
from vmcmc_dist.teaching.noise_plan import NoisePlan

Record = dict[str, Tensor]
Given = tuple[Tensor, ...]


def raise_it(error: DivergenceError | None) -> None:
    """The agreement of a single worker with itself."""
    if error is not None:
        raise error


@dataclass
class TeachingPlan:
    """Settings of an iteration. ``chains`` and the batch are this worker's share.

    Attributes:
        chains: Langevin chains per iteration; need not equal the data batch.
        accumulation: micro-batches; both must be divisible by it. θ and α stay fixed until
            every micro-batch has been proposed and revised.
        precision: of the energy inside the chain; its state and noise are always fp32.
        pin: of inpainting: c → (known, free), the pixels that proposals and chains keep (where
            free is 0), so that only the rest is generated.
        agree: called once a step, after the chains and before the nets learn, with the error
            of this worker's chains or ``None``; must raise on every worker if one has an error.
    """

    langevin: LangevinConfig
    energy: EnergyObjective
    vae: VAEObjective
    latent_dim: int
    chains: int
    accumulation: int = 1
    precision: Precision = "fp32"
    pin: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None
    agree: Callable[[DivergenceError | None], None] = raise_it


@dataclass
class Refined:
    """Chains of one micro-batch: codes z [B, d], proposals x₀ and refined samples x̃ [B, ...].

    ``c`` is what the chains were given, a tuple of one tensor, or empty; ``free`` where they moved.
    """

    z: Tensor
    proposal: Tensor
    x: Tensor
    info: ChainInfo
    c: Given = ()
    free: Tensor | None = None


def teach(
    x: Tensor,
    energy: Learner,
    vae: Learner,
    plan: TeachingPlan,
    noise: NoisePlan,
    c: Tensor | None = None,
) -> Record:
    """One iteration on a batch of data; both nets are updated.

    Args:
        x: this worker's data [B, ...]; images in [-1, 1].
        c: conditions of the data [B, ...]; chains take the same ones, so as many chains as data.

    Returns:
        Means over this worker's samples, 0-d tensors on the device: ``energy_data``,
        ``energy_refined``, ``energy_std`` (of U among this worker's data), ``gap`` =
        U(x̃) − U(x_data), ``drop`` = fall of the (total) energy along a chain, ``grad_rms`` (RMS
        of ∂U/∂x per dimension), ``displacement`` (L2 of x̃ − x₀), ``reconstruction`` and ``kl``
        (nats),
        ``spread`` and ``spread_data`` (std among samples, mean over dimensions), ``mean``
        of x̃ and of the data, the two losses, the gradients' norms.
    """
    batches = x.chunk(plan.accumulation)
    chunks = range(plan.accumulation)
    given: Sequence[Given] = [()] * plan.accumulation
    if c is not None:
        if plan.chains != len(x):
            raise ValueError(f"{len(x)} conditions for {plan.chains} chains: make them equal")
        given = [(part,) for part in c.chunk(plan.accumulation)]
    if noise.images < plan.vae.head_start_images:
        return head_start(batches, given, vae, plan, noise)
    refined: list[Refined] = []
    failure = None
    try:
        refined = [propose_and_revise(energy, vae, plan, noise, i, given[i]) for i in chunks]
    except DivergenceError as error:
        failure = error
    plan.agree(failure)
    records = [learn_energy(energy, batches[i], refined[i], plan, noise, i) for i in chunks]
    # The energy's gradients may still be on their way between workers while the VAE computes its
    # own, which needs neither U nor its step.
    records += [learn_vae(vae, batches[i], refined[i], plan, noise, i) for i in chunks]
    energy_norm, vae_norm = energy.step(), vae.step()

    records += [describe(batches[i], refined[i]) for i in chunks]
    record = _mean(records, x.device)
    record["gap"] = record["energy_refined"] - record["energy_data"]
    if energy_norm is not None:
        record["energy_grad_norm"] = energy_norm
    if vae_norm is not None:
        record["vae_grad_norm"] = vae_norm
    return record


def head_start(
    batches: Sequence[Tensor],
    given: Sequence[Given],
    vae: Learner,
    plan: TeachingPlan,
    noise: NoisePlan,
) -> Record:
    """An iteration before teaching begins: the VAE's ELBO of the data, and nothing else."""
    plan.agree(None)
    records = []
    for chunk, x in enumerate(batches):
        eps = noise("posterior_data", chunk, len(x), plan.accumulation)
        out = vae(x, eps.normal((len(x), plan.latent_dim)), None, *given[chunk])
        elbo = negative_elbo(x, out.recon, out.mu, out.logvar, plan.vae.sigma)
        loss = vae_loss(elbo, plan.vae)
        vae.backward(loss)
        records.append(
            {
                "reconstruction_data": elbo.reconstruction.detach(),
                "kl_data": elbo.kl.detach(),
                "vae_loss": loss.detach(),
            }
        )
    vae.step()
    return _mean(records, batches[0].device)


def propose_and_revise(
    energy: Learner,
    vae: Learner,
    plan: TeachingPlan,
    noise: NoisePlan,
    chunk: int,
    c: Given = (),
) -> Refined:
    """z ~ N(0, I), x₀ = g(z, c), then T Langevin steps on U(·, c); no gradient to any weight."""
    rows = plan.chains // plan.accumulation
    z = noise("z", chunk, rows, plan.accumulation).normal((rows, plan.latent_dim))
    with torch.no_grad():
        proposal = vae.sampler(z, *c).float()
    free = None
    if plan.pin is not None:
        known, free = plan.pin(*c)
        proposal = torch.where(free.bool(), proposal, known)
    x, info = run_chain(
        energy.sampler,
        proposal,
        plan.langevin,
        noise("chain", chunk, rows, plan.accumulation),
        condition=c[0] if c else None,
        free=free,
        precision=plan.precision,
    )
    return Refined(z, proposal, x, info, c, free)


def learn_energy(
    energy: Learner, x: Tensor, refined: Refined, plan: TeachingPlan, noise: NoisePlan, chunk: int
) -> Record:
    """Accumulate the gradient of E_data[U] − E_x̃[U] (+ α-penalty) of one micro-batch."""
    std = noise_level(plan.energy, noise.images)
    if std:
        eps = noise("data", chunk, len(x), plan.accumulation).normal(x.shape)
        x = x + std * (eps if refined.free is None else eps * refined.free)
    both, record = torch.cat([x, refined.x]), {}
    c = [torch.cat([c, c]) for c in refined.c]
    if plan.energy.label_weight:
        every = energy(both).float()  # [B, K]: of all classes
        u = every.gather(1, c[0][:, None])[:, 0]
    else:
        u = energy(both, *c).float()
    u_data, u_refined = u.split([len(x), len(refined.x)])
    loss = energy_loss(u_data, u_refined, plan.energy)
    if plan.energy.label_weight:
        nll = label_loss(every[: len(x)], refined.c[0])
        loss = loss + plan.energy.label_weight * nll
        record["label_nll"] = nll.detach()
    energy.backward(loss)
    return record | {
        "energy_data": u_data.detach().mean(),
        "energy_refined": u_refined.detach().mean(),
        "energy_std": u_data.detach().std(correction=0),
        "energy_loss": loss.detach(),
    }


def learn_vae(
    vae: Learner, x: Tensor, refined: Refined, plan: TeachingPlan, noise: NoisePlan, chunk: int
) -> Record:
    """Accumulate the gradient of the VAE's loss of one micro-batch.

    w_r·(−ELBO(x̃)) + w_d·(−ELBO(x_data)) + w_z·|x̃ − g(z)|²/2σ² + w_q·(−log q(z|x̃)),
    with w_r = 1 and the rest 0 in the paper.
    """
    objective, chunks = plan.vae, plan.accumulation
    weights = {  # what is encoded; nothing that has no weight costs anything
        "": (refined.x, objective.refined_weight, objective.z_regression_weight),
        "_data": (x, objective.data_weight, 0.0),
    }
    encoded = {name: rows for name, (rows, *weight) in weights.items() if any(weight)}
    eps = [
        noise(f"posterior{name}", chunk, len(rows), chunks).normal((len(rows), plan.latent_dim))
        for name, rows in encoded.items()
    ]
    given = [torch.cat([c] * len(encoded)) for c in refined.c]
    same_z = refined.z if objective.same_z_weight else None
    out = vae(torch.cat(list(encoded.values())), torch.cat(eps), same_z, *given, *refined.c)
    sizes = [len(rows) for rows in encoded.values()]
    parts = zip(out.recon.split(sizes), out.mu.split(sizes), out.logvar.split(sizes), strict=True)

    loss, record = torch.zeros((), device=x.device), {}
    for (name, rows), (recon, mu, logvar) in zip(encoded.items(), parts, strict=True):
        elbo = negative_elbo(rows, recon, mu, logvar, objective.sigma)
        loss = loss + weights[name][1] * vae_loss(elbo, objective)
        record[f"reconstruction{name}"] = elbo.reconstruction.detach()
        record[f"kl{name}"] = elbo.kl.detach()
        if weights[name][2]:
            nll = gaussian_nll(refined.z, mu, logvar)
            loss = loss + weights[name][2] * nll
            record["z_regression"] = nll.detach()
    if objective.same_z_weight:
        fit = (refined.x - out.decoded.float()).square().flatten(1).sum(1).mean()
        fit = fit / (2 * objective.sigma**2)
        loss = loss + objective.same_z_weight * fit
        record["same_z"] = fit.detach()
    vae.backward(loss)
    return record | {"vae_loss": loss.detach()}


def noise_level(objective: EnergyObjective, images: int) -> float:
    """Std of the noise on the data after ``images`` images: constant, or linear to zero."""
    if not objective.data_noise_images:
        return objective.data_noise
    return objective.data_noise * max(0.0, 1 - images / objective.data_noise_images)


def describe(x: Tensor, refined: Refined) -> Record:
    """The figures by which a regime is told: see :mod:`vmcmc_dist.teaching.guard`."""
    record = {
        "drop": refined.info.energy[0] - refined.info.energy[-1],
        "grad_rms": refined.info.grad_rms.mean(),
        "displacement": refined.info.displacement.mean(),
        "spread": refined.x.std(0, correction=0).mean(),
        "spread_data": x.std(0, correction=0).mean(),
        "mean": refined.x.mean(),
        "mean_data": x.mean(),
    }
    if refined.info.acceptance is not None:
        record["acceptance"] = refined.info.acceptance.mean()
    return record


def _mean(records: list[Record], device: torch.device) -> Record:
    """Means by name, on ``device`` so that nothing waits for it."""
    names = dict.fromkeys(name for record in records for name in record)
    return {
        name: torch.stack(
            [r[name].float().to(device, non_blocking=True) for r in records if name in r]
        ).mean()
        for name in names
    }
