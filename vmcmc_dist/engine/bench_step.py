"""One training step through Ray Train and DeepSpeed, against the same step in a bare loop."""

from __future__ import annotations

import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vmcmc_dist.bench.clock import this_machine, torch_threads
from vmcmc_dist.config import Config, config_from_dict, load_config, to_dict
from vmcmc_dist.data.manifest import Manifest
from vmcmc_dist.data.open import ensure_prepared
from vmcmc_dist.engine.context import Restart, WorkerContext
from vmcmc_dist.engine.ray_launch import RayRun
from vmcmc_dist.engine.resources import resolve
from vmcmc_dist.engine.run_folder import RunFolder
from vmcmc_dist.engine.terminal import Terminal
from vmcmc_dist.engine.trainer import Trainer
from vmcmc_dist.engine.worker import join_alone
from vmcmc_dist.models import VAE, build_energy, build_vae

TARGET = 1.05


@dataclass
class StepBench:
    """Medians in milliseconds of CPU time (process time over threads) and of wall time."""

    machine: str
    launcher: str
    batch: int
    steps: int
    rounds: int
    ours_ms: float
    bare_ms: float
    ours_wall_ms: float
    bare_wall_ms: float

    @property
    def ratio(self) -> float:
        return self.ours_ms / self.bare_ms

    def table(self) -> str:
        """Markdown."""
        through = f"{self.launcher} + DeepSpeed"
        return "\n".join(
            [
                f"{self.machine}; MNIST reference nets, fp32, batch {self.batch}, "
                f"T = {self.steps}, one worker, {self.rounds} interleaved rounds, medians",
                "",
                "| step | CPU ms | wall ms | × bare |",
                "|---|---:|---:|---:|",
                f"| bare PyTorch loop | {self.bare_ms:.1f} | {self.bare_wall_ms:.1f} | 1 |",
                f"| {through} | {self.ours_ms:.1f} | {self.ours_wall_ms:.1f} "
                f"| {self.ratio:.3f} (target {TARGET}) |",
            ]
        )


class BareLoop:
    """The same iteration as it is usually written: plain modules, Adam, data in memory."""

    def __init__(self, config: Config, data: Tensor):
        torch.manual_seed(0)
        self.config, self.data = config, data
        shape = tuple(data.shape[1:])
        self.energy: nn.Module = build_energy(config.energy, shape)
        self.vae: VAE = build_vae(config.vae, shape)
        betas = (config.energy.beta1, config.energy.beta2)
        self.energy_adam = torch.optim.Adam(self.energy.parameters(), config.energy.lr, betas)
        self.vae_adam = torch.optim.Adam(self.vae.parameters(), config.vae.lr, betas)
        self.start = 0

    def step(self) -> None:
        config, n = self.config, self.config.train.batch_size
        data = self.data[self.start : self.start + n].float() / 127.5 - 1
        self.start = (self.start + n) % (len(self.data) - n)
        with torch.no_grad():
            x = self.vae.decode(torch.randn(n, self.vae.latent_dim))
        drift, noise = config.langevin.step_size**2 / 2, config.langevin.step_size
        for _ in range(config.langevin.steps):
            x = x.detach().requires_grad_(True)
            (grad,) = torch.autograd.grad(self.energy(x).sum(), x)
            x = x - drift * grad + noise * torch.randn_like(x)
        x = x.detach()
        loss = self.energy(data).mean() - self.energy(x).mean()
        self.energy_adam.zero_grad()
        loss.backward()
        self.energy_adam.step()
        out = self.vae(x, torch.randn(n, self.vae.latent_dim))
        kl = 0.5 * (out.logvar.exp() + out.mu**2 - 1 - out.logvar).sum(1).mean()
        loss = ((out.recon - x) ** 2).flatten(1).sum(1).mean() / (2 * config.vae.sigma**2) + kl
        self.vae_adam.zero_grad()
        loss.backward()
        self.vae_adam.step()


def bench_step(
    *, batch: int = 64, steps: int = 20, rounds: int = 10, threads: int = 1, launcher: str = "ray"
) -> StepBench:
    """Time both steps, interleaved, in one worker's process.

    Ours is the whole of :meth:`Trainer.iterate` with the stream, the meter and the guard's
    figures behind it; the bare loop has its data in memory and reports nothing.
    """
    with tempfile.TemporaryDirectory() as folder:
        config = resolve(_config(Path(folder), batch, steps, threads, launcher))
        manifest = ensure_prepared(config.data)
        RunFolder.of(config).create()
        body = _Body(rounds)
        if launcher == "ray":
            with Terminal(Path(folder) / "log.txt"):
                run = RayRun(config, body)
                try:
                    figures = run.run(manifest)
                finally:
                    run.close()
        else:
            join_alone()
            context = WorkerContext(0, 1, torch.device("cpu"))
            figures = body(to_dict(config), manifest, context, threads)
    with torch_threads(threads):
        machine = str(this_machine(torch.device("cpu")))
    name = "Ray Train" if launcher == "ray" else "local"
    return StepBench(machine, name, batch, steps, rounds, **figures)


@dataclass
class _Body:
    """What the worker runs instead of training."""

    rounds: int

    def __call__(
        self,
        values: dict[str, Any],
        manifest: Manifest,
        context: WorkerContext,
        threads: int,
    ) -> dict[str, float]:
        torch.set_num_threads(threads)
        config = config_from_dict(values)
        trainer = Trainer(config, context, manifest, Restart())
        data = torch.cat([next(trainer.batches).x for _ in range(4)])
        bare = BareLoop(config, data)

        def ours() -> None:
            trainer.meter.add(trainer.iterate())

        seconds: dict[str, list[tuple[float, float]]] = {"ours": [], "bare": []}
        for _ in range(self.rounds + 2):
            for name, step in (("ours", ours), ("bare", bare.step)):
                cpu, wall = time.process_time(), time.perf_counter()
                step()
                spent = (time.process_time() - cpu) / threads, time.perf_counter() - wall
                seconds[name].append(spent)
        trainer.close()
        figures: dict[str, float] = {}
        for name, values_ in seconds.items():
            for clock, suffix in ((0, "ms"), (1, "wall_ms")):
                median = statistics.median(v[clock] for v in values_[2:])  # two to warm up
                figures[f"{name}_{suffix}"] = 1000 * median
        return figures


def _config(folder: Path, batch: int, steps: int, threads: int, launcher: str) -> Config:
    """MNIST's shape and the reference's nets, on noise: speed does not depend on the pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, (8 * batch, 28, 28, 1), dtype=np.uint8)
    raw = folder / "raw"
    raw.mkdir()
    np.save(raw / "images.npy", pixels)
    return load_config(
        None,
        [
            "name=bench",
            f"out={folder}",
            f"launcher={launcher}",
            "data.source=arrays",
            f"data.root={raw / 'images.npy'}",
            f"data.shards={folder / 'shards'}",
            "energy.net=reference",
            "vae.net=reference",
            f"langevin.steps={steps}",
            "langevin.step_size=0.001",
            f"train.batch_size={batch}",
            "train.precision=fp32",
            "watch.tensorboard=false",
            f"resources.threads={threads}",
            "resources.device=cpu",
        ],
    )
