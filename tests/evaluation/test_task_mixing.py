"""The mixing task: acceptance of a known case, jumps between known modes, overlaps, refusals."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from vmcmc_dist.config import load_config
from vmcmc_dist.evaluation.features import Features
from vmcmc_dist.evaluation.histograms import common_edges, overlap, shares
from vmcmc_dist.evaluation.modes import Jumps
from vmcmc_dist.evaluation.tasks import mixing
from vmcmc_dist.langevin import LangevinConfig
from vmcmc_dist.models import build_energy, build_vae
from vmcmc_dist.trained import Trained


class Gaussian(nn.Module):
    """U = |x|²/2."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.square().flatten(1).sum(1) / 2


def plane(*settings: str) -> Trained:
    """A small model of toy2d."""
    small = [
        "data.source=toy2d", "energy.net=mlp", "vae.net=mlp", "energy.width=8", "vae.width=8",
        "vae.latent_dim=2", "langevin.steps=4", "langevin.step_size=0.3", "train.precision=fp32",
    ]  # fmt: skip
    config = load_config(None, [*small, *settings])
    torch.manual_seed(0)
    return Trained(
        config, (2,), build_energy(config.energy, (2,)), build_vae(config.vae, (2,)), images=64
    )


def gaussian_acceptance(delta: float) -> float:
    """E α of MALA on N(0, 1) in one dimension, by quadrature over x and ε.

    y = (1 − δ²/2) x + δ ε;  log α = −(δ²/8)(y² − x²) (Roberts and Rosenthal 1998, §3).
    """
    x, eps = np.meshgrid(np.linspace(-7, 7, 1401), np.linspace(-7, 7, 1401))
    y = (1 - delta**2 / 2) * x + delta * eps
    alpha = np.exp(np.minimum(0, -(delta**2) / 8 * (y**2 - x**2)))
    weight = np.exp(-(x**2 + eps**2) / 2)
    return float((alpha * weight).sum() / weight.sum())


@pytest.mark.parametrize("delta", [0.8, 1.8])
def test_acceptance_on_a_gaussian_is_the_known_one(delta: float) -> None:
    model = plane()
    model.energy_net = Gaussian()
    model.shape = (1,)
    starts = torch.randn(20_000, 1, generator=torch.Generator().manual_seed(1))
    config = LangevinConfig(steps=3, step_size=delta, adjusted=True)
    found = mixing.acceptance(model, starts, config, None, seed=0)
    assert found.shape == (3,)
    assert found.tolist() == pytest.approx([gaussian_acceptance(delta)] * 3, abs=0.012)


def test_a_gaussian_mixes_and_its_chains_say_so(job_of) -> None:
    """Overdamped Langevin on N(0, 1): the state is AR(1) with φ = 1 − δ²/2."""
    model = plane("langevin.step_size=0.6")
    model.energy_net = model._chain_energy = Gaussian()
    job = job_of(model, "mixing", n=100, multiple=200, burn_in=0.1, batch_size=50)
    figures = mixing.run(job).figures
    tau = (2 - 0.18) / 0.18
    for name in ("tau_mean", "tau_within_mean", "tau_projection_0"):
        assert figures[name] == pytest.approx(tau, rel=0.12), name
    assert figures["ess_mean"] == pytest.approx(figures["draws"] / tau, rel=0.12)
    assert figures["draws"] == 100 * 720
    assert 0.9 < figures["acceptance"] <= 1
    assert "mode_jumps" not in figures
    json.dumps(figures, allow_nan=False)


def test_jumps_of_chains_whose_classes_are_given() -> None:
    start = torch.eye(3)[[0, 0, 1, 2]] * 20
    end = torch.eye(3)[[0, 1, 1, 1]] * 20
    jumps = Jumps.of(start, end)
    assert jumps.counts.tolist() == [[1, 1, 0], [0, 1, 0], [0, 1, 0]]
    assert jumps.share == 0.5
    assert jumps.transition()[0].tolist() == [0.5, 0.5, 0]
    assert jumps.confidence_end == pytest.approx(1.0, abs=1e-6)


def test_overlap_of_two_uniforms_is_the_shared_length() -> None:
    a, b = torch.linspace(0, 1, 100_001), torch.linspace(0.75, 1.75, 100_001)
    assert overlap(a, b, bins=70) == pytest.approx(0.25, abs=1e-3)
    assert overlap(a, a + 5) == 0
    assert overlap(a, a.flip(0)) == pytest.approx(1)
    assert overlap(torch.ones(5), torch.ones(3)) == 1
    edges = common_edges({"a": a, "b": b}, bins=7)
    assert len(edges) == 8 and shares(b, edges).sum() == pytest.approx(1)


class Flip(nn.Module):
    """U pulls every image to black."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x + 1).square().flatten(1).sum(1) / 2


def bright(pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    mean = pixels.float().mean((1, 2, 3))
    return mean[:, None], torch.stack([50 - mean, mean - 50], 1)


def test_images_that_all_turn_black_all_jump(small_model, job_of, monkeypatch) -> None:
    features = Features("bright", 1, 2, "none", bright)
    monkeypatch.setattr(mixing, "features_for", lambda *_, **__: features)
    model = small_model("langevin.step_size=0.5", "langevin.clamp=1", "langevin.temperature=1e-4")
    model.energy_net = model._chain_energy = Flip()
    result = mixing.run(job_of(model, "mixing", n=9, multiple=20, batch_size=4))
    figures = result.figures
    assert figures["transition"] == [[0, 0], [9, 0]] and figures["mode_jumps"] == 1.0
    assert figures["mode_jumps_trained"] == 0.0
    assert figures["acceptance"] < 1e-3 + figures["acceptance_unclamped"]
    assert figures["overlap_proposals_long_chains"] == 0
    assert {"overlap_held_out_samples", "overlap_samples_training"} <= figures.keys()
    assert [path.name for path in result.pictures] == [
        "autocorrelation.png", "energies.png", "transitions.png",
    ]  # fmt: skip
    assert all(path.stat().st_size > 5000 for path in result.pictures)
    assert "clamps" in result.note


def test_chains_without_noise_have_no_acceptance(job_of) -> None:
    result = mixing.run(job_of(plane("langevin.temperature=0"), "mixing", n=4, multiple=5))
    assert not any(name.startswith("acceptance") for name in result.figures)
    assert "temperature 0" in result.note
    assert all(math.isfinite(v) for v in result.figures.values() if isinstance(v, float))


def test_short_chains_are_made_long_enough(job_of) -> None:
    job = job_of(plane(), "mixing", n=4, multiple=1)
    assert mixing.chain_length(job) * (1 - job.settings.burn_in) >= 8
    assert math.isfinite(mixing.run(job).figures["tau_energy"])
    assert mixing.chain_length(job_of(plane(), "mixing", steps=33)) == 33
