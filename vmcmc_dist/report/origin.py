"""Where runs come from: how their configs differ, and the commands that make them again."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from typing import Any

from vmcmc_dist.config import Config, walk
from vmcmc_dist.report.run import Run


def config_rows(runs: Sequence[Run], *, differing: bool) -> list[tuple[str, str, list[str]]]:
    """(key, its meaning, the value in each run with a config); all keys, or those that differ."""
    runs = [run for run in runs if run.config]
    meaning = {key: field.metadata.get("help", "") for key, field, _ in walk(Config())}
    rows = []
    for key in dict.fromkeys(key for run in runs for key in run.config):
        values = [_yaml(run.config[key]) if key in run.config else "–" for run in runs]
        if not differing or len(set(values)) > 1:
            rows.append((key, meaning.get(key, ""), values))
    return rows


def commands(run: Run) -> list[str]:
    """The commands that make the run and its newest records again, a line each."""
    commit = str(run.environment.get("commit") or "").rstrip("+")
    lines = [f"git checkout {shlex.quote(commit)}"] if commit else []
    lines.append(resume(run))
    newest = {record["task"]: record for record in run.evaluations if "task" in record}
    for task, record in newest.items():
        words = ["vmcmc", "evaluate", str(run.path), "--task", str(task)]
        if "images" in record:
            words += ["--checkpoint", str(record["images"])]
        if record.get("ema") is False:
            words.append("--no-ema")
        settings = record.get("settings")
        for key, value in (settings if isinstance(settings, dict) else {}).items():
            words.append(f"{key}={_yaml(value)}")
        lines.append(shlex.join(words))
    return [*lines, shlex.join(["vmcmc", "report", str(run.path)])]


def resume(run: Run) -> str:
    """The command that trains the run, or goes on with it."""
    command = run.environment.get("command")
    return str(command) if command else shlex.join(["vmcmc", "train", f"{run.path}/config.yaml"])


def _yaml(value: Any) -> str:
    """A value as it is written behind ``key=``."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
