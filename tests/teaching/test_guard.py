"""The guard: which regime, when it acts, and what it says."""

from __future__ import annotations

import math

import pytest

from vmcmc_dist.errors import DivergenceError
from vmcmc_dist.teaching.config import GuardConfig
from vmcmc_dist.teaching.guard import BALANCED, COLLAPSED, FLAT, RUNAWAY, Guard, ratios, regime

GOOD = {
    "gap": 0.5,
    "drop": 1.0,
    "energy_std": 0.5,
    "spread": 0.3,
    "spread_data": 0.4,
    "grad_rms": 0.01,
}


def record(**changes: float) -> dict[str, float]:
    return {**GOOD, **changes}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, BALANCED),
        ({"gap": 300.0}, RUNAWAY),
        ({"gap": -300.0}, RUNAWAY),
        ({"gap": 14.9}, BALANCED),
        ({"gap": 15.1}, RUNAWAY),
        ({"gap": 300.0, "energy_std": 40.0}, BALANCED),
        ({"gap": 300.0, "drop": -30.0}, BALANCED),
        ({"spread": 0.01}, COLLAPSED),
        ({"spread": 0.01, "gap": 300.0}, COLLAPSED),
        ({"gap": 0.2, "drop": 1e-9, "energy_std": 1e-9, "grad_rms": 1e-8}, FLAT),
    ],
)
def test_regime(changes: dict[str, float], expected: str) -> None:
    assert regime(record(**changes), GuardConfig()) == expected


def test_limits_are_settings() -> None:
    assert regime(record(gap=5.0), GuardConfig(gap_ratio=3.0)) == RUNAWAY
    assert regime(record(spread=0.1), GuardConfig(spread=0.26)) == COLLAPSED
    assert regime(record(spread=0.1), GuardConfig(spread=0.24)) == BALANCED


def test_ratios_are_what_they_say() -> None:
    figures = ratios(record(gap=-6.0, drop=-2.5))
    assert figures["gap_ratio"] == pytest.approx(2, rel=1e-4)
    assert figures["spread_ratio"] == pytest.approx(0.75, rel=1e-4)


def test_a_chain_that_moves_nothing_divides_by_no_zero() -> None:
    assert math.isfinite(ratios(record(drop=0.0, energy_std=0.0))["gap_ratio"])
    assert math.isfinite(ratios(record(spread_data=0.0))["spread_ratio"])


def test_patience_counts_intervals_in_a_row() -> None:
    guard = Guard(GuardConfig(patience=3, warmup_images=0))
    bad, good = record(gap=300.0), record()
    for figures in (bad, bad, good, bad, bad):
        guard.observe(figures, 1000)
    assert guard.bad == 2
    with pytest.raises(DivergenceError, match="energy runs away.*3 log intervals"):
        guard.observe(bad, 1000)


def test_nothing_counts_before_the_warm_up_is_over() -> None:
    guard = Guard(GuardConfig(patience=1, warmup_images=500))
    guard.observe(record(gap=300.0), 499)
    assert guard.bad == 0
    with pytest.raises(DivergenceError):
        guard.observe(record(gap=300.0), 500)


@pytest.mark.parametrize(
    ("changes", "advice"),
    [
        ({"gap": 300.0}, "lower energy.lr"),
        ({"spread": 0.01}, "lower vae.sigma"),
        ({"drop": 0.0, "energy_std": 0.0, "grad_rms": 0.0}, "lower energy.penalty"),
    ],
)
def test_each_regime_comes_with_its_advice(changes: dict[str, float], advice: str) -> None:
    guard = Guard(GuardConfig(patience=1, warmup_images=0))
    with pytest.raises(DivergenceError, match=advice):
        guard.observe(record(**changes), 7)


def test_none_counts_nothing_but_still_looks_for_nan() -> None:
    guard = Guard(GuardConfig(action="none", patience=1, warmup_images=0))
    guard.observe(record(gap=1e9), 10**6)
    with pytest.raises(DivergenceError, match="not finite after 1,000,000 images: gap"):
        guard.check_finite(record(gap=float("nan")), 10**6)


def test_every_value_that_is_not_finite_is_named() -> None:
    with pytest.raises(DivergenceError, match="drop, grad_rms"):
        Guard(GuardConfig()).check_finite(record(drop=math.inf, grad_rms=-math.inf), 1)


def test_state_goes_there_and_back() -> None:
    guard = Guard(GuardConfig(warmup_images=0), rollbacks=2)
    guard.observe(record(spread=0.0), 1)
    other = Guard(GuardConfig())
    other.load(guard.state())
    assert (other.bad, other.rollbacks) == (1, 2)
