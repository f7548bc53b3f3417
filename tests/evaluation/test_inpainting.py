"""Inpainting: exact where the model is linear and Gaussian, honest everywhere."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
import torch
from PIL import Image
from torch import nn

from vmcmc_dist.config import load_config
from vmcmc_dist.data.masks import masks
from vmcmc_dist.errors import ConfigError
from vmcmc_dist.evaluation.inpainting import (
    Chain,
    LatentChain,
    Masked,
    clamped,
    iterate,
    latent,
    mean_fill,
    posterior_codes,
    posterior_energy,
    reconstruct,
    refine,
)
from vmcmc_dist.evaluation.quality import mse
from vmcmc_dist.evaluation.real import held_out
from vmcmc_dist.evaluation.tasks import inpainting as task
from vmcmc_dist.models import VAE, Condition
from vmcmc_dist.trained import Trained

SHAPE, D, SIGMA = (1, 12, 12), 3, 0.1


class Linear(nn.Module):
    """Encoder and decoder of x = A z + σε, with the exact posterior of a whole image."""

    def __init__(self, a: torch.Tensor, sigma: float) -> None:
        super().__init__()
        precision = torch.eye(D) + a.T @ a / sigma**2
        self.a, self.gain = a, torch.linalg.inv(precision) @ a.T / sigma**2
        self.logvar = torch.linalg.inv(precision).diagonal().log()

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        mu = x.flatten(1) @ self.gain.T
        return torch.cat([mu, self.logvar.expand_as(mu)], 1)

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return (z @ self.a.T).view(-1, *SHAPE)


class OffPlane(nn.Module):
    """U(x) = |x − P x|²/2s² with P the projection on the images A z: low on what g can make."""

    def __init__(self, a: torch.Tensor, s: float) -> None:
        super().__init__()
        self.q, self.s = torch.linalg.qr(a)[0], s

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.flatten(1)
        off = x - x @ self.q @ self.q.T
        return off.square().sum(1) / (2 * self.s**2)


class Call(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


@pytest.fixture(scope="module")
def linear() -> tuple[Trained, torch.Tensor]:
    torch.manual_seed(3)
    a = 0.15 * torch.randn(math.prod(SHAPE), D)
    config = load_config(None, [f"vae.sigma={SIGMA}", "train.precision=fp32"])
    config.langevin = dataclasses.replace(
        config.langevin, steps=400, step_size=1.0, temperature=0.0, clamp=None
    )
    parts = Linear(a, SIGMA)
    vae = VAE(Call(parts.encode), Call(parts.decode), D)
    return Trained(config, SHAPE, OffPlane(a, 1.0), vae), a


def world(model: Trained, kind: str = "left", n: int = 6) -> tuple[torch.Tensor, Masked]:
    x = model.propose(n, seed=5)
    return x, Masked.of(x, masks(kind, SHAPE, n))


def posterior(a: torch.Tensor, masked: Masked, row: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and covariance of p(z | x_visible), solved."""
    seen = (1 - masked.hidden[row]).flatten().bool()
    part = a[seen]
    covariance = torch.linalg.inv(torch.eye(D) + part.T @ part / SIGMA**2)
    return covariance @ part.T @ masked.visible[row].flatten()[seen] / SIGMA**2, covariance


def test_the_latent_way_finds_the_posterior_mode(linear) -> None:
    model, a = linear
    _, masked = world(model, "random")
    filled = latent(model, masked, LatentChain(steps=100, rounds=1, step_size=0.8))
    for row in range(len(filled)):
        z, _ = posterior(a, masked, row)
        expected = masked.paste((a @ z).view(1, *SHAPE))[row]
        torch.testing.assert_close(filled[row], expected, atol=1e-3, rtol=0)


def test_at_temperature_one_codes_have_the_posterior_law(linear) -> None:
    model, a = linear
    x = model.propose(1, seed=8).expand(1500, *SHAPE)
    masked = Masked.of(x, masks("bottom", SHAPE, 1).expand(1500, 1, 12, 12))
    mean, covariance = posterior(a, masked, 0)
    mu, logvar = model.encode(masked.visible)
    energy = posterior_energy(model.vae.decode, masked, SIGMA)
    config = LatentChain(steps=240, step_size=0.4, temperature=1.0)
    z = posterior_codes(energy, mu, (logvar / 2).exp(), config, seed=1)
    spread = covariance.diagonal().sqrt()
    assert ((z.mean(0) - mean).abs() < 0.1 * spread).all()
    torch.testing.assert_close(
        torch.cov(z.T), covariance, atol=0.15 * float(spread.max()) ** 2, rtol=0.15
    )


def test_the_clamped_chain_finds_what_the_visible_pixels_imply(linear) -> None:
    """U is least, given enough visible pixels, at the one image A z that agrees with them."""
    model, _ = linear
    x, masked = world(model, "left")
    proposal = reconstruct(model, masked)
    exact = clamped(model, masked, proposal, Chain())
    free = refine(model, masked, Chain())
    assert (mse(exact, x, masked.hidden) < 0.05 * mse(free, x, masked.hidden)).all()
    assert (mse(exact, x, masked.hidden) < 0.05 * mse(proposal, x, masked.hidden)).all()


@pytest.mark.parametrize("temperature", [0.0, 0.01])
def test_visible_pixels_are_kept_to_the_bit(linear, temperature) -> None:
    model, _ = linear
    x, masked = world(model, "random")
    chain = Chain(steps=5, temperature=temperature)
    codes = LatentChain(steps=3, temperature=temperature)
    for filled in (
        mean_fill(masked),
        reconstruct(model, masked),
        refine(model, masked, chain),
        iterate(model, masked, 2, chain),
        clamped(model, masked, reconstruct(model, masked), chain),
        latent(model, masked, codes),
    ):
        seen = (masked.hidden == 0).expand_as(x)
        assert torch.equal(filled[seen], x[seen])
        assert not torch.equal(filled[~seen], torch.zeros_like(filled[~seen]))


def test_the_truth_does_not_leak(linear) -> None:
    """Two images that agree where visible are filled alike."""
    model, _ = linear
    x, masked = world(model, "centre")
    other = Masked.of(torch.where(masked.hidden > 0, -x + 0.3, x), masked.hidden)
    chain = Chain(steps=5)
    for way in (
        lambda m: reconstruct(model, m),
        lambda m: iterate(model, m, 2, chain),
        lambda m: clamped(model, m, reconstruct(model, m), chain),
        lambda m: latent(model, m, LatentChain(steps=5)),
    ):
        assert torch.equal(way(masked), way(other))


def test_the_chain_of_each_round_has_its_own_noise(linear) -> None:
    model, _ = linear
    _, masked = world(model)
    seeds = []
    real_refine = model.refine
    try:
        model.refine = lambda x, **more: (seeds.append(more["seed"]), real_refine(x, **more))[1]
        iterate(model, masked, 3, Chain(steps=1))
    finally:
        del model.refine
    assert len(set(seeds)) == 3


def test_mean_fill_is_the_mean_of_the_visible() -> None:
    x = torch.arange(32.0).view(1, 2, 4, 4) / 16 - 1
    hidden = torch.zeros(1, 1, 4, 4)
    hidden[..., :2] = 1
    filled = mean_fill(Masked.of(x, hidden))
    for c in range(2):
        assert filled[0, c, 1, 1].item() == pytest.approx(x[0, c, :, 2:].mean().item())


def test_the_task_writes_pictures_and_finite_figures(small_model, job_of) -> None:
    job = job_of(
        small_model(), "inpainting", n=6, batch_size=4, masks=["left", "free_form"],
        latent_steps=2, rounds=2,
    )  # fmt: skip
    result = task.run(job)
    assert json.loads(json.dumps(result.figures)) == result.figures
    numbers = [v for v in result.figures.values() if isinstance(v, float)]
    assert all(math.isfinite(v) for v in numbers)
    assert result.figures["ways"] == task.ways(job.model) and len(result.figures["ways"]) == 7
    for way in result.figures["ways"]:
        both = [result.figures[f"psnr_{way}_{kind}"] for kind in ("left", "free_form")]
        assert result.figures[f"psnr_{way}"] == pytest.approx(sum(both) / 2)
    best = max(result.figures[f"psnr_{way}_left"] for way in task.THREE)
    expected = result.figures["psnr_latent_clamped_left"] - best
    assert result.figures["gain_left"] == pytest.approx(expected)
    assert [p.name for p in result.pictures] == ["psnr.png", "left.png", "free_form.png"]
    with Image.open(result.pictures[1]) as picture:
        assert picture.width > 9 * 84 and picture.height > 6 * 84


def test_an_interrupted_task_goes_on(small_model, job_of, monkeypatch) -> None:
    settings = dict(n=6, batch_size=3, masks=["centre"], latent_steps=1, rounds=1)
    whole = task.run(job := job_of(small_model(), "inpainting", **settings)).figures
    job.drop_parts()
    real_fill, calls = task.fill, []

    def killed_later(*arguments):
        calls.append(arguments[-1])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real_fill(*arguments)

    monkeypatch.setattr(task, "fill", killed_later)
    with pytest.raises(KeyboardInterrupt):
        task.run(job)
    assert task.run(job).figures == whole
    assert len(calls) == 3 and calls[1] == calls[2] != calls[0]


def test_conditional_models_are_filled_too(small_model, job_of) -> None:
    settings = dict(n=3, masks=["centre"], latent_steps=1, rounds=1)
    classes = small_model("condition.kind=class", condition=Condition("class", 4))
    figures = task.run(job_of(classes, "inpainting", **settings)).figures
    assert "conditional" not in figures["ways"]
    own = small_model("condition.kind=inpaint", condition=Condition("image", 2))
    figures = task.run(job_of(own, "inpainting", **settings)).figures
    assert figures["ways"][-1] == "conditional" and figures["psnr_conditional_centre"] > 0


def test_an_inpainting_model_is_told_the_mask_that_is_filled(small_model, job_of) -> None:
    """Not the one that held-out data come with, which may show what is hidden here."""
    own = small_model("condition.kind=inpaint", condition=Condition("image", 2))
    job = job_of(own, "inpainting", latent_steps=1, rounds=1)
    x, c = held_out(own, 3)
    hidden = masks("centre", own.shape, 3)
    other = torch.where(hidden > 0, -x, x)
    c_other = torch.cat([other * c[:, -1:], c[:, -1:]], 1)
    filled, again = task.fill(job, x, hidden, c, 0), task.fill(job, other, hidden, c_other, 0)
    assert list(filled) == task.ways(own)
    assert all(torch.equal(filled[way], again[way]) for way in filled)


def test_what_cannot_be_done_is_said(small_model, job_of) -> None:
    model = small_model()
    assert task.fits(model) is None
    with pytest.raises(ConfigError, match="no masks"):
        task.run(job_of(model, "inpainting", masks=[]))
    with pytest.raises(ConfigError, match="no mask 'hole'"):
        task.run(job_of(model, "inpainting", n=2, masks=["hole"]))
    model.config.condition.kind = "colour"
    assert "shows the hidden pixels" in task.fits(model)
    model.shape = (2,)
    assert "vectors" in task.fits(model)
