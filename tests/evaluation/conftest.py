"""A small data set of arrays, and jobs of tasks on small nets over it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vmcmc_dist.config import load_config
from vmcmc_dist.evaluation.job import Job
from vmcmc_dist.evaluation.tasks import task_module
from vmcmc_dist.models import Condition, build_energy, build_vae
from vmcmc_dist.trained import Trained

SMALL = [
    "energy.width=4", "energy.depth=1", "vae.width=4", "vae.depth=1", "vae.latent_dim=3",
    "langevin.steps=3", "langevin.step_size=0.1", "train.precision=fp32", "data.workers=0",
    "data.prepare_workers=1", "data.source=arrays",
]  # fmt: skip


def blobs(n: int, seed: int, size: int = 28, channels: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """A bright disc on a dark ground, somewhere: uint8 [n, size, size, channels]; quadrant [n]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    place = rng.uniform(0.25 * size, 0.75 * size, (n, 2))
    radius = rng.uniform(3, 6, n)[:, None, None]
    distance = np.hypot(y - place[:, :1, None], x - place[:, 1:, None])
    grey = 200 / (1 + np.exp(distance - radius)) + 20 + rng.normal(0, 4, distance.shape)
    labels = 2 * (place[:, 0] > size / 2) + (place[:, 1] > size / 2)
    images = np.repeat(grey.clip(0, 255).astype(np.uint8)[..., None], channels, axis=3)
    return images, labels.astype(np.int64)


@pytest.fixture(scope="session")
def blob_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of train.npy (200 images), test.npy (120) and their labels."""
    folder = tmp_path_factory.mktemp("blobs")
    for seed, (split, n) in enumerate({"train": 200, "test": 120}.items()):
        images, labels = blobs(n, seed)
        np.save(folder / f"{split}.npy", images)
        np.save(folder / f"{split}_labels.npy", labels)
    return folder


@pytest.fixture(scope="session")
def make_blobs() -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """More of them, of another seed."""
    return blobs


@pytest.fixture
def small_model(blob_data: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Trained]:
    """``small_model("condition.kind=class", condition=Condition("class", 4))``: random nets."""
    monkeypatch.setenv("VMCMC_CACHE", str(blob_data.with_name("cache")))

    def make(*settings: str, condition: Condition | None = None) -> Trained:
        config = load_config(None, [*SMALL, f"data.root={blob_data}", *settings])
        torch.manual_seed(0)
        shape = (1, 28, 28)
        energy = build_energy(config.energy, shape, condition)
        vae = build_vae(config.vae, shape, condition)
        return Trained(config, shape, energy, vae, condition=condition, images=640)

    return make


@pytest.fixture
def job_of(tmp_path: Path) -> Callable[..., Job]:
    """``job_of(model, "inpainting", n=4)``: a job in a fresh folder."""

    def make(model: Trained, task: str, **settings: Any) -> Job:
        folder = Path(tempfile.mkdtemp(prefix=task, dir=tmp_path))
        filled = task_module(task).Settings(**settings)
        return Job(model, folder, filled, {"task": task, **settings})

    return make
