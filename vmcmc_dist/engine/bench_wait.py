"""The share of a training step that waits for data, as the run's own metrics say it."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from vmcmc_dist.bench.clock import this_machine, torch_threads
from vmcmc_dist.config import Config, load_config
from vmcmc_dist.data.open import ensure_prepared
from vmcmc_dist.engine.context import Restart, WorkerContext
from vmcmc_dist.engine.resources import resolve
from vmcmc_dist.engine.run_folder import RunFolder
from vmcmc_dist.engine.trainer import Trainer
from vmcmc_dist.engine.worker import join_alone

TARGET = 0.01
IMAGES = 10_000
MODES = (("streamed", 0), ("resident", 1024))
"""Name, and data.cache_mb."""


@dataclass(frozen=True)
class WaitRow:
    """One way of reading: ``data_wait`` in [0, 1] of metrics.jsonl, and seconds of a step."""

    reading: str
    data_wait: float
    step_s: float


@dataclass(frozen=True)
class WaitBench:
    """Both ways. ``str()`` is a markdown table."""

    machine: str
    batch: int
    steps: int
    iterations: int
    data: str
    rows: list[WaitRow]

    def __str__(self) -> str:
        lines = [
            f"{self.machine}; MNIST reference nets, fp32, batch {self.batch}, T = {self.steps}, "
            f"{self.iterations} iterations; {self.data}",
            "",
            "| data | step | of it waiting for data |",
            "|---|---:|---:|",
        ]
        for r in self.rows:
            lines.append(
                f"| {r.reading} | {r.step_s:.2f} s | {r.data_wait:.2%} (target {TARGET:.0%}) |"
            )
        return "\n".join(lines)


def bench_wait(
    *,
    batch: int = 400,
    steps: int = 50,
    iterations: int = 3,
    threads: int = 1,
    width: int = 64,
    root: str | None = None,
    source: str = "mnist",
) -> WaitBench:
    """Train the reference's MNIST nets for some iterations and read ``data_wait`` off the run.

    The real trainer, in this process; an interval of one iteration to warm up comes before. Data:
    ``root`` as ``data.source``, else random 28x28 images. Reading with every sample decoded anew
    from the shards, and with the decoded samples kept in memory.
    """
    rows = []
    with tempfile.TemporaryDirectory(prefix="vmcmc-wait-") as name, torch_threads(threads):
        folder = Path(name)
        if root is None:
            source, root = "arrays", _random_images(folder)
            data = f"{IMAGES:,} random 28x28 images"
        else:
            data = f"{source} of {root}"
        join_alone()
        for reading, cache_mb in MODES:
            config = _config(folder, reading, source, root, cache_mb, batch, steps, width, threads)
            rows.append(_run(reading, resolve(config), iterations))
        machine = str(this_machine(torch.device("cpu")))
    return WaitBench(machine, batch, steps, iterations, data, rows)


def _random_images(folder: Path) -> str:
    pixels = np.random.default_rng(0).integers(0, 256, (IMAGES, 28, 28, 1), dtype=np.uint8)
    np.save(folder / "images.npy", pixels)
    return str(folder / "images.npy")


def _run(reading: str, config: Config, iterations: int) -> WaitRow:
    folder = RunFolder.of(config)
    folder.create()
    context = WorkerContext(0, 1, torch.device("cpu"))
    trainer = Trainer(config, context, ensure_prepared(config.data), Restart())
    try:
        for number in (1, iterations):
            for _ in range(number):
                trainer.meter.add(trainer.iterate())
            trainer.log()
    finally:
        trainer.close()
    last = json.loads(folder.metrics.read_text().splitlines()[-1])
    figures = last["time"]
    return WaitRow(
        reading, figures["data_wait"], config.train.batch_size / figures["images_per_second"]
    )


def _config(
    folder: Path,
    name: str,
    source: str,
    root: str,
    cache_mb: int,
    batch: int,
    steps: int,
    width: int,
    threads: int,
) -> Config:
    """The reference's nets and chain; neither speed nor waiting depends on the pixels."""
    return load_config(
        None,
        [
            f"name={name}",
            f"out={folder}",
            "launcher=local",
            f"data.source={source}",
            f"data.root={root}",
            f"data.shards={folder / 'shards'}",
            f"data.cache_mb={cache_mb}",
            "data.prepare_workers=1",
            "energy.net=reference",
            f"energy.width={width}",
            "vae.net=reference",
            f"vae.width={width}",
            "vae.latent_dim=100",
            f"langevin.steps={steps}",
            "langevin.step_size=0.001",
            f"train.batch_size={batch}",
            "train.precision=fp32",
            "watch.tensorboard=false",
            f"resources.threads={threads}",
            "resources.device=cpu",
        ],
    )
