"""Weak and strong scaling on this machine's cores, and the share of a step that workers talk."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from vmcmc_dist.bench.clock import this_machine, torch_threads
from vmcmc_dist.bench.scaling_model import Link, fit_link
from vmcmc_dist.config import Config, config_from_dict, load_config, to_dict
from vmcmc_dist.data.open import ensure_prepared
from vmcmc_dist.engine.resources import resolve
from vmcmc_dist.engine.scaling_group import SWEEP, Group, cores
from vmcmc_dist.engine.scaling_table import (
    APART,
    KINDS,
    OVERLAPPED,
    Cell,
    ScalingBench,
    cell,
    parameters_of,
)
from vmcmc_dist.engine.scaling_worker import Steps
from vmcmc_dist.engine.terminal import Terminal
from vmcmc_dist.errors import ConfigError


def bench_scaling(
    config: str | None = None,
    settings: Sequence[str] = (),
    *,
    workers: Sequence[int] = (1, 2, 4),
    stages: Sequence[int] = (0, 1, 2, 3),
    steps: int = 3,
    rounds: int = 5,
    progress: Callable[[str], None] | None = None,
) -> ScalingBench:
    """Train on 1, 2, 4 … workers at each ZeRO stage, all in turn in every round; medians.

    ``train.batch_size`` is a worker's batch (weak scaling) and the whole batch (strong). Each
    number of workers also runs side by side without a word between them: the machine's own share
    of what is lost. Data are random images of ``data.image_size``.
    """
    most = max(workers)
    with tempfile.TemporaryDirectory(prefix="vmcmc-scaling-") as name:
        folder = Path(name)
        base = small_config(folder, config, settings)
        if base.train.batch_size % most:
            raise ConfigError(
                f"train.batch_size={base.train.batch_size} cannot be split over {most} workers; "
                f"make it a multiple of {most}"
            )
        manifest = ensure_prepared(base.data)
        groups: dict[int, Group] = {}
        parts = {str(n): variant(base, f"b{n}", 1 / n) for n in {1, *workers}}
        try:
            with Terminal(folder / "log.txt"):  # DeepSpeed talks as it is imported
                groups[1] = Group(folder, "apart", most, parts, manifest, apart=True)
                for n in (n for n in workers if n > 1):
                    groups[n] = Group(folder, f"of{n}", n, of_group(base, stages, n), manifest)
                for group in groups.values():
                    group.wait_until_ready()
            cells, links = measure(groups, stages, steps, rounds, progress)
        finally:
            for group in groups.values():
                group.close()
        with torch_threads(1):
            machine = this_machine(torch.device("cpu"))
        return ScalingBench(
            str(machine).replace("CPU seconds", "wall seconds"),
            len(cores()),
            base,
            parameters_of(base, tuple(manifest.shape)),
            rounds,
            cells,
            links,
        )


def measure(
    groups: dict[int, Group],
    stages: Sequence[int],
    steps: int,
    rounds: int,
    progress: Callable[[str], None] | None,
) -> tuple[list[Cell], dict[int, Link]]:
    """All rounds; the first one warms up and is not counted. ``groups[1]`` are workers apart."""
    runs: dict[tuple[str, str, int], list[list[Steps]]] = {}
    sweeps: dict[int, list[list[float]]] = {n: [] for n in groups if n > 1}
    for round_ in range(rounds + 1):
        if progress is not None:
            progress(f"round {round_} of {rounds}")
        found = {(APART, "weak", 1): groups[1].steps("1", steps, 1)}
        for n in sweeps:
            for kind in KINDS:
                part = "1" if kind == "weak" else str(n)
                found[APART, kind, n] = groups[1].steps(part, steps, n)
                for label in labels(stages):
                    found[label, kind, n] = groups[n].steps(f"{label} {kind}", steps)
            if round_:
                sweeps[n].append(groups[n].link(5))
        for key, value in found.items():
            if round_:
                runs.setdefault(key, []).append(value)
    links = {
        n: fit_link(SWEEP, [statistics.median(c) for c in zip(*rows, strict=True)], n)
        for n, rows in sweeps.items()
    }
    return [cell(*key, per_round) for key, per_round in runs.items()], links


def labels(stages: Sequence[int]) -> list[str]:
    """Variants of a group: the stages, and stage 0 with overlapped reductions."""
    return [str(stage) for stage in stages] + ([OVERLAPPED] if 0 in stages else [])


def of_group(base: Config, stages: Sequence[int], workers: int) -> dict[str, Config]:
    """Configs of ``workers`` workers: each variant, weak and strong."""
    found = {}
    for label in labels(stages):
        stage = 0 if label == OVERLAPPED else int(label)
        for kind in KINDS:
            found[f"{label} {kind}"] = variant(
                base,
                f"z{stage}{kind}{'o' if label == OVERLAPPED else ''}",
                workers if kind == "weak" else 1,
                stage,
                overlap=label == OVERLAPPED,
            )
    return found


def variant(base: Config, name: str, times: float, stage: int = 0, overlap: bool = False) -> Config:
    """``base`` with ``times`` the batch, at a ZeRO stage of both nets."""
    values = to_dict(base)
    values["name"] = name
    values["train"] |= {"batch_size": int(base.train.batch_size * times), "overlap": overlap}
    values["energy"]["zero_stage"] = values["vae"]["zero_stage"] = stage
    return config_from_dict(values)


def small_config(folder: Path, path: str | None, settings: Sequence[str]) -> Config:
    """The config to measure, or nets as of configs/faces.yaml at 64×64, on random images."""
    ours = [
        "energy.net=modern", "energy.width=24", "energy.depth=1", "vae.net=modern", "vae.width=32",
        "vae.depth=1", "vae.latent_dim=64", "vae.data_weight=1", "langevin.steps=8",
        "langevin.step_size=0.1", "langevin.clamp=1", "train.batch_size=16", "data.image_size=64",
    ]  # fmt: skip
    config = load_config(path, [*([] if path else ours), *settings])
    side = config.data.image_size or 64
    pixels = np.random.default_rng(0).integers(0, 256, (256, side, side, 3), dtype=np.uint8)
    np.save(folder / "images.npy", pixels)
    return resolve(
        load_config(
            path,
            [
                *([] if path else ours),
                *settings,
                f"out={folder}",
                "launcher=local",
                "data.source=arrays",
                f"data.root={folder / 'images.npy'}",
                f"data.shards={folder / 'shards'}",
                f"data.image_size={side}",
                "data.prepare_workers=1",
                "data.workers=0",
                "data.readers=1",
                "watch.tensorboard=false",
                "resources.threads=1",
                "resources.device=cpu",
            ],
        )
    )
