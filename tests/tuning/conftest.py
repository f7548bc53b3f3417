"""Sweeps of a plane of Gaussians with small nets: a trial is a second or less."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.tuning.sweep_command import Command, ours
from vmcmc_dist.tuning.config import Sweep, load_sweep

CONFIG = """\
data: {source: toy2d, density: gaussians}
energy: {net: mlp, width: 24, depth: 2, lr: 1e-3}
vae: {net: mlp, width: 24, depth: 2, latent_dim: 2, sigma: 0.3, lr: 1e-3, data_weight: 0.5}
langevin: {steps: 5, step_size: 0.2}
train: {images: 1280, batch_size: 32, log_images: 320, sample_images: 640,
        checkpoint_images: 640, ema_images: 500, precision: fp32, keep: 2}
"""
SWEEP = """\
name: toy
config: small.yaml
space:
  langevin.step_size: {log: [0.1, 2.0]}
  energy.lr: {log: [1.0e-4, 1.0e-2]}
trials: 4
metric: kl_data_model
"""


@pytest.fixture
def sweep_file(tmp_path: Path) -> Path:
    (tmp_path / "small.yaml").write_text(CONFIG)
    path = tmp_path / "sweep.yaml"
    path.write_text(SWEEP)
    return path


@pytest.fixture
def make_sweep(sweep_file: Path) -> Callable[..., Sweep]:
    """A sweep of the file, with ``key=value`` and, if given, another space."""

    def make(*settings: str, space: dict[str, Any] | None = None) -> Sweep:
        sweep = load_sweep(sweep_file, [f"out={sweep_file.parent / 'runs'}", *settings])
        if space is not None:
            sweep.space = space
        return sweep

    return make


@pytest.fixture
def command(sweep_file: Path) -> Callable[[str], Command]:
    return lambda name: Command(sweep_file, name)


@pytest.fixture
def nothing_stays_behind() -> Iterator[None]:
    yield
    until = time.monotonic() + 20
    while left := [p for p in Path("/proc").iterdir() if p.name.isdigit() and ours(p)]:
        if time.monotonic() > until:
            raise AssertionError(f"processes of Ray are still there: {[p.name for p in left]}")
        time.sleep(0.2)
