"""Every file of configs/sweeps can be run: its keys, its metric, every corner of its space."""

from __future__ import annotations

from pathlib import Path

import pytest

from vmcmc_dist.tuning.config import load_sweep
from vmcmc_dist.tuning.sweep import check

FILES = sorted((Path(__file__).parents[2] / "configs" / "sweeps").glob("*.yaml"))
DIALS = {
    "langevin.step_size",
    "langevin.steps",
    "langevin.temperature",
    "energy.penalty",
    "energy.lr",
    "vae.kl_weight",
}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_is_a_sweep_that_can_run(path: Path, tmp_path: Path) -> None:
    sweep = load_sweep(path, [f"out={tmp_path}", "data.root=somewhere"])
    base, dials = check(sweep)
    assert Path(sweep.config).is_file() and base.preset != "auto"
    assert base.train.max_minutes == 0, "trials stop by images, on every machine alike"
    assert {dial.key for dial in dials} == set(sweep.space)


@pytest.mark.parametrize("name", ["fashion_mnist", "cifar10", "celeba"])
def test_the_six_dials_of_the_method(name: str, tmp_path: Path) -> None:
    path = next(path for path in FILES if path.stem == name)
    sweep = load_sweep(path, [f"out={tmp_path}"])
    assert set(sweep.space) == DIALS
    base, dials = check(sweep)
    for dial in dials:
        group, key = dial.key.split(".")
        default = getattr(getattr(base, group), key)
        assert dial.low < default < dial.high, f"{dial.key}: the preset's {default} is searched too"


def test_the_head_of_each_file_is_its_command() -> None:
    for path in FILES:
        command = path.read_text().splitlines()[0]
        assert command.startswith(f"# vmcmc tune configs/sweeps/{path.name}"), path
