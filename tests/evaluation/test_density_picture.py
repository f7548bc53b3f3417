"""The picture is written, shows what it was given, and refuses half of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from vmcmc_dist.errors import DataError
from vmcmc_dist.evaluation.density_picture import save_density_picture
from vmcmc_dist.evaluation.quadrature import Divergences, Grid, particle_log_density

GRID = Grid(n=80)


def record(images: int, value: float) -> Divergences:
    return Divergences(images, value, 2 * value, value / 2, value / 3, 0.0, 0.0)


def blob(x: float) -> torch.Tensor:
    return particle_log_density(torch.tensor([[x, 0.0]]), 0.5, GRID)


def drawn(path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def test_picture_shows_densities_and_traces(tmp_path):
    history = [record(1000 * k, 1 / (k + 1)) for k in range(10)]
    logs = {"data": blob(0.0), "model": blob(0.0), "sampler": blob(2.0)}
    first = drawn(save_density_picture(tmp_path / "new" / "a.png", logs, history, grid=GRID))
    assert first.shape[0] > 600 and first.shape[1] > 1000
    moved = logs | {"model": blob(-2.0)}
    second = drawn(save_density_picture(tmp_path / "b.png", moved, history, grid=GRID))
    assert (np.abs(first - second).sum(2) > 100)[: first.shape[0] // 2].sum() > 500
    worse = [*(record(1000 * k, 5.0) for k in range(9)), history[-1]]
    third = drawn(save_density_picture(tmp_path / "c.png", logs, worse, grid=GRID))
    assert (np.abs(first - third).sum(2) > 100)[first.shape[0] // 2 :].sum() > 500


def test_a_hard_edged_density_can_be_drawn(tmp_path):
    edged = blob(0.0)
    edged[:40] = -torch.inf
    logs = {"data": edged, "model": blob(0.0), "sampler": blob(0.0)}
    assert save_density_picture(tmp_path / "a.png", logs, [record(0, 0.0)], grid=GRID).is_file()


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(DataError, match="needs sampler"):
        save_density_picture(
            tmp_path / "a.png", {"data": blob(0), "model": blob(0)}, [record(0, 1)]
        )
    with pytest.raises(DataError, match="records"):
        save_density_picture(
            tmp_path / "a.png", {k: blob(0) for k in ("data", "model", "sampler")}, []
        )
