"""Run by torchrun-like launchers in the tests: two workers against one with twice the batch.

    RANK=0 WORLD_SIZE=2 … python pair_of_workers.py OUT.json

Writes, for each problem and ZeRO stage, and with overlapped reductions, the workers' mean losses
over the iterations; and for each pair of stages the losses after the state of one was loaded into
the other; and under ``late`` how long the first worker's ``backward`` takes while the second comes
half a second late, with and without overlap.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from typing import Any

import torch
import torch.distributed as dist

from vmcmc_dist.engine.config import OptimizerConfig
from vmcmc_dist.engine.learner import DeepSpeedLearner
from vmcmc_dist.engine.meter import Meter
from vmcmc_dist.engine.worker import join_alone
from vmcmc_dist.langevin.config import LangevinConfig
from vmcmc_dist.models.build import EnergyNetConfig, VAENetConfig, build_energy, build_vae
from vmcmc_dist.teaching.config import EnergyObjective, VAEObjective
from vmcmc_dist.teaching.noise_plan import NoisePlan
from vmcmc_dist.teaching.step import TeachingPlan, teach

NAMES = ("energy_loss", "vae_loss", "gap", "kl", "displacement")
PROBLEMS = {
    # odd widths: no tensor divides by the number of workers
    "vectors": ((2,), {"net": "mlp", "width": 15, "depth": 2}, 32, 20),
    "images": ((1, 28, 28), {"net": "modern", "width": 4, "depth": 1}, 8, 20),
}


def nets(problem: str):
    shape, net, _, _ = PROBLEMS[problem]
    torch.manual_seed(0)
    return (
        build_energy(EnergyNetConfig(**net), shape),
        build_vae(VAENetConfig(latent_dim=3, **net), shape),
    )


def learners(problem: str, stage: int, world_size: int, weights=(None, None), overlap=False):
    pair = nets(problem)
    for net, saved in zip(pair, weights, strict=True):
        if saved is not None:
            net.load_state_dict(saved)
    batch = PROBLEMS[problem][2] // world_size
    return [
        DeepSpeedLearner(
            net,
            OptimizerConfig(lr=1e-3, zero_stage=stage, clip=1.0),
            precision="fp32",
            micro_batch=batch,
            device=torch.device("cpu"),
            sampled=sampled,
            overlap=overlap,
        )
        for net, sampled in zip(pair, ("", "decoder"), strict=True)
    ]


def losses(problem: str, pair, first: int, last: int) -> list[list[float]]:
    """Means over workers of iterations [first, last)."""
    shape, _, batch, _ = PROBLEMS[problem]
    rank, workers = dist.get_rank(), dist.get_world_size()
    plan = TeachingPlan(
        LangevinConfig(steps=3, step_size=0.1),
        EnergyObjective(penalty=0.01, data_noise=0.05),
        VAEObjective(sigma=0.5, data_weight=0.5, same_z_weight=0.5, z_regression_weight=0.1),
        latent_dim=3,
        chains=batch // workers,
    )
    meter, rows = Meter(), []
    for i in range(first, last):
        x = torch.randn(batch, *shape, generator=torch.Generator().manual_seed(i)).clamp(-1, 1)
        noise = NoisePlan(0, batch * i, rank=rank, world_size=workers, per_sample=True)
        meter.add(teach(x[rank::workers].contiguous(), *pair, plan, noise))
        means = meter.means()
        rows.append([means[name] for name in NAMES])
    return rows


def late() -> dict[str, float]:
    """Seconds of this worker's backward pass, when the second worker begins its own late."""
    seconds = {}
    for name, overlap in (("plain", False), ("overlap", True)):
        pair = learners("vectors", 0, dist.get_world_size(), overlap=overlap)
        loss = pair[0](torch.randn(4, 2)).sum()
        dist.barrier()
        if dist.get_rank():
            time.sleep(0.5)
        start = time.monotonic()
        pair[0].backward(loss)
        seconds[name] = time.monotonic() - start
        pair[0].step()
        close(pair)
    return seconds


def close(pair) -> None:
    for learner in pair:
        learner.close()


def copied(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in tensors.items()}


def main(out: str, stages: list[int], resume: bool) -> None:
    result: dict[str, Any] = {}
    states = {}
    for problem, (_, _, _, steps) in PROBLEMS.items():
        for stage in stages:
            pair = learners(problem, stage, dist.get_world_size())
            first = losses(problem, pair, 0, steps // 2)
            if resume and problem == "vectors":
                states[stage] = [(copied(a.current), copied(a.optimizer_state())) for a in pair]
            result[f"{problem} {stage}"] = first + losses(problem, pair, steps // 2, steps)
            close(pair)
        pair = learners(problem, 0, dist.get_world_size(), overlap=True)
        result[f"{problem} overlap"] = losses(problem, pair, 0, steps)
        close(pair)
    for origin, state in states.items():
        for stage in stages:
            weights, moments = zip(*state, strict=True)
            pair = learners("vectors", stage, dist.get_world_size(), weights)
            for learner, saved in zip(pair, moments, strict=True):
                learner.load_optimizer_state(saved)
            steps = PROBLEMS["vectors"][3]
            result[f"{origin} to {stage}"] = losses("vectors", pair, steps // 2, steps)
            close(pair)
    result["late"] = late()
    if dist.get_rank() == 0:
        with open(out, "w") as file:
            json.dump(result, file)


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    workers = int(sys.argv[2])
    if workers == 1:
        join_alone()
        main(sys.argv[1], [0], resume=False)
    else:
        dist.init_process_group("gloo")
        main(sys.argv[1], [0, 1, 2, 3], resume=True)
