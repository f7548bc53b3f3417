"""Autocorrelation time and sample size of processes whose values are known."""

from __future__ import annotations

import pytest
import torch

from vmcmc_dist.errors import DataError
from vmcmc_dist.evaluation.autocorrelation import (
    autocorrelation,
    autocovariance,
    effective_sample_size,
    integrated_time,
)


def ar1(phi: float, chains: int, length: int, seed: int = 0) -> torch.Tensor:
    """x_t = φ x_{t−1} + √(1 − φ²) ε, begun in its stationary law N(0, 1): ρ_t = φᵗ."""
    rng = torch.Generator().manual_seed(seed)
    eps = torch.randn(length, chains, generator=rng, dtype=torch.float64)
    states = [eps[0]]
    for e in eps[1:]:
        states.append(phi * states[-1] + (1 - phi**2) ** 0.5 * e)
    return torch.stack(states, 1)


def test_autocovariance_is_the_sum_it_stands_for() -> None:
    x = ar1(0.7, 3, 50)
    centred = x - x.mean(1, keepdim=True)
    for lag in (0, 1, 7, 49):
        expected = (centred[:, : 50 - lag] * centred[:, lag:]).sum(1) / 50
        torch.testing.assert_close(autocovariance(x)[:, lag], expected)


@pytest.mark.parametrize("phi", [0.0, 0.5, 0.9, -0.4])
def test_an_ar1_process_has_the_time_it_was_given(phi: float) -> None:
    series = ar1(phi, 64, 4000)
    rho = autocorrelation(series)
    expected = torch.tensor([phi**t for t in range(10)], dtype=torch.float64)
    torch.testing.assert_close(rho[:10], expected, rtol=0, atol=0.02)
    tau = (1 + phi) / (1 - phi)
    assert integrated_time(rho) == pytest.approx(tau, rel=0.06)
    assert effective_sample_size(series) == pytest.approx(64 * 4000 / tau, rel=0.06)


def test_a_single_chain_works_too() -> None:
    assert integrated_time(autocorrelation(ar1(0.8, 1, 60_000))) == pytest.approx(9, rel=0.12)


def test_chains_that_stay_in_their_own_modes_count_once_each() -> None:
    """Fast inside a mode, never between: 10 chains are about 10 draws, not 10 × 1000."""
    series = 0.1 * ar1(0.0, 10, 1000) + torch.arange(10.0).double()[:, None]
    assert effective_sample_size(series) < 20
    assert effective_sample_size(ar1(0.0, 10, 1000)) > 8000


def test_a_chain_that_never_moves_is_one_draw() -> None:
    assert effective_sample_size(torch.full((4, 100), 3.0)) == pytest.approx(4)


def test_the_estimate_does_not_depend_on_place_and_scale() -> None:
    series = ar1(0.6, 8, 500)
    same = effective_sample_size(1e3 * series - 5e4)
    assert same == pytest.approx(effective_sample_size(series), rel=1e-6)


def test_too_short_or_broken_chains_are_refused() -> None:
    with pytest.raises(DataError, match="8 steps"):
        autocorrelation(torch.zeros(3, 7))
    with pytest.raises(DataError, match="not finite"):
        autocorrelation(torch.full((3, 20), float("inf")))
