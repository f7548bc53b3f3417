"""Versions here and there: which differences a run can live with."""

from __future__ import annotations

import ray
import torch

from vmcmc_dist.engine.versions import Versions, differences, disagreements, versions_here

MINE = Versions(
    "3.11.9",
    {"ray": "2.60.0", "torch": "2.13.0+cpu", "numpy": "2.4.6"},
    ("numpy>=2", "ray[default,train,tune]>=2.60", "torch>=2.11"),
)


def there(python: str = "3.11.2", **packages: str | None) -> Versions:
    found = {**MINE.packages, **packages}
    return Versions(python, {k: v for k, v in found.items() if v}, MINE.requires)


def test_what_may_differ() -> None:
    other = there(torch="2.12.1+cu130", numpy="2.3.0")
    assert disagreements(MINE, other, "the node") == []
    assert differences(MINE, other) == [
        "torch 2.12.1+cu130 (submitted with 2.13.0+cpu)", "numpy 2.3.0 (submitted with 2.4.6)",
    ]  # fmt: skip
    assert differences(MINE, there(torch="2.13.0+cu130")) == []


def test_what_may_not() -> None:
    found = disagreements(MINE, there("3.12.1", ray="2.59.0", torch="2.4.0", numpy=None), "node b")
    assert len(found) == 4
    python, numpy, ray_, torch_ = found
    assert "node b runs Python 3.12.1, not 3.11" in python and "Python 3.11" in python
    assert "node b lacks the package numpy (numpy>=2): install numpy==2.4.6" in numpy
    assert "ray 2.59.0 installed, not 2.60.0" in ray_ and "ray==2.60.0" in ray_
    assert "torch 2.4.0, vmcmc_dist needs torch>=2.11: install torch==2.13.0 " in torch_


def test_of_this_process_and_through_an_environment() -> None:
    mine = versions_here(("torch", "ray"))
    assert mine.packages["torch"] == torch.__version__ and mine.packages["ray"] == ray.__version__
    assert Versions.from_json(mine.to_json()) == mine
    assert disagreements(mine, mine, "here") == []
