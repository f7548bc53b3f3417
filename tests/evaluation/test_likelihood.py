"""The likelihood task: against quadrature on the plane, against 8 bits on images; resumed parts."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from vmcmc_dist.config import load_config
from vmcmc_dist.errors import ConfigError
from vmcmc_dist.evaluation import ais_parts
from vmcmc_dist.evaluation.ais_parts import grid_samples
from vmcmc_dist.evaluation.job import Job
from vmcmc_dist.evaluation.quadrature import Grid
from vmcmc_dist.evaluation.tasks import likelihood
from vmcmc_dist.langevin import Noise
from vmcmc_dist.models import Condition, build_energy, build_vae
from vmcmc_dist.trained import Trained

LEVELS = dict(levels=100, n=50)
FEW = dict(levels=10, chains=4, burn=2, longer=2, n=20, importance=3)
ModelOf, JobOf = Callable[..., Trained], Callable[..., Job]


def plane(*settings: str) -> Trained:
    """Random nets on the plane with a Gaussian reference."""
    config = load_config(
        None,
        ["data.source=toy2d", "data.density=rings", "energy.net=mlp", "energy.width=16",
         "energy.depth=2", "vae.net=mlp", "vae.width=8", "vae.depth=1", "vae.latent_dim=2",
         "langevin.reference_std=1.5", "langevin.temperature=0.5", *settings],
    )  # fmt: skip
    torch.manual_seed(0)
    energy = build_energy(config.energy, (2,))
    with torch.no_grad():
        for name, weight in energy.named_parameters():
            if name.startswith("head"):
                weight.mul_(6)
    return Trained(config, (2,), energy, build_vae(config.vae, (2,)))


def flat(small_model: ModelOf, *settings: str) -> Trained:
    """An image model with U = 0 on the box [−1, 1]^784."""
    model = small_model("langevin.clamp=1.0", "langevin.temperature=0.01", *settings)
    with torch.no_grad():
        for weight in model.energy_net.parameters():
            weight.zero_()
    return model


@pytest.fixture
def short_pilot(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pilot that costs little where its quality does not matter."""
    monkeypatch.setattr(ais_parts, "KNOTS", 6)


def test_the_plane_against_quadrature(job_of: JobOf) -> None:
    job = job_of(plane(), "likelihood", chains=1024, **LEVELS)
    result = likelihood.run(job)
    figures = result.figures
    json.dumps(figures, allow_nan=False)
    truth = figures["log_z_quadrature"]
    assert abs(figures["log_z_error"]) < 0.05
    assert figures["log_z_error"] == figures["log_z_ais"] - truth
    assert figures["log_z_lower"] < truth + 3 * figures["log_z_lower_se"]
    assert figures["log_z_upper"] > truth - 3 * figures["log_z_upper_se"]
    assert 0 < figures["log_z_gap"] < 0.3
    assert figures["temperature"] == 0.5
    assert figures["levels_curve"] == [10, 30, 100]
    gaps = [u - v for u, v in zip(figures["upper_curve"], figures["lower_curve"], strict=True)]
    assert gaps[0] > gaps[2]
    assert figures["log_p_lower"] == -figures["test_energy"] - figures["log_z_upper"]
    assert figures["log_p_lower"] < figures["log_p_upper"] < figures["log_p_data"]
    assert figures["vae_elbo"] <= figures["vae_iwae"] + 0.1
    assert [p.name for p in result.pictures] == ["likelihood.png"]
    assert result.pictures[0].stat().st_size > 10_000


@pytest.mark.usefixtures("short_pilot")
def test_a_flat_energy_has_eight_bits(small_model: ModelOf, job_of: JobOf) -> None:
    result = likelihood.run(job_of(flat(small_model), "likelihood", **FEW))
    figures = result.figures
    assert "only as good as the samples" in result.note
    assert figures["start"] == "uniform"
    for name in ("log_z_ais", "log_z_lower", "log_z_upper"):
        assert figures[name] == pytest.approx(784 * math.log(2), rel=1e-5)
    assert figures["bpd_lower"] == pytest.approx(8, abs=1e-4)
    assert figures["bpd_upper"] == pytest.approx(8, abs=1e-4)
    assert figures["best_temperature_bpd_lower"] == pytest.approx(8, abs=1e-4)
    expected = -figures["vae_elbo"] / (784 * math.log(2)) + 7
    assert figures["bpd_vae_elbo"] == pytest.approx(expected)
    assert figures["n"] == 20


@pytest.mark.usefixtures("short_pilot")
def test_what_is_doubtful_is_said(small_model: ModelOf, job_of: JobOf) -> None:
    free = small_model("langevin.temperature=0")
    note = likelihood.run(job_of(free, "likelihood", **FEW)).note
    for words in ("nats apart", "dequantised", "T = 1 was taken", "Z may be infinite"):
        assert words in note


class Stopped(Exception):
    """The kill."""


@pytest.mark.usefixtures("short_pilot")
def test_an_interrupted_task_goes_on_and_ends_the_same(
    small_model: ModelOf, job_of: JobOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small_model("langevin.clamp=1.0")
    settings = FEW | dict(chains=5, batch_size=3, levels=20)
    monkeypatch.setattr(ais_parts, "SEGMENT", 7)
    calls: list[Tensor] = []
    plain = ais_parts.anneal

    def counted(*args, **options):
        calls.append(args[1])
        return plain(*args, **options)

    monkeypatch.setattr(ais_parts, "anneal", counted)
    whole = likelihood.run(job_of(model, "likelihood", **settings))
    in_whole = len(calls)

    job = job_of(model, "likelihood", **settings)
    seen: list[tuple[int, int]] = []

    def kill(what: str, done: int, total: int) -> None:
        if what == "annealing":
            seen.append((done, total))
            if done >= 0.7 * total:
                raise Stopped

    with pytest.raises(Stopped):
        likelihood.run(replace(job, progress=kill))
    before = len(calls) - in_whole
    assert seen == sorted(seen) and seen[-1][1] == 6 + 2 * (2 * (2 + 6 + 20) + 2)
    again = likelihood.run(job)
    assert len(calls) - in_whole - before == in_whole - before + 1  # the torn part alone anew
    assert again.figures == whole.figures
    assert again.note == whole.note


def test_what_cannot_be_done_is_said(small_model: ModelOf, job_of: JobOf) -> None:
    told = small_model("condition.kind=class", condition=Condition("class", 4))
    assert "every condition" in (likelihood.fits(told) or "")
    narrow = small_model("langevin.clamp=0.5")
    assert "outside the box" in (likelihood.fits(narrow) or "")
    assert likelihood.fits(small_model("langevin.clamp=1.0")) is None
    with pytest.raises(ConfigError, match="above 0"):
        likelihood.run(job_of(plane(), "likelihood", temperature=0.0))
    with pytest.raises(ConfigError, match="needs a box"):
        likelihood.run(job_of(plane(), "likelihood", start="uniform"))


def test_pixels_are_spread_over_the_whole_box() -> None:
    levels = torch.arange(256).repeat(200, 1).float()
    x = likelihood.dequantised(levels / 127.5 - 1, Noise(0))
    assert x.min() >= -1 and x.max() <= 1
    assert torch.equal(((x + 1) * 128).floor().clamp_max(255), levels)
    assert ((x + 1) * 128 - levels).mean() == pytest.approx(0.5, abs=0.01)
    # a density that is even on one level's cell of width 1/128 in each of D dimensions: 0 bits
    assert likelihood.bits_per_dim(10 * math.log(128), 10) == pytest.approx(0)
    assert likelihood.bits_per_dim(-10 * math.log(2), 10) == pytest.approx(8)


def test_samples_of_a_grid_have_the_densitys_moments() -> None:
    mean, std = torch.tensor([0.5, -1.0]), torch.tensor([0.8, 0.4])
    x = grid_samples(
        lambda x: ((x - mean) / std).square().sum(1) / 2, Grid(6.0, 240), 40_000, Noise(0)
    )
    torch.testing.assert_close(x.mean(0), mean, atol=0.015, rtol=0)
    torch.testing.assert_close(x.std(0), std, atol=0.01, rtol=0)


@pytest.mark.parametrize(
    ("gap", "error", "holds"),
    [(3.0, 1.0, True), (-0.01, 0.005, True), (-0.04, 0.005, False), (-11_510.0, 4_980.0, False)],
)
def test_bounds_that_cross_by_more_than_chance_are_none(
    gap: float, error: float, holds: bool
) -> None:
    found = {"log_z_gap": gap, "log_z_upper_se": error / 2, "log_z_lower_se": error / 2}
    assert likelihood.upper_holds(found) == holds
