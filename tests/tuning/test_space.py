"""Dials: what they draw, what a grid holds, and what is refused at the door."""

from __future__ import annotations

import random

import pytest

from vmcmc_dist.config import Config, override
from vmcmc_dist.errors import ConfigError
from vmcmc_dist.tuning.config import Sweep
from vmcmc_dist.tuning.space import Dial, check_grid, check_values, dials, read

SPECS = [
    {"log": [0.5, 4.0]},
    {"uniform": [0.0, 0.2]},
    {"int": [4, 32]},
    {"int": [4, 32], "log": True},
    {"choice": [0.3, 0.6, 1.0]},
]


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_draws_fill_the_range_and_stay_in_it(spec: dict) -> None:
    dial, rng = read("langevin.steps", spec), random.Random(0)
    drawn = [dial.draw(rng) for _ in range(4000)]
    low, high = dial.ends()[0], dial.ends()[-1]
    assert low <= min(drawn) and max(drawn) <= high
    for end in (low, high):
        near = abs(end) * 0.02 + (high - low) * 0.02
        assert any(abs(value - end) <= near for value in drawn)
    assert all(dial.fit(value) == value for value in drawn)


def test_log_is_uniform_in_the_logarithm_and_int_in_the_number() -> None:
    rng = random.Random(0)
    log = [read("a", {"log": [0.01, 1.0]}).draw(rng) for _ in range(4000)]
    assert 0.46 < sum(v < 0.1 for v in log) / 4000 < 0.54
    whole = [read("a", {"int": [1, 4]}).draw(rng) for _ in range(4000)]
    assert all(900 < whole.count(k) < 1100 for k in (1, 2, 3, 4))


def test_a_grid_has_both_ends() -> None:
    assert read("a", {"log": [0.01, 1.0]}).grid(3) == [0.01, 0.1, 1.0]
    assert read("a", {"uniform": [0.0, 1.0]}).grid(5) == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert read("a", {"int": [4, 6]}).grid(5) == [4, 5, 6]
    assert read("a", {"int": [0, 100]}).grid(3) == [0, 50, 100]
    assert read("a", {"choice": ["x", None]}).grid(9) == ["x", None]


def test_a_value_out_of_range_is_brought_back() -> None:
    dial = Dial("a", 4, 32, whole=True)
    assert [dial.fit(v) for v in (1, 4.4, 99)] == [4, 4, 32]
    assert isinstance(dial.fit(4.4), int)


@pytest.mark.parametrize(
    "spec, word",
    [
        ([1, 2], "must be"),
        ({"log": [1, 2], "uniform": [1, 2]}, "must be"),
        ({"normal": [0, 1]}, "must be"),
        ({"log": [0.0, 1.0]}, "start above 0"),
        ({"uniform": [1.0, 1.0]}, "low < high"),
        ({"uniform": [0, float("inf")]}, "finite"),
        ({"int": [1.5, 4]}, "must be"),
        ({"uniform": [1]}, "must be"),
        ({"choice": []}, "must be"),
    ],
    ids=str,
)
def test_what_is_no_range_is_refused(spec: object, word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        read("langevin.steps", spec)


@pytest.mark.parametrize(
    "key, words",
    [
        ("langevin.step_sise", "langevin.step_size"),
        ("vae.step_size", "langevin.step_size"),
        ("nonsense", "--help"),
        ("resources.workers", "set workers"),
        ("name", "set name"),
        ("preset", "presets are chosen"),
        ("langevin", "is no key"),
    ],
)
def test_a_key_that_is_not_there_or_not_to_be_turned(key: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        dials({key: {"uniform": [0.1, 0.2]}}, Config())


def test_a_key_of_whole_numbers_wants_int() -> None:
    with pytest.raises(ConfigError, match="whole numbers"):
        dials({"langevin.steps": {"uniform": [4, 32]}}, Config())


@pytest.mark.parametrize(
    "key, spec, word",
    [
        ("energy.penalty", {"uniform": [-0.1, 0.2]}, "≥ 0"),
        ("energy.beta1", {"uniform": [0.5, 1.0]}, "< 1"),
        ("energy.net", {"choice": ["modern", "mopdern"]}, "mopdern"),
        ("langevin.steps", {"choice": [4, "many"]}, "many"),
        ("train.batch_size", {"choice": [64, 0]}, "≥ 1"),
    ],
)
def test_every_end_must_make_a_config(key: str, spec: dict, word: str) -> None:
    base = Config()
    with pytest.raises(ConfigError, match=word) as found:
        check_values(dials({key: spec}, base), base)
    assert key in str(found.value)


def test_values_that_are_fine_alone_are_tried_together() -> None:
    base = override(Config(), {"train.accumulation": 1, "train.batch_size": 60})
    space = {"train.batch_size": {"choice": [60, 64]}, "train.accumulation": {"choice": [1, 4, 3]}}
    both = override(base, {"train.batch_size": 60, "train.accumulation": 3})
    assert both.train.accumulation == 3
    with pytest.raises(ConfigError, match="multiple of 3"):  # 64 cannot be split by 3
        check_values(dials(space, base), base)


def test_a_grid_of_too_many_points_says_how_many() -> None:
    space = {
        "langevin.step_size": {"log": [0.5, 4.0]},
        "langevin.steps": {"int": [4, 32]},
        "energy.net": {"choice": ["modern", "mlp"]},
    }
    found = dials(space, Config())
    check_grid(found, Sweep(trials=50, points=5))
    with pytest.raises(ConfigError, match="50 points.*trials=49"):
        check_grid(found, Sweep(trials=49, points=5))
