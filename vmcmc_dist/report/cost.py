"""Hardware and cost of a run, as its folder tells them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from vmcmc_dist.report.run import Run
from vmcmc_dist.report.wording import duration, rounded


def cost_rows(runs: Sequence[Run], price: float | None) -> list[tuple[str, list[str]]]:
    """(what, one text a run); rows that no run can fill are left out.

    Args:
        price: USD an hour of everything that the run had.
    """
    columns = [_costs(run, price) for run in runs]
    names = dict.fromkeys(name for column in columns for name in column)
    return [(name, [column.get(name, "–") for column in columns]) for name in names]


def _costs(run: Run, price: float | None) -> dict[str, str]:
    environment, config = run.environment, run.config
    hours = run.seconds / 3600
    gpus = environment.get("gpus") or []
    workers = config.get("resources.workers")
    on_gpu = bool(gpus) and config.get("resources.device") != "cpu"
    texts: dict[str, Any] = {
        "CPU": _cpus(environment.get("cpus"), environment.get("cpu")),
        "GPU": _gpus(gpus) if gpus else "none" if environment else None,
        "Trained on": config.get("resources.device"),
        "Workers": workers,
        "Launcher": config.get("launcher"),
        "Precision": config.get("train.precision"),
        "Images seen": rounded(run.images) if run.images else None,
    }
    if hours:
        texts["Wall time of training"] = duration(run.seconds)
        texts["Speed, from start to end"] = f"{rounded(run.images / run.seconds)} images / s"
        if on_gpu and isinstance(workers, int):
            texts["GPU-hours"] = rounded(hours * workers)
        elif environment.get("cpus"):
            texts["Core-hours"] = rounded(hours * environment["cpus"])
        if price is not None:
            texts[f"Cost at {price:g} USD / h"] = f"{hours * price:,.2f} USD"
    evaluation = sum(r["seconds"] for r in run.evaluations if "seconds" in r)
    if evaluation:
        texts["Evaluation"] = f"{duration(evaluation)}, {len(run.evaluations)} records"
    texts["Python"] = environment.get("python")
    for package in ("torch", "ray", "deepspeed"):
        texts[package] = (environment.get("packages") or {}).get(package)
    return {name: str(text) for name, text in texts.items() if text is not None}


def _gpus(names: Sequence[str]) -> str:
    return ", ".join(f"{count} × {name}" for name, count in Counter(names).items())


def _cpus(count: Any, name: Any) -> str | None:
    if not count:
        return name
    return f"{name or 'CPU'}, {count} {'core' if count == 1 else 'cores'}"
