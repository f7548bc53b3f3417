"""Every divergence against a closed form on Gaussians."""

from __future__ import annotations

import math

import pytest
import torch

from vmcmc_dist.errors import ConfigError, DivergenceError
from vmcmc_dist.evaluation.quadrature import (
    Grid,
    decode_means,
    kl,
    latent_points,
    log_z,
    measure,
    model_log_density,
    particle_kl,
    particle_log_density,
    revised_particles,
    sampler_log_density,
    with_reference,
)
from vmcmc_dist.langevin import LangevinConfig

GRID = Grid(extent=6.0, n=200)


def energy_of(mean, std):
    mean, std = torch.tensor(mean), torch.tensor(std)
    return lambda x: (((x - mean.to(x)) / std.to(x)) ** 2).sum(1) / 2


def gaussian_kl(mean_p, std_p, mean_q, std_q) -> float:
    total = 0.0
    for mp, sp, mq, sq in zip(mean_p, std_p, mean_q, std_q, strict=True):
        total += math.log(sq / sp) + (sp**2 + (mp - mq) ** 2) / (2 * sq**2) - 0.5
    return total


def log_density(mean, std):
    return model_log_density(energy_of(mean, std), GRID)


def test_log_z_of_a_gaussian_and_of_its_product_with_the_reference():
    energy = energy_of([0.5, -1.0], [0.8, 0.3])
    assert log_z(energy, GRID) == pytest.approx(math.log(2 * math.pi * 0.8 * 0.3), abs=1e-5)
    centred = energy_of([0.0, 0.0], [0.8, 0.3])
    expected = sum(0.5 * math.log(2 * math.pi / (1 / s**2 + 1 / 4)) for s in (0.8, 0.3))
    assert log_z(with_reference(centred, 2.0), GRID) == pytest.approx(expected, abs=1e-5)


def test_kl_of_gaussians_in_both_directions():
    p, q = ([0.0, 0.5], [0.5, 0.7]), ([0.4, 0.0], [0.8, 0.6])
    forward = kl(log_density(*p), log_density(*q), GRID)
    backward = kl(log_density(*q), log_density(*p), GRID)
    assert forward == pytest.approx(gaussian_kl(*p, *q), abs=1e-4)
    assert backward == pytest.approx(gaussian_kl(*q, *p), abs=1e-4)


def test_kl_ignores_where_p_is_zero_and_is_infinite_where_q_is():
    x = GRID.axis
    half = torch.where(x[:, None] > 0, 0.0, -math.inf).expand(GRID.n, GRID.n)
    everywhere = torch.zeros(GRID.n, GRID.n)
    assert kl(half, everywhere, GRID) == pytest.approx(math.log(2), abs=1e-12)
    assert kl(everywhere, half, GRID) == math.inf


def test_rows_are_the_first_coordinate():
    density = GRID.evaluate(lambda x: x[:, 0])
    torch.testing.assert_close(density[:, 7], GRID.axis, rtol=0, atol=1e-6)


def test_an_energy_that_is_not_finite_is_named():
    with pytest.raises(DivergenceError, match="not finite"):
        model_log_density(lambda x: x[:, 0] / 0, GRID)


@pytest.mark.parametrize("std", [0.06, 0.1, 0.4])
def test_one_particle_is_the_gaussian_around_it(std):
    place = torch.tensor([[0.313, -1.207]])
    mixture = particle_log_density(place, std, GRID)
    assert GRID.integral(mixture) == pytest.approx(0, abs=1e-6)
    p = mixture.exp() * GRID.cell**2
    mean = torch.stack([(p.sum(1) * GRID.axis).sum(), (p.sum(0) * GRID.axis).sum()])
    torch.testing.assert_close(mean, place[0].double(), rtol=0, atol=1e-6)
    if std >= 0.1:
        exact = model_log_density(energy_of(place[0].tolist(), [std, std]), GRID)
        assert kl(exact, mixture, GRID) < 0.002


def test_many_particles_have_the_variance_of_particles_plus_kernel():
    means = latent_points(2**14, 2) * torch.tensor([0.3, 1.0]) + torch.tensor([0.5, 0.0])
    mixture = particle_log_density(means, 0.05, GRID)
    p = mixture.exp() * GRID.cell**2
    variance = [
        (p.sum(1 - k) * GRID.axis**2).sum() - (p.sum(1 - k) * GRID.axis).sum() ** 2 for k in (0, 1)
    ]
    assert variance[0].item() == pytest.approx(0.3**2 + 0.05**2, rel=1e-3)
    assert variance[1].item() == pytest.approx(1.0 + 0.05**2, rel=1e-3)


def test_the_mixture_keeps_its_tails():
    mixture = particle_log_density(torch.zeros(1, 2), 0.3, GRID)
    far, near = mixture[150, 100], mixture[100, 100]
    gap = (GRID.axis[150] ** 2 - GRID.axis[100] ** 2) / (2 * (0.09 - GRID.cell**2 / 6))
    assert (near - far).item() == pytest.approx(gap.item(), rel=2e-2)
    assert near - far > 50


def test_particles_off_the_grid_are_lost_from_the_mass():
    means = torch.tensor([[0.0, 0.0], [50.0, 0.0]])
    assert GRID.integral(particle_log_density(means, 0.2, GRID)) == pytest.approx(math.log(0.5))


def test_a_kernel_narrower_than_the_cells_is_refused():
    with pytest.raises(ConfigError, match="raise Grid.n to 900"):
        particle_log_density(torch.zeros(1, 2), 0.01, GRID)


def test_linear_decoder_gives_its_gaussian():
    scale = torch.tensor([0.4, 0.9])
    means = decode_means(lambda z: z * scale + 0.3, 2, n=2**16)
    log_p = sampler_log_density(means, 0.2, GRID)
    exact = log_density([0.3, 0.3], [math.hypot(0.4, 0.2), math.hypot(0.9, 0.2)])
    assert kl(exact, log_p, GRID) < 0.003 and kl(log_p, exact, GRID) < 0.003


CHAIN = LangevinConfig(steps=6, step_size=0.4, temperature=1.0)


def chain_law(start_mean, start_std, energy_std, config):
    """Mean and std of one coordinate after the unadjusted chain on a centred Gaussian energy."""
    mean, variance = start_mean, start_std**2
    for _ in range(config.steps):
        keep = 1 - config.step_size**2 / 2 * (1 / energy_std**2)
        mean, variance = keep * mean, keep**2 * variance + config.step_size**2 * config.temperature
    return mean, math.sqrt(variance)


@pytest.mark.parametrize("temperature", [1.0, 0.25])
def test_revised_density_is_the_chains_gaussian(temperature):
    config = LangevinConfig(steps=6, step_size=0.4, temperature=temperature)
    starts = latent_points(2**14, 2) * 0.3 + 1.0
    means, width, exact = revised_particles(energy_of([0.0, 0.0], [0.7, 0.7]), starts, config, GRID)
    assert exact and width == pytest.approx(0.4 * math.sqrt(temperature))
    mean, std = chain_law(1.0, 0.3, 0.7, config)
    law = log_density([mean] * 2, [std] * 2)
    assert kl(particle_log_density(means, width, GRID), law, GRID) < 0.01
    assert particle_kl(means, width, law, GRID) < 0.002


def test_cold_and_adjusted_chains_say_their_smoothing():
    starts = latent_points(2**14, 2) * 0.5
    energy = energy_of([0.0, 0.0], [0.7, 0.7])
    cold = LangevinConfig(steps=3, step_size=0.4, temperature=0.0)
    means, width, exact = revised_particles(energy, starts, cold, GRID)
    assert not exact and width == GRID.cell
    std = math.hypot(chain_law(0.0, 0.5, 0.7, cold)[1], width)
    assert particle_kl(means, width, log_density([0.0, 0.0], [std, std]), GRID) < 0.01

    adjusted = LangevinConfig(steps=30, step_size=0.7, adjusted=True)
    means, width, exact = revised_particles(energy, starts, adjusted, GRID)
    assert not exact and width == GRID.cell
    law = log_density([0.0, 0.0], [math.hypot(0.7, width)] * 2)
    assert particle_kl(means, width, law, GRID) < 0.01
    clamped = LangevinConfig(steps=3, step_size=0.4, clamp=1.0)
    assert not revised_particles(energy, starts, clamped, GRID)[2]


def test_extrapolation_takes_off_the_bias_of_few_particles():
    few = torch.randn(2000, 2, generator=torch.Generator().manual_seed(0)) * 0.7
    law = log_density([0.0, 0.0], [math.hypot(0.7, 0.1)] * 2)
    plain = kl(particle_log_density(few, 0.1, GRID), law, GRID)
    assert plain > 0.02
    assert particle_kl(few, 0.1, law, GRID) < 0.4 * plain


def test_all_divergences_of_one_gaussian_world():
    data, model = ([0.0, 0.0], [0.6, 0.6]), ([0.0, 0.0], [0.7, 0.7])
    scale, sigma = 0.3, 0.25
    log_norm = math.log(2 * math.pi * 0.36)
    config = LangevinConfig(steps=2, step_size=0.4, reference_std=2.0)
    net_std = 1 / math.sqrt(1 / 0.49 - 1 / 4)  # with the reference: std 0.7
    result, logs = measure(
        lambda x: -energy_of(*data)(x) - log_norm,
        energy_of([0.0, 0.0], [net_std, net_std]),
        lambda z: scale * z,
        2,
        sigma,
        config,
        images=640,
        grid=GRID,
        particles=2**13,
    )
    sampler = ([0.0, 0.0], [math.hypot(scale, sigma)] * 2)
    _, revised_std = chain_law(0.0, scale, 0.7, config)
    revised = ([0.0, 0.0], [revised_std] * 2)
    assert result.images == 640 and result.smoothing == 0.0
    assert result.data_model == pytest.approx(gaussian_kl(*data, *model), abs=0.001)
    assert result.data_sampler == pytest.approx(gaussian_kl(*data, *sampler), abs=0.01)
    assert result.model_sampler == pytest.approx(gaussian_kl(*model, *sampler), abs=0.01)
    assert result.revised_model == pytest.approx(gaussian_kl(*revised, *model), abs=0.01)
    assert result.log_z == pytest.approx(math.log(2 * math.pi * 0.49), abs=1e-4)
    assert sorted(logs) == ["data", "model", "revised", "sampler"]
