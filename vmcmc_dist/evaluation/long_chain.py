"""Chains far beyond their training length, cut into segments that can be done one by one.

    for a, b in pairwise([0, 8, 16, 80]):
        x, u = segment(model, x, a, b, seed=0)      # states after b steps from those after a

A segment's noise depends on (seed, where it begins), so that a chain that was interrupted between
two segments goes on to the very states it would have reached.
"""

from __future__ import annotations

import dataclasses
from typing import cast

import torch
from torch import Tensor

from vmcmc_dist.langevin import LangevinConfig, Noise, Precision, run_chain, stream_seed
from vmcmc_dist.langevin.chain import Callback
from vmcmc_dist.trained import Trained


def continued(config: LangevinConfig) -> LangevinConfig:
    """The chain after its training length: constant at the schedule's last step size."""
    last = config.step_size * config.final_scale
    return dataclasses.replace(config, schedule="constant", step_size=last, final_scale=1.0)


def segment(
    model: Trained,
    x: Tensor,
    begin: int,
    end: int,
    *,
    c: Tensor | None = None,
    temperature: float | None = None,
    seed: int = 0,
    callback: Callback | None = None,
) -> Tensor:
    """States after ``end`` steps from the states x [B, …] after ``begin``; [B, …].

    The first ``langevin.steps`` of the config follow its schedule and must be one segment where
    that is not constant; the rest goes on at the last step size. ``callback`` as in ``run_chain``,
    with steps counted from the segment's beginning.
    """
    trained = model.chain_config(model.config.langevin.steps, temperature)
    seed = stream_seed(seed, "segment", begin)
    if trained.schedule == "constant":
        return model.refine(
            x, c=c, steps=end - begin, temperature=temperature, seed=seed, callback=callback
        )[0]
    if begin < trained.steps and (begin, end) != (0, trained.steps):
        raise ValueError(f"the first {trained.steps} steps of a {trained.schedule} chain are one")
    config = dataclasses.replace(trained if begin == 0 else continued(trained), steps=end - begin)
    noise = Noise(seed, model.device)
    return run_chain(
        model.energy_net,
        x.to(model.device),
        config,
        noise,
        condition=None if c is None else c.to(model.device),
        precision=cast(Precision, model.precision),
        callback=callback,
    )[0]


def energies(model: Trained, x: Tensor, c: Tensor | None = None, batch_size: int = 500) -> Tensor:
    """U of x [N, …] in batches, float64 [N] on the CPU."""
    given = [None] * len(x) if c is None else c.split(batch_size)
    parts = zip(x.split(batch_size), given, strict=False)
    return torch.cat([model.energy(part, cond).double().cpu() for part, cond in parts])
