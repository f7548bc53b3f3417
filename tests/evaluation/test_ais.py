"""Annealing from both sides on densities whose log Z is known."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from vmcmc_dist.errors import DivergenceError
from vmcmc_dist.evaluation.ais import (
    Bridge,
    Estimate,
    anneal,
    estimate,
    explore,
    explore_down,
    schedule,
)
from vmcmc_dist.evaluation.ais_parts import grid_samples
from vmcmc_dist.evaluation.ais_start import GaussianStart, Start, UniformStart, fit_gaussian, fold
from vmcmc_dist.evaluation.quadrature import Grid, log_z, with_reference
from vmcmc_dist.langevin import Noise
from vmcmc_dist.models.mlp import MLPEnergy

Sampler = Callable[[int, Noise], Tensor]


class Case(NamedTuple):
    start: Start
    energy: Callable[[Tensor], Tensor]
    log_z: float
    sample: Sampler
    clamp: float | None = None


def gaussian(dim: int, temperature: float = 1.0) -> Case:
    """N(m, diag s²) of uneven widths, from a wider start elsewhere."""
    s, m = torch.linspace(0.4, 1.0, dim), torch.linspace(-1, 1, dim)
    truth = float(s.log().sum()) + dim / 2 * math.log(2 * math.pi * temperature)
    return Case(
        GaussianStart(torch.zeros(dim), torch.full((dim,), 1.5)),
        lambda x: ((x - m) / s).square().sum(1) / 2,
        truth,
        lambda n, noise: m + math.sqrt(temperature) * s * noise.normal((n, dim)),
    )


def mixture() -> Case:
    """Two modes of weights ¼ and ¾, 5 standard deviations apart, times e³."""
    centres, log_weights = torch.tensor([[-1.5, 0.0], [1.5, 0.0]]), torch.tensor([0.25, 0.75]).log()
    std = 0.6

    def energy(x: Tensor) -> Tensor:
        square = (x[:, None] - centres).square().sum(2) / (2 * std**2)
        return -torch.logsumexp(log_weights - square, 1) + math.log(2 * math.pi * std**2) - 3

    def sample(n: int, noise: Noise) -> Tensor:
        mode = (noise.uniform((n,)) > 0.25).long()
        return centres[mode] + std * noise.normal((n, 2))

    return Case(GaussianStart(torch.zeros(2), torch.full((2,), 2.5)), energy, 3.0, sample)


def boxed(dim: int, uniform: bool) -> Case:
    """N(m, s²) cut to [−1, 1]^D, its mean beyond the wall in half of the dimensions."""
    m, s = torch.where(torch.arange(dim) % 2 == 0, 1.2, 0.3), 0.4
    normal = torch.distributions.Normal(0.0, 1.0)
    walls = [normal.cdf(((wall - m) / s).double()) for wall in (-1.0, 1.0)]
    truth = float((walls[1] - walls[0]).log().sum()) + dim * math.log(s * math.sqrt(2 * math.pi))

    def sample(n: int, noise: Noise) -> Tensor:
        level = walls[0] + (walls[1] - walls[0]) * noise.uniform((n, dim))
        return (m + s * normal.icdf(level)).float()

    start: Start = UniformStart((dim,), 1.0)
    if not uniform:
        start = GaussianStart(torch.zeros(dim), torch.full((dim,), 0.7), 1.0)
    return Case(start, lambda x: ((x - m) / s).square().sum(1) / 2, truth, sample, 1.0)


def both_ways(
    case: Case, levels: int, chains: int = 512, temperature: float = 1.0, **options: float
) -> tuple[Estimate, Estimate]:
    bridge = Bridge(case.start, case.energy, temperature, clamp=case.clamp, **options)
    betas, sizes = schedule(explore(bridge, 64, Noise(1)), levels)
    x = case.start.sample(chains, Noise(2))
    forward = anneal(bridge, betas, sizes, x, Noise(3))
    y = case.sample(chains, Noise(4))
    reverse = anneal(bridge, betas.flip(0), sizes.flip(0), y, Noise(5))
    assert 0.5 < forward.acceptance.mean() < 0.65
    assert 0.5 < reverse.acceptance.mean() < 0.65
    return estimate(forward.log_w), estimate(reverse.log_w)


def assert_around(truth: float, up: Estimate, down: Estimate, *, gap: float, error: float) -> None:
    """lower ≤ truth ≤ upper, at most ``gap`` apart, both estimates within ``error``."""
    assert up.mean <= truth + 3 * up.mean_se
    assert -down.mean >= truth - 3 * down.mean_se
    assert 0 < -down.mean - up.mean < gap
    assert abs(up.log_mean - truth) < min(error, 4 * up.log_mean_se)
    assert abs(-down.log_mean - truth) < min(error, 4 * down.log_mean_se)


@pytest.mark.parametrize(
    "dim, levels, gap, error", [(2, 120, 0.3, 0.06), (10, 200, 1.0, 0.15), (64, 400, 6.0, 1.5)]
)
def test_gaussians(dim: int, levels: int, gap: float, error: float) -> None:
    case = gaussian(dim)
    up, down = both_ways(case, levels)
    assert_around(case.log_z, up, down, gap=gap, error=error)


def test_more_levels_close_the_gap() -> None:
    gaps = [-down.mean - up.mean for up, down in (both_ways(gaussian(10), k) for k in (20, 200))]
    assert gaps[1] < 0.4 * gaps[0]


def test_temperature_divides_the_energy() -> None:
    case = gaussian(4, temperature=0.25)
    up, down = both_ways(case, 200, temperature=0.25)
    assert_around(case.log_z, up, down, gap=0.8, error=0.15)


def test_two_modes() -> None:
    case = mixture()
    up, down = both_ways(case, 200)
    assert_around(case.log_z, up, down, gap=0.3, error=0.08)


@pytest.mark.parametrize("uniform", [True, False])
def test_a_gaussian_cut_to_a_box(uniform: bool) -> None:
    case = boxed(10, uniform)
    up, down = both_ways(case, 250)
    assert_around(case.log_z, up, down, gap=0.9, error=0.15)


def test_an_energy_net_against_quadrature() -> None:
    torch.manual_seed(0)
    net = MLPEnergy((2,), width=32, depth=2).requires_grad_(False)

    def energy(x: Tensor) -> Tensor:
        return 15 * net(1.5 * x)

    grid = Grid(extent=8.0, n=400)
    truth = log_z(with_reference(energy, 1.0), grid)
    spread = Grid(3.0, 100).evaluate(energy).std()
    assert spread > 2  # far from a plain Gaussian
    case = Case(
        GaussianStart(torch.zeros(2), torch.full((2,), 2.0)),
        energy,
        truth,
        lambda n, noise: grid_samples(with_reference(energy, 1.0), grid, n, noise),
    )
    up, down = both_ways(case, 200, chains=2048, reference_std=1.0)
    assert_around(truth, up, down, gap=0.3, error=0.05)


@pytest.mark.parametrize("clamp", [None, 1.0])
@pytest.mark.parametrize("beta", [0.3, 1.0])
def test_the_steps_leave_the_path_invariant(beta: float, clamp: float | None) -> None:
    """From exact samples of p_β, 30 steps at β change no moment and no quantile."""
    start = GaussianStart(torch.zeros(3), torch.full((3,), 1.0), clamp)
    bridge = Bridge(start, lambda x: (x - 0.5).square().sum(1) / (2 * 0.3**2), clamp=clamp)
    precision = (1 - beta) + beta / 0.3**2
    mean = torch.full((3,), beta * 0.5 / 0.3**2 / precision)
    exact = GaussianStart(mean, torch.full((3,), precision**-0.5), clamp)
    x = exact.sample(20_000, Noise(1))
    steps = torch.full((31,), beta, dtype=torch.float64)
    y, log_w, _ = anneal(bridge, steps, 0.8 * precision**-0.5 * torch.ones(31), x, Noise(2))
    assert (log_w == 0).all()
    assert not torch.equal(x, y)
    levels = torch.linspace(0.02, 0.98, 25)
    fresh = exact.sample(20_000, Noise(3))
    density_like = 0.02 * precision**-0.5
    moved = torch.quantile(y.flatten(), levels) - torch.quantile(fresh.flatten(), levels)
    assert moved.abs().max() < 3 * density_like
    if clamp is not None:
        assert y.abs().max() <= clamp


def test_pieces_of_a_path_add_up() -> None:
    case = gaussian(3)
    bridge = Bridge(case.start, case.energy)
    betas, sizes = schedule(explore(bridge, 32, Noise(0)), 30)
    x = case.start.sample(16, Noise(1))
    whole = anneal(bridge, betas, sizes, x, Noise(2))
    noise = Noise(2)
    first = anneal(bridge, betas[:13], sizes[:13], x, noise)
    second = anneal(bridge, betas[12:], sizes[12:], first.x, noise)
    assert torch.equal(second.x, whole.x)
    torch.testing.assert_close(first.log_w + second.log_w, whole.log_w, rtol=0, atol=1e-9)


def test_chains_escape_from_steep_tails() -> None:
    """x⁴ is so steep at 30 that a plain drift would overshoot and never be accepted."""
    bridge = Bridge(GaussianStart(torch.zeros(2), torch.ones(2)), lambda x: x.pow(4).sum(1))
    ones = torch.ones(401, dtype=torch.float64)
    x, _, acceptance = anneal(bridge, ones, 0.5 * ones, torch.full((64, 2), 30.0), Noise(0))
    assert x.abs().max() < 3
    assert acceptance[-50:].mean() > 0.5


@pytest.mark.parametrize(
    "start",
    [
        GaussianStart(torch.tensor([0.3, -1.0]), torch.tensor([0.5, 0.8])),
        GaussianStart(torch.tensor([0.3, -1.0]), torch.tensor([0.5, 0.8]), 1.0),
        UniformStart((2,), 1.5),
    ],
    ids=["gaussian", "boxed", "uniform"],
)
def test_starts_are_normalised_and_sample_their_density(start: Start) -> None:
    clamp = getattr(start, "clamp", None)
    grid = Grid(extent=clamp or 8.0, n=600)
    assert log_z(lambda x: start.energy_and_grad(x)[0], grid) == pytest.approx(0, abs=1e-4)
    x = start.sample(40_000, Noise(0))
    cells = grid.evaluate(lambda x: -start.energy_and_grad(x)[0]).exp() * grid.cell**2
    mean = (cells.sum(1) * grid.axis).sum(), (cells.sum(0) * grid.axis).sum()
    square = (cells.sum(1) * grid.axis**2).sum(), (cells.sum(0) * grid.axis**2).sum()
    torch.testing.assert_close(x.mean(0).double(), torch.stack(mean), atol=0.02, rtol=0)
    torch.testing.assert_close(x.square().mean(0).double(), torch.stack(square), atol=0.03, rtol=0)
    at = x[:100].clone().requires_grad_(True)
    (expected,) = torch.autograd.grad((start.energy_and_grad(at)[0] + 0 * at.sum(1)).sum(), at)
    torch.testing.assert_close(start.energy_and_grad(x[:100])[1], expected)


def test_fold_is_the_identity_in_the_box_and_mirrors_at_its_walls() -> None:
    y = torch.tensor([[-0.9, 0.0, 0.7, 1.2, -1.3, 3.1, -3.4]])
    x, sign = fold(y, 1.0)
    expected = torch.tensor([[-0.9, 0.0, 0.7, 0.8, -0.7, -0.9, 0.6]])
    torch.testing.assert_close(x, expected, atol=1e-6, rtol=0)
    assert torch.equal(sign, torch.tensor([[1.0, 1, 1, -1, -1, 1, 1]]))
    assert fold(y, None)[0] is y


def test_schedules_rise_from_zero_to_one() -> None:
    case = gaussian(4)
    pilot = explore(Bridge(case.start, case.energy), 64, Noise(0))
    for spacing in ("adaptive", "sigmoid", "linear"):
        betas, sizes = schedule(pilot, 57, spacing)
        assert len(betas) == len(sizes) == 58
        assert betas[0] == 0 and betas[-1] == 1
        assert (betas.diff() > 0).all()
        assert (sizes > 0).all()
    assert schedule(pilot, 4, "linear")[0].tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert (schedule(pilot, 57, "adaptive")[0][:29] < 0.5).all()  # dense where the slope spreads
    assert pilot.step_sizes[-1] < pilot.step_sizes[1]


def test_step_sizes_from_above_are_those_from_below_where_chains_mix() -> None:
    case = gaussian(4)
    bridge = Bridge(case.start, case.energy)
    up = explore(bridge, 64, Noise(0))
    down = explore_down(bridge, up, case.sample(64, Noise(1)), Noise(2))
    assert torch.equal(down.betas, up.betas)
    ratio = (down.step_sizes / up.step_sizes)[10:]
    assert ((ratio > 0.7) & (ratio < 1.4)).all()
    assert not torch.equal(down.step_sizes, up.step_sizes)


def test_estimates_of_given_weights() -> None:
    same = estimate(torch.full((50,), 2.5))
    assert same == pytest.approx((2.5, 0, 2.5, 0, 50), abs=1e-6)
    one = torch.tensor([0.0, 0.0, 0.0, 100.0])
    assert estimate(one).log_mean == pytest.approx(100 - math.log(4))
    assert estimate(one).ess == pytest.approx(1)
    log_w = torch.randn(4000, generator=torch.Generator().manual_seed(0))
    found = estimate(log_w)
    assert found.mean_se == pytest.approx(1 / math.sqrt(4000), rel=0.05)
    assert found.log_mean == pytest.approx(0.5, abs=0.1)
    # delta method: sd(w)/(mean(w)·√n) of a log-normal is √((e − 1)/n)
    assert found.log_mean_se == pytest.approx(math.sqrt((math.e - 1) / 4000), rel=0.3)


def test_a_fitted_gaussian_has_a_floor() -> None:
    x = torch.stack([torch.zeros(100), torch.linspace(-1, 1, 100)], 1)
    start = fit_gaussian(x, widen=2.0, floor=0.1, clamp=None)
    assert start.std[0] == pytest.approx(0.1)
    assert start.std[1] == pytest.approx(2 * float(x[:, 1].std()))


@pytest.mark.parametrize("broken", [math.nan, -math.inf])
def test_an_energy_that_is_not_finite_is_an_error(broken: float) -> None:
    def energy(x: Tensor) -> Tensor:
        u = x.square().sum(1) / 2
        return torch.where(x[:, 0] > 1.5, u * 0 + broken, u)

    bridge = Bridge(GaussianStart(torch.zeros(2), torch.ones(2)), energy)
    betas = torch.linspace(0, 1, 20, dtype=torch.float64)
    with pytest.raises(DivergenceError, match="not finite"):
        anneal(bridge, betas, 0.5 * torch.ones(20), torch.randn(256, 2), Noise(0))
