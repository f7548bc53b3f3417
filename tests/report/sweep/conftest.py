"""Sweep folders made by a program, with an answer that is known: which dials decide, and how."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image, ImageDraw

from vmcmc_dist.config import Config, to_dict


@pytest.fixture(scope="session")
def made_sweeps(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A maker of sweeps that several tests look at: the same name, the same folder."""
    home = tmp_path_factory.mktemp("sweeps")

    def made(name: str, trials: int, **how: Any) -> Path:
        folder = home / name
        return folder if folder.exists() else make_sweep(folder, trials, **how)

    return made


SPACE = {
    "langevin.step_size": {"log": [0.5, 4.0]},
    "langevin.steps": {"int": [4, 32], "log": True},
    "langevin.temperature": {"log": [1e-6, 1e-3]},
    "energy.penalty": {"uniform": [0.0, 0.2]},
    "energy.lr": {"log": [1e-4, 1e-2]},
    "vae.sigma": {"choice": [0.3, 0.6, 1.0]},
}
RUNGS = (10_000, 30_000, 90_000)
METRIC = "fd_classifier_refined"


def make_sweep(
    folder: Path,
    trials: int,
    *,
    asha: bool = False,
    metrics: int = 1,
    pictures: int = 10,
    running: int = 0,
    space: dict[str, Any] | None = None,
    title: str = "synthetic",
    seed: int = 0,
) -> Path:
    """A sweep whose metric falls towards step 2 (strongly) and penalty 0.05 (weakly).

    Of the other dials none matters. Above step 3.5 most trials diverge; one in 50 fails.
    """
    rng = random.Random(seed)
    space = SPACE if space is None else space
    folder.mkdir(parents=True)
    plan: dict[str, Any] = {
        "name": title,
        "config": "configs/fashion_mnist.yaml",
        "settings": ["preset=cpu", "train.images=90000"],
        "space": space,
        "search": "random",
        "trials": trials + running,
        "metric": METRIC if metrics == 1 else [METRIC, "recall_classifier_refined"],
        "mode": "min" if metrics == 1 else ["min", "max"],
        "scheduler": "asha" if asha else "none",
        "seed": seed,
    }
    (folder / "sweep.yaml").write_text(yaml.safe_dump(plan, sort_keys=False))
    base = to_dict(Config())
    base["langevin"] |= {"step_size": 2.8, "steps": 8, "temperature": 2.5e-5}
    (folder / "config.yaml").write_text(yaml.safe_dump(base))
    lines = []
    for number in range(trials + running):
        lines += trial_lines(rng, f"{number:04d}", space, asha, metrics, number >= trials)
    (folder / "trials.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    judged = [line for line in lines if line["status"] == "done"]
    judged.sort(key=lambda line: line["figures"].get(METRIC, math.inf))
    for line in judged[:pictures]:
        make_trial_folder(folder / line["folder"], line)
    return folder


def trial_lines(
    rng: random.Random, trial: str, space: dict, asha: bool, metrics: int, running: bool
) -> list[dict[str, Any]]:
    """The lines that the trial writes."""
    settings = {key: draw(rng, spec) for key, spec in space.items()}
    step = settings.get("langevin.step_size", 2.0)
    penalty = settings.get("energy.penalty", 0.05)
    floor = 2 + 30 * math.log(step / 2) ** 2 + 150 * (penalty - 0.05) ** 2
    line = {
        "trial": trial,
        "status": "running",
        "settings": settings,
        "images": 0,
        "figures": {},
        "seconds": 0.0,
        "start_seconds": round(0.1 + 0.2 * rng.random(), 3),
        "folder": f"trials/{trial}",
        "failures": 0,
        "reason": "",
    }
    lines = [line]
    fails, diverges = rng.random() < 0.02, step > 3.5 and rng.random() < 0.8
    failures = int(rng.random() < 0.05)
    for rung in RUNGS:
        if fails or diverges:
            status = "failed" if fails else "diverged"
            reason = "worker died: out of memory" if fails else "regime: energy runs away"
            images, seconds = rung // 2, rung / 900
            last = {"status": status, "images": images, "seconds": seconds, "reason": reason}
            return [*lines, {**line, **last, "failures": 4 if fails else 0}]
        value = floor * (1 + 1.5 * RUNGS[0] / rung) * math.exp(rng.gauss(0, 0.12))
        figures = {METRIC: value, "is_classifier_refined": 8 - math.log(value)}
        if metrics > 1:
            figures["recall_classifier_refined"] = 1 / (1 + 3 / step) - 0.1 * rng.random()
        seconds = rung / 450 * (1 + 0.2 * rng.random())
        line = {**line, "images": rung, "figures": figures, "seconds": round(seconds, 2)}
        lines.append({**line, "failures": failures})
        if running:
            return lines
        if asha and value > 20 * RUNGS[0] / rung and rung < RUNGS[-1]:
            ended = {"status": "stopped", "reason": f"asha: not among the best at {rung:,} images"}
            return [*lines, {**line, **ended}]
    return [*lines, {**line, "status": "done", "failures": failures}]


def draw(rng: random.Random, spec: dict[str, Any]) -> Any:
    if "choice" in spec:
        return rng.choice(spec["choice"])
    kind = next(k for k in ("log", "int", "uniform") if isinstance(spec.get(k), list))
    low, high = spec[kind]
    if kind == "uniform":
        return rng.uniform(low, high)
    if kind == "int" and not spec.get("log"):
        return rng.randint(low, high)
    value = math.exp(rng.uniform(math.log(low), math.log(high)))
    return round(value) if kind == "int" else value


def make_trial_folder(run: Path, line: dict[str, Any]) -> None:
    """A run folder with one grid: discs, of a hue and size by the settings."""
    (run / "samples").mkdir(parents=True)
    (run / "config.yaml").write_text(yaml.safe_dump(to_dict(Config()) | {"name": line["trial"]}))
    (run / "metrics.jsonl").write_text(
        json.dumps({"kind": "sample", "images": line["images"], "fd_thumbnail": 0.1}) + "\n"
    )
    hue = int(line["trial"]) * 37 % 360
    image = Image.new("RGB", (320, 160), (20, 20, 24))
    pen = ImageDraw.Draw(image)
    for row in range(4):
        for column in range(8):
            x, y, r = 20 + 40 * column, 20 + 40 * row, 6 + (row * 8 + column) % 11
            pen.ellipse((x - r, y - r, x + r, y + r), fill=f"hsl({hue}, 60%, {30 + 5 * row}%)")
    image.save(run / "samples" / f"{line['images']:09d}.png")
