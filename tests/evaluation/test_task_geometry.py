"""The alternating projection: each half moves what it may move, and nothing else."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path

import pytest
import torch

from vmcmc_dist.config import load_config
from vmcmc_dist.data import DensityStream, density
from vmcmc_dist.evaluation.projection import Projection
from vmcmc_dist.evaluation.quadrature import Divergences
from vmcmc_dist.evaluation.tasks import geometry
from vmcmc_dist.models import build_energy, build_vae
from vmcmc_dist.teaching.noise_plan import NoisePlan
from vmcmc_dist.teaching.step import teach
from vmcmc_dist.trained import Trained

CONFIGS = Path(__file__).parents[2] / "configs"

SMALL = [
    "data.source=toy2d", "data.density=gaussians", "energy.net=mlp", "vae.net=mlp",
    "energy.width=16", "energy.depth=2", "vae.width=16", "vae.depth=2", "vae.latent_dim=2",
    "vae.sigma=0.3", "energy.lr=1e-2", "vae.lr=1e-2", "langevin.steps=3",
    "langevin.step_size=0.3", "langevin.reference_std=4", "train.precision=fp32",
    "train.batch_size=32",
]  # fmt: skip


@pytest.fixture
def model() -> Trained:
    config = load_config(None, SMALL)
    torch.manual_seed(0)
    return Trained(
        config, (2,), build_energy(config.energy, (2,)), build_vae(config.vae, (2,)), images=320
    )


def weights(*modules: torch.nn.Module) -> list[torch.Tensor]:
    return [p.detach().clone() for m in modules for p in m.parameters()]


def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_one_iteration_is_the_trainers(model) -> None:
    """Both nets end where ``teach`` takes them: the same batch, chains, noise and rates."""
    walk = Projection(
        model.config, model.energy_net, model.vae, images=320, warmup=1, particles=256
    )
    other = Projection(
        model.config, model.energy_net, model.vae, images=320, warmup=1, particles=256
    )
    walk.iterate(measured=False)
    x = next(DensityStream(density("gaussians"), seed=0, local_batch=32, images=320)).x
    teach(x, other.energy, other.vae, other.plan, NoisePlan(other.seed, 320))
    for a, b in ((walk.energy, other.energy), (walk.vae, other.vae)):
        assert not same(
            weights(a.module), weights(model.energy_net if a is walk.energy else model.vae)
        )
        assert same(weights(a.module), weights(b.module))


def test_each_half_moves_its_own_density_alone(model) -> None:
    walk = Projection(model.config, model.energy_net, model.vae, particles=256)
    walk.iterate()
    start, energy, vae = (step.divergences for step in walk.halves)
    assert [(step.iteration, step.half) for step in walk.halves] == [
        (0.0, "start"), (0.5, "energy"), (1.0, "vae"),
    ]  # fmt: skip
    assert energy.data_sampler == start.data_sampler  # α stood still
    assert energy.data_model != start.data_model
    assert vae.data_model == energy.data_model and vae.log_z == energy.log_z  # θ stood still
    assert vae.data_sampler != energy.data_sampler
    assert vae.model_sampler != energy.model_sampler != start.model_sampler


def test_the_runs_nets_stay_as_they_were(model, job_of) -> None:
    before = weights(model.energy_net, model.vae)
    geometry.run(job_of(model, "geometry", iterations=2, particles=256))
    assert same(before, weights(model.energy_net, model.vae))
    assert not any(p.requires_grad for p in model.energy_net.parameters())


def test_figures_and_pictures(model, job_of) -> None:
    result = geometry.run(job_of(model, "geometry", iterations=3, particles=256))
    figures = result.figures
    assert figures["iteration"] == [0, 0.5, 1, 1.5, 2, 2.5, 3]
    assert figures["half"] == ["start", *["energy", "vae"] * 3]
    for name in ("data_model", "model_sampler", "revised_model"):
        assert len(figures[f"kl_{name}"]) == 7
    kl = figures["kl_data_model"]
    moved = sum(kl[k] - kl[k - 1] for k in (1, 3, 5)) / 3
    assert figures["change_data_model_energy"] == pytest.approx(moved)
    assert figures["change_data_model_vae"] == 0
    json.dumps(figures, allow_nan=False)
    assert [path.name for path in result.pictures] == ["zigzag.png", "phase.png"]
    assert all(path.stat().st_size > 5000 for path in result.pictures)


def test_from_the_start_the_energy_comes_nearer_to_the_data(job_of) -> None:
    preset = ["preset=gaussians", "energy.width=16", "vae.width=16", "langevin.steps=10"]
    config = load_config(CONFIGS / "toy2d.yaml", [*preset, "train.batch_size=64"])
    model = Trained(
        config, (2,), build_energy(config.energy, (2,)), build_vae(config.vae, (2,)), images=320
    )
    job = job_of(
        model, "geometry", from_start=True, iterations=12, repeats=8, every=6, particles=256
    )
    figures = geometry.run(job).figures
    assert figures["iteration"] == [0, 5, 5.5, 6, 11, 11.5, 12]
    assert figures["half"] == ["start", *["vae", "energy", "vae"] * 2]
    assert figures["kl_data_model"][0] > 2 > figures["kl_data_model"][-1]
    assert figures["change_data_model_energy"] < 0


def test_an_interrupted_walk_ends_as_an_uninterrupted_one(model, job_of) -> None:
    settings = {"iterations": 4, "every": 2, "repeats": 2, "particles": 256}
    whole = geometry.run(job_of(model, "geometry", **settings)).figures
    job = job_of(model, "geometry", **settings)

    def dies(what: str, done: int, total: int) -> None:
        if done == 6:
            raise KeyboardInterrupt

    job.progress = dies
    with pytest.raises(KeyboardInterrupt):
        geometry.run(job)
    assert [path.name for path in job.parts.iterdir()] == ["walk-0-2.safetensors"]
    job.progress = lambda *_: None
    assert geometry.run(job).figures == whole
    straight = Projection(
        model.config, model.energy_net, model.vae, images=320, repeats=2, lr_scale=0.03,
        particles=256,
    )  # fmt: skip
    for k in range(4):
        straight.iterate(measured=k % 2 == 1)
    assert whole["kl_data_model"] == [h.divergences.data_model for h in straight.halves]
    assert whole["kl_revised_model"] == [h.divergences.revised_model for h in straight.halves]


def test_an_infinite_divergence_is_said_as_none(model) -> None:
    halves = [
        geometry.HalfStep(k / 2, half, Divergences(0, math.inf, 1.0, 2.0 - k, 0.5, 0.0, 0.0))
        for k, half in enumerate(("start", "energy", "vae"))
    ]
    assert geometry.changes(halves, "model_sampler") == {"energy": -1.0, "vae": -1.0}
    assert geometry.changes(halves, "data_model") == {}
    far = [*halves, geometry.HalfStep(7.0, "vae", Divergences(0, 1.0, 1.0, 99.0, 0.5, 0.0, 0.0))]
    assert geometry.changes(far, "model_sampler")["vae"] == -1.0  # a gap is no half
    table = geometry.rows(halves)
    assert geometry.half_steps(table) == halves


def test_only_the_plane_has_this_geometry(model) -> None:
    assert geometry.fits(model) is None
    other = copy.copy(model)
    other.config = load_config(None, ["data.source=fashion_mnist"])
    assert "toy2d" in (geometry.fits(other) or "")
