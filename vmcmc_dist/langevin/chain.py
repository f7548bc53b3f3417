"""The chain: T Langevin steps from given starts, the hot loop of everything."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vmcmc_dist.langevin.config import LangevinConfig
from vmcmc_dist.langevin.frozen import frozen
from vmcmc_dist.langevin.gradient import Energy, Precision, energy_and_grad
from vmcmc_dist.langevin.mala import MalaState, mala_step
from vmcmc_dist.langevin.noise import Noise
from vmcmc_dist.langevin.record import ChainInfo, Recorder
from vmcmc_dist.langevin.schedules import step_sizes
from vmcmc_dist.langevin.step import langevin_step

Callback = Callable[[int, Tensor, Tensor, Tensor], None]
Evaluate = Callable[[Tensor], tuple[Tensor, Tensor]]
Draw = Callable[[Sequence[int]], Tensor]


def run_chain(
    energy: Energy,
    x0: Tensor,
    config: LangevinConfig,
    noise: Noise,
    *,
    condition: Tensor | None = None,
    free: Tensor | None = None,
    precision: Precision = "fp32",
    final_energy: bool = False,
    callback: Callback | None = None,
) -> tuple[Tensor, ChainInfo]:
    """``config.steps`` Langevin steps on U from ``x0``; returns the last state and the record.

        x, info = run_chain(lambda x: x.square().sum(1) / 2, torch.zeros(64, 2),
                            LangevinConfig(steps=100, step_size=0.5), Noise(seed=0))

    energy     any callable x [B, …] → U [B], low = data. A module's weights are frozen meanwhile.
    x0         [B, …], not changed. State, noise and sums are float32 whatever ``precision``.
    condition  c [B, …] of a conditional energy, which is then called as U(x, c).
    free       [B or 1, …], 1 where x may move and 0 where it stays as in ``x0`` (inpainting): the
               chain then samples the moving part given the rest, adjusted or not.
    precision  bf16 and fp16 evaluate ``energy`` under autocast. (A ``models.SamplerCopy`` brings
               its own precision and is faster.)
    callback   called as (step, x, energies [B], ∂U/∂x) before each step.
    final_energy  one evaluation more, for the energy of the returned state.

    Errors: ``ConfigError`` for a bad config; ``DivergenceError`` naming the step where energy,
    gradient or state stopped being finite (looked at once, at the end).
    """
    config.check()
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.no_grad())
        if isinstance(energy, nn.Module):
            stack.enter_context(frozen(energy))
        start = x0.detach().to(torch.float32, copy=True)
        x = start if config.clamp is None else start.clamp(-config.clamp, config.clamp)
        conditional = energy if condition is None else partial(_given, energy, condition)
        evaluate: Evaluate = partial(
            energy_and_grad, conditional, reference_std=config.reference_std, precision=precision
        )
        draw: Draw = noise.normal
        if free is not None:
            free = free.to(x)
            evaluate, draw = partial(_free_grad, evaluate, free), partial(_free_noise, draw, free)
        recorder = Recorder()
        loop = _adjusted if config.adjusted else _unadjusted
        x = loop(evaluate, x, config, draw, noise.uniform, recorder, callback, final_energy)
        return x, recorder.info(start, x)


def _given(energy: Any, condition: Tensor, x: Tensor) -> Tensor:
    return energy(x, condition)


def _free_grad(evaluate: Evaluate, free: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    u, grad = evaluate(x)
    return u, grad * free


def _free_noise(draw: Draw, free: Tensor, shape: Sequence[int]) -> Tensor:
    return draw(shape) * free


def _unadjusted(
    evaluate: Evaluate,
    x: Tensor,
    config: LangevinConfig,
    normal: Draw,
    uniform: Draw,
    recorder: Recorder,
    callback: Callback | None,
    final_energy: bool,
) -> Tensor:
    for step, step_size in enumerate(step_sizes(config)):
        u, grad = evaluate(x)
        recorder.step(u, grad)
        if callback is not None:
            callback(step, x, u, grad)
        x = langevin_step(
            x,
            grad,
            normal(x.shape) if config.temperature > 0 else None,
            step_size=step_size,
            temperature=config.temperature,
            clip_move=config.clip_move,
            clamp=config.clamp,
        )
    if final_energy:
        recorder.energy.append(evaluate(x)[0].mean())
    return x


def _adjusted(
    evaluate: Evaluate,
    x: Tensor,
    config: LangevinConfig,
    normal: Draw,
    uniform: Draw,
    recorder: Recorder,
    callback: Callback | None,
    final_energy: bool,
) -> Tensor:
    state = MalaState(x, *evaluate(x))
    for step, step_size in enumerate(step_sizes(config)):
        recorder.step(state.energy, state.grad)
        if callback is not None:
            callback(step, *state)
        state, alpha = mala_step(
            state,
            evaluate,
            normal(x.shape),
            uniform(x.shape[:1]),
            step_size=step_size,
            temperature=config.temperature,
            clip_move=config.clip_move,
            clamp=config.clamp,
        )
        recorder.acceptance.append(alpha.mean())
    recorder.energy.append(state.energy.mean())
    return state.x
