"""A Ray cluster of four hosts for the session, whole again after each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.hosts.cluster import Cluster
from tests.hosts.job import Job
from tests.hosts.network import Network, missing

CONFIG = """\
data: {{source: arrays, root: {folder}/train.npy, shards: {folder}/shards, flip: true,
       shard_samples: 9, workers: 2, prepare_workers: 1}}
energy: {{net: modern, width: 4, depth: 1, spectral_norm: true, lr: 1e-3}}
vae: {{net: modern, width: 4, depth: 1, latent_dim: 4, dropout: 0.2, lr: 1e-3,
      head_start_images: 48}}
langevin: {{steps: 2, step_size: 0.1, clamp: 1.0}}
train: {{images: 2400, batch_size: 12, log_images: 60, sample_images: 1200, sample_count: 8,
        checkpoint_images: 120, ema_images: 100, precision: fp32, noise_per_sample: true}}
resources: {{workers: 2, threads: 1, cpus_per_worker: 1, start_timeout: 120}}
watch: {{tensorboard: false}}
"""


@pytest.fixture(scope="session")
def session_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    why = missing()
    if why:
        pytest.skip(why)
    with Network(tmp_path_factory.mktemp("hosts")) as network:
        yield Cluster(network, workers=3)


@pytest.fixture
def cluster(session_cluster: Cluster) -> Iterator[Cluster]:
    """A head and three hosts with a CPU each; whatever a test did to them is mended after it."""
    yield session_cluster
    session_cluster.mend()


@pytest.fixture(scope="session")
def job_config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """52 small images in shards, many epochs, dropout, mirrored, a head start; two workers."""
    folder = tmp_path_factory.mktemp("images")
    images = np.random.default_rng(0).integers(0, 256, (52, 28, 28), dtype=np.uint8)
    np.save(folder / "train.npy", images)
    path = folder / "job.yaml"
    path.write_text(CONFIG.format(folder=folder))
    return path


@pytest.fixture
def new_job(cluster: Cluster, job_config: Path) -> Callable[..., Job]:
    """``new_job(name, *settings)``: a run that can be submitted to the cluster."""
    return lambda name, *settings: Job(cluster, job_config, name, *settings)


@pytest.fixture(scope="session")
def calm(session_cluster: Cluster, job_config: Path) -> Job:
    """The run of two workers that nothing happens to."""
    job = Job(session_cluster, job_config, "calm")
    job.submit()
    job.wait_for_success()
    return job
