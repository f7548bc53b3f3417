"""The refinement task: lengths, levels, strips, and going on after a kill."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import nn

from vmcmc_dist.errors import ConfigError, DataError
from vmcmc_dist.evaluation.features import Features
from vmcmc_dist.evaluation.metrics import MomentSums, frechet_distance
from vmcmc_dist.evaluation.real import held_out, real_images
from vmcmc_dist.evaluation.tasks import refinement
from vmcmc_dist.models import Condition


def quarters(pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Means of the four quarters as features, and as logits of four classes."""
    phi = nn.functional.adaptive_avg_pool2d(pixels.float() / 255, 2).mean(1).flatten(1)
    return phi, 10 * phi


@pytest.fixture(autouse=True)
def few_features(monkeypatch: pytest.MonkeyPatch) -> Features:
    features = Features("quarters", 4, 4, "0" * 64, quarters)
    monkeypatch.setattr(refinement, "features_for", lambda *_, **__: features)
    return features


class ToBlack(nn.Module):
    """U = |x + 1|²/2: a chain darkens whatever it starts from."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x + 1).square().flatten(1).sum(1) / 2


SETTINGS = {"n": 12, "multiples": [1, 2, 4], "batch_size": 5, "shown": 3}


def test_figures_and_pictures(small_model, job_of, few_features) -> None:
    model = small_model("langevin.step_size=0.3")
    job = job_of(model, "refinement", **SETTINGS)
    result = refinement.run(job)
    figures = result.figures
    assert figures["lengths"] == [0, 3, 6, 12]
    for name in ("fd_quarters", "energy", "energy_std", "spread"):
        assert len(figures[name]) == 4 and all(map(math.isfinite, figures[name]))
    json.dumps(figures, allow_nan=False)
    assert all(path.stat().st_size > 5000 for path in result.pictures)
    assert [path.name for path in result.pictures] == ["strip.png", "long_strip.png", "lengths.png"]


def test_levels_are_the_distances_they_stand_for(small_model, job_of, few_features) -> None:
    model = small_model()
    job = job_of(model, "refinement", **SETTINGS)
    figures = refinement.run(job).figures
    train = real_images(model.config.data, "train").images
    real = held_out(model, 12)[0]

    def moments(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        sums = MomentSums.empty(4)
        sums.add(few_features(x)[0])
        return sums.moments()

    expected = frechet_distance(*moments(real), *moments(train))
    assert figures["fd_quarters_held_out"] == pytest.approx(expected, rel=1e-9)
    assert figures["energy_data"] == pytest.approx(model.energy(real).mean().item(), rel=1e-5)
    proposals = refinement.long_chains(job, [0, 3], None, 12)[0]
    assert figures["fd_quarters"][0] == pytest.approx(
        frechet_distance(*moments(proposals), *moments(train)), rel=1e-9
    )


def test_a_landscape_that_ruins_the_sample_is_told(small_model, job_of) -> None:
    """The disc is on a ground of 20 of 255; all black is further from the data than a proposal."""
    model = small_model("langevin.step_size=0.4", "langevin.temperature=0")
    model.energy_net = model._chain_energy = ToBlack()
    model.vae.decoder = Discs()
    figures = refinement.run(job_of(model, "refinement", **SETTINGS | {"multiples": [30]})).figures
    assert not figures["kept"] and figures["best_length"] == 0
    assert figures["energy"][-1] < 0.01 * figures["energy"][0]
    assert figures["spread"][-1] < 0.1 * figures["spread"][0]


class Discs(nn.Module):
    """Proposals like the data: a bright square in one of four places."""

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        x = torch.full((len(z), 1, 28, 28), -0.85)
        for i, row in enumerate(z):
            y0, x0 = (4 + 10 * (v > 0).long().item() for v in row[:2])
            x[i, :, y0 : y0 + 7, x0 : x0 + 7] = 0.6
        return x


def test_an_interrupted_run_ends_as_an_uninterrupted_one(small_model, job_of) -> None:
    model = small_model("langevin.step_size=0.3", "langevin.temperature=0.01")
    whole = refinement.run(job_of(model, "refinement", **SETTINGS)).figures
    job = job_of(model, "refinement", **SETTINGS)
    calls = 0

    def dies(what: str, done: int, total: int) -> None:
        nonlocal calls
        calls += what == "long chains"
        if calls == 6:
            raise KeyboardInterrupt

    job.progress = dies
    with pytest.raises(KeyboardInterrupt):
        refinement.run(job)
    done = {path.name: path.stat().st_mtime_ns for path in job.parts.glob("chains-*")}
    assert len(done) == 5
    assert refinement.run(job).figures == whole
    assert all((job.parts / name).stat().st_mtime_ns == then for name, then in done.items())


def test_class_conditional_chains_keep_their_classes(small_model, job_of) -> None:
    model = small_model("condition.kind=class", condition=Condition("class", 4))
    figures = refinement.run(job_of(model, "refinement", **SETTINGS)).figures
    assert figures["n"] == 12 and len(figures["energy"]) == 4


def test_what_cannot_be_done_is_refused(small_model, job_of) -> None:
    job = job_of(small_model(), "refinement", **SETTINGS | {"n": 7})
    with pytest.raises(DataError, match="at least 8 samples"):
        refinement.run(job)
    job = job_of(small_model("langevin.steps=0"), "refinement", **SETTINGS)
    with pytest.raises(ConfigError, match="nothing to refine"):
        refinement.run(job)
    job = job_of(small_model("langevin.schedule=cosine"), "refinement", **SETTINGS, steps=2)
    with pytest.raises(ConfigError, match="give 3 or more"):
        refinement.chain_lengths(job)
    model = small_model()
    job = job_of(model, "refinement", **SETTINGS, steps=2)
    assert refinement.chain_lengths(job) == [0, 2, 3, 6, 12]
    assert refinement.fits(model) is None
    model.shape = (2,)
    assert "geometry" in (refinement.fits(model) or "")
