"""``vmcmc train`` as the user runs it: another process, a terminal of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.engine.ray_head import Desk, Head
from vmcmc_dist.engine.checkpoint import CheckpointFolder
from vmcmc_dist.engine.run_folder import RunFolder, complete_lines

CONFIG = """\
data: {source: toy2d, density: gaussians}
energy: {net: mlp, width: 24, depth: 2, lr: 1e-3}
vae: {net: mlp, width: 24, depth: 2, latent_dim: 2, sigma: 0.3, lr: 1e-3, data_weight: 0.5}
langevin: {steps: 5, step_size: 0.2}
train: {images: 19200, batch_size: 32, log_images: 640, sample_images: 12800,
        checkpoint_images: 960, ema_images: 500, precision: fp32, keep: 2}
resources: {threads: 1}
watch: {tensorboard: false}
launcher: local
"""


class Run:
    """One run folder and the command that trains it."""

    def __init__(self, config: Path, name: str, *settings: str):
        self.config, self.settings = config, [f"name={name}", f"out={config.parent}", *settings]
        self.folder = RunFolder(config.parent / name)
        self.checkpoints = CheckpointFolder(self.folder.checkpoints)

    def command(self, *more: str) -> list[str]:
        return [
            sys.executable, "-m", "vmcmc_dist", "train", str(self.config), *self.settings, *more
        ]  # fmt: skip

    def start(self, *more: str, launcher: Sequence[str] = (), **options: Any) -> subprocess.Popen:
        """The process, leader of a process group as a shell would make it."""
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
        environment = {k: v for k, v in os.environ.items() if k not in names}
        words = self.command(*more)
        return subprocess.Popen(
            [*launcher, *words[1:]] if launcher else words,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env=environment | {"OMP_NUM_THREADS": "1"},
            **options,
        )

    def __call__(self, *more: str, timeout: float = 240, **options: Any) -> tuple[int, str, str]:
        """(exit status, stdout, stderr) of the command run to its end."""
        return ended(self.start(*more, **options), timeout)

    def wait_for_checkpoint(self, process: subprocess.Popen, after: int = 0) -> None:
        """Until there is a checkpoint past ``after`` images."""
        until = time.monotonic() + 100
        while time.monotonic() < until and process.poll() is None:
            if any(int(path.name) > after for path in self.checkpoints.all()):
                return
            time.sleep(0.01)
        if process.poll() is None:
            process.kill()
        raise AssertionError(f"no checkpoint: {process.communicate()}")

    def metrics(self) -> list[dict[str, Any]]:
        """The records, without the entries that depend on the clock."""
        records = complete_lines(self.folder.metrics)
        for record in records:
            record.pop("time", None)
        return records


def ended(process: subprocess.Popen, timeout: float = 240) -> tuple[int, str, str]:
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise AssertionError(f"still running after {timeout} s: {process.communicate()}") from None
    return process.returncode, out, err


@pytest.fixture(scope="session")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plane of Gaussians, small nets, a few seconds."""
    path = tmp_path_factory.mktemp("runs") / "small.yaml"
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope="session")
def whole(config: Path) -> Run:
    """The uninterrupted run that others are held against."""
    run = Run(config, "whole")
    status, out, err = run()
    assert status == 0, out + err
    return run


@pytest.fixture(scope="session")
def image_config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """52 small images in shards, several epochs, dropout, mirrored, a head start."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    np.save(folder / "train.npy", rng.integers(0, 256, (52, 28, 28), dtype=np.uint8))
    path = folder / "images.yaml"
    path.write_text(
        f"data: {{source: arrays, root: {folder}/train.npy, shards: {folder}/shards, flip: true,\n"
        "       shard_samples: 9, workers: 2, prepare_workers: 1}\n"
        "energy: {net: modern, width: 4, depth: 1, spectral_norm: true, lr: 1e-3}\n"
        "vae: {net: modern, width: 4, depth: 1, latent_dim: 4, dropout: 0.2, lr: 1e-3,\n"
        "      head_start_images: 48}\n"
        "langevin: {steps: 2, step_size: 0.1, clamp: 1.0}\n"
        "train: {images: 960, batch_size: 8, log_images: 24, sample_images: 480, sample_count: 8,\n"
        "        checkpoint_images: 40, ema_images: 100, precision: fp32}\n"
        "resources: {threads: 1}\n"
        "launcher: local\n"
    )
    return path


@pytest.fixture(scope="session")
def new_run() -> Callable[..., Run]:
    return Run


@pytest.fixture(scope="session")
def run_to_the_end() -> Iterator[Callable[..., tuple[int, str, str]]]:
    yield ended


@pytest.fixture(scope="session")
def cluster_head() -> Iterator[Head]:
    """A Ray head that asks for a token, for all tests of jobs."""
    head = Head()
    yield head
    head.close()


@pytest.fixture
def desk(cluster_head: Head, tmp_path: Path) -> Desk:
    """A working directory to submit from."""
    return Desk(tmp_path, cluster_head)


def read_state(path: Path) -> dict[str, Any]:
    return json.loads((path / "state.json").read_text())
