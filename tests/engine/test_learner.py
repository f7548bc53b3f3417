"""DeepSpeed's learner, one worker: it is the plain one at every ZeRO stage, and so is its state."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from vmcmc_dist.engine.config import OptimizerConfig
from vmcmc_dist.engine.learner import DeepSpeedLearner
from vmcmc_dist.engine.worker import join_alone
from vmcmc_dist.errors import CheckpointError, ConfigError
from vmcmc_dist.langevin.config import LangevinConfig
from vmcmc_dist.models.mlp import MLPEnergy, mlp_vae
from vmcmc_dist.models.modern import ModernEnergy, ModernVAE
from vmcmc_dist.teaching.config import EnergyObjective, VAEObjective
from vmcmc_dist.teaching.learner import TorchLearner
from vmcmc_dist.teaching.noise_plan import NoisePlan
from vmcmc_dist.teaching.step import TeachingPlan, teach

STAGES = (0, 1, 2, 3)
BATCH = 16


@pytest.fixture(scope="module", autouse=True)
def alone() -> Iterator[None]:
    """A process group of one, as launcher=local makes it."""
    before = dict(os.environ)
    join_alone()
    yield
    os.environ.clear()
    os.environ.update(before)


def vectors() -> tuple[nn.Module, nn.Module, tuple[int, ...]]:
    torch.manual_seed(0)
    return MLPEnergy((2,), 16, 2), mlp_vae((2,), 2, 16, 2), (2,)


def images() -> tuple[nn.Module, nn.Module, tuple[int, ...]]:
    torch.manual_seed(0)
    return ModernEnergy((1, 28, 28), 4, 1), ModernVAE((1, 28, 28), 4, 1, 8), (1, 28, 28)


def spectral() -> tuple[nn.Module, nn.Module, tuple[int, ...]]:
    torch.manual_seed(0)
    return MLPEnergy((2,), 16, 2, spectral_norm=True), mlp_vae((2,), 2, 16, 2), (2,)


def batch(i: int, shape: tuple[int, ...]) -> Tensor:
    return torch.randn(BATCH, *shape, generator=torch.Generator().manual_seed(i)).clamp(-1, 1)


def plan(g: nn.Module, accumulation: int = 1) -> TeachingPlan:
    return TeachingPlan(
        LangevinConfig(steps=3, step_size=0.1),
        EnergyObjective(penalty=0.01),
        VAEObjective(sigma=0.5, data_weight=0.5, same_z_weight=0.5),
        latent_dim=g.latent_dim,
        chains=BATCH,
        accumulation=accumulation,
    )


def deepspeed_pair(
    u: nn.Module, g: nn.Module, stage: int, accumulation: int = 1, clip: float = 0.0,
    precision: str = "fp32", overlap: bool = False,
) -> list[DeepSpeedLearner]:  # fmt: skip
    return [
        DeepSpeedLearner(
            net,
            OptimizerConfig(lr=1e-3, zero_stage=stage, clip=clip),
            precision=precision,
            micro_batch=BATCH // accumulation,
            accumulation=accumulation,
            device=torch.device("cpu"),
            sampled=sampled,
            overlap=overlap,
        )
        for net, sampled in ((u, ""), (g, "decoder"))
    ]


def torch_pair(
    u: nn.Module, g: nn.Module, accumulation: int = 1, clip: float | None = None
) -> list[TorchLearner]:
    return [
        TorchLearner(
            net,
            torch.optim.Adam(net.parameters(), 1e-3, betas=(0.5, 0.999)),
            accumulation=accumulation,
            clip=clip,
            sampler=sampler,
        )
        for net, sampler in ((u, None), (g, g.decode))
    ]


def losses(
    pair: list, settings: TeachingPlan, shape: tuple[int, ...], first: int, last: int
) -> Tensor:
    names = ("energy_loss", "vae_loss", "gap", "kl", "displacement", "energy_std")
    rows = []
    for i in range(first, last):
        record = teach(batch(i, shape), *pair, settings, NoisePlan(0, BATCH * i, per_sample=True))
        rows.append([float(record[name]) for name in names])
    return torch.tensor(rows)


PROBLEMS = {"vectors": vectors, "images": images, "spectral": spectral}
EXPECTED: dict[tuple[str, int], Tensor] = {}


def expected(problem: str, accumulation: int, steps: int, clip: float | None = None) -> Tensor:
    u, g, shape = PROBLEMS[problem]()
    return losses(torch_pair(u, g, accumulation, clip), plan(g, accumulation), shape, 0, steps)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("problem", PROBLEMS)
def test_every_stage_is_the_plain_learner(problem: str, stage: int) -> None:
    steps = 6 if problem == "images" else 20
    key = (problem, steps)
    if key not in EXPECTED:
        EXPECTED[key] = expected(problem, 1, steps)
    u, g, shape = PROBLEMS[problem]()
    pair = deepspeed_pair(u, g, stage)
    got = losses(pair, plan(g), shape, 0, steps)
    for learner in pair:
        learner.close()
    torch.testing.assert_close(got, EXPECTED[key], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("stage", STAGES)
def test_micro_batches_and_clipping_at_every_stage(stage: int) -> None:
    u, g, shape = vectors()
    pair = deepspeed_pair(u, g, stage, accumulation=2, clip=0.5)
    got = losses(pair, plan(g, 2), shape, 0, 6)
    for learner in pair:
        learner.close()
    torch.testing.assert_close(got, expected("vectors", 2, 6, clip=0.5), rtol=1e-5, atol=1e-5)


def test_overlap_with_micro_batches_and_clipping_changes_no_bit() -> None:
    found = []
    for overlap in (False, True):
        u, g, shape = vectors()
        pair = deepspeed_pair(u, g, 0, accumulation=2, clip=0.5, overlap=overlap)
        found.append(losses(pair, plan(g, 2), shape, 0, 6))
        for learner in pair:
            learner.close()
    assert torch.equal(*found)


def test_overlap_is_refused_where_zero_reduces() -> None:
    u, g, _ = vectors()
    with pytest.raises(ConfigError, match="stage 0"):
        deepspeed_pair(u, g, 1, overlap=True)


def test_state_of_any_stage_goes_on_at_any_other() -> None:
    """Weights and Adam's moments saved at stage s, loaded at stage t: the same next steps."""
    whole: Tensor | None = None
    saved = {}
    for stage in STAGES:
        u, g, shape = vectors()
        pair = deepspeed_pair(u, g, stage)
        losses(pair, plan(g), shape, 0, 4)
        saved[stage] = [
            tuple(
                {name: value.clone() for name, value in part.items()}
                for part in (learner.current, learner.optimizer_state())
            )
            for learner in pair
        ]
        rest = losses(pair, plan(g), shape, 4, 9)
        whole = rest if whole is None else whole
        torch.testing.assert_close(rest, whole, rtol=1e-6, atol=1e-6)
        for learner in pair:
            learner.close()
    assert whole is not None
    for stage in STAGES:
        for origin in STAGES:
            u, g, shape = vectors()
            for net, (weights, _) in zip((u, g), saved[origin], strict=True):
                net.load_state_dict(weights)
            pair = deepspeed_pair(u, g, stage)
            for learner, (_, moments) in zip(pair, saved[origin], strict=True):
                learner.load_optimizer_state(moments)
            got = losses(pair, plan(g), shape, 4, 9)
            for learner in pair:
                learner.close()
            torch.testing.assert_close(
                got, whole, rtol=1e-6, atol=1e-6, msg=lambda m, o=origin, t=stage: f"{o}→{t}: {m}"
            )


def test_optimizer_state_names_every_moment_in_full_shape() -> None:
    shapes = None
    for stage in STAGES:
        u, g, shape = vectors()
        pair = deepspeed_pair(u, g, stage)
        losses(pair, plan(g), shape, 0, 1)
        state = pair[0].optimizer_state()
        found = {name: tuple(tensor.shape) for name, tensor in state.items()}
        shapes = shapes or found
        assert found == shapes and float(state["step"]) == 1
        pair[0].close(), pair[1].close()
    assert shapes is not None and len(shapes) == 2 * len(list(u.parameters())) + 1


@pytest.mark.parametrize("stage", STAGES)
def test_weights_are_what_the_plain_net_loads(stage: int) -> None:
    """Names and shapes of its ``state_dict``: no buffer that is made anew, none left out."""
    u, g, _ = images()
    shapes = [{n: t.shape for n, t in net.state_dict().items()} for net in (u, g)]
    pair = deepspeed_pair(u, g, stage)
    found = [{n: t.shape for n, t in learner.weights().items()} for learner in pair]
    pair[0].close(), pair[1].close()
    assert found == shapes


def test_state_of_another_net_is_refused() -> None:
    u, g, shape = vectors()
    pair = deepspeed_pair(u, g, 0)
    losses(pair, plan(g), shape, 0, 1)
    with pytest.raises(CheckpointError, match="of another net"):
        pair[0].load_optimizer_state(pair[1].optimizer_state())
    pair[0].close(), pair[1].close()


def test_learning_rate_reaches_the_weights() -> None:
    u, g, shape = vectors()
    pair = deepspeed_pair(u, g, 1)
    for learner in pair:
        learner.set_lr(0.0)
    before = {name: value.clone() for name, value in pair[0].current.items()}
    losses(pair, plan(g), shape, 0, 2)
    assert all(torch.equal(before[name], value) for name, value in pair[0].current.items())
    pair[0].close(), pair[1].close()


@pytest.mark.parametrize("stage", [0, 3])
def test_bf16_learns_with_fp32_weights(stage: int) -> None:
    u, g, shape = vectors()
    pair = deepspeed_pair(u, g, stage, precision="bf16")
    settings = plan(g)
    settings.precision = "bf16"
    got = losses(pair, settings, shape, 0, 3)
    assert pair[0].copy is not None and all(
        value.dtype == torch.float32 for value in pair[0].current.values()
    )
    for learner in pair:
        learner.close()
    assert got.isfinite().all()
    torch.testing.assert_close(got, expected("vectors", 1, 3), rtol=0.1, atol=0.05)
    assert not torch.equal(got, expected("vectors", 1, 3))
