"""What a report reads of a run folder; whatever is not there yet is empty, never an error."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from vmcmc_dist.config import flatten
from vmcmc_dist.engine.run_folder import RunFolder
from vmcmc_dist.errors import DataError

Record = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """One run folder, read.

    Attributes:
        name: as the config has it, else the folder's; made unique by :func:`read_runs`.
        config: dotted key → value; empty if the folder has no config.yaml.
        environment: of environment.json.
        metrics: records of metrics.jsonl, by images seen.
        evaluations: records of evaluation/records.jsonl, oldest first.
        notes: what could not be read, in words.
    """

    path: Path
    name: str
    config: dict[str, Any] = field(default_factory=dict)
    environment: Record = field(default_factory=dict)
    metrics: list[Record] = field(default_factory=list)
    evaluations: list[Record] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def of_kind(self, kind: str) -> list[Record]:
        """The metrics' records of one kind: train, sample, density, rollback, evaluation."""
        return [record for record in self.metrics if record.get("kind") == kind]

    @property
    def images(self) -> int:
        """Images seen so far."""
        return max((record["images"] for record in self.metrics), default=0)

    @property
    def seconds(self) -> float:
        """Wall time of training so far, in seconds, pauses between resumes left out."""
        return max((r["time"]["seconds"] for r in self.of_kind("train") if "time" in r), default=0)

    @property
    def grids(self) -> list[tuple[int, Path]]:
        """(images seen, picture) of every grid drawn in training, in time's order."""
        found = (self.path / "samples").glob("*.png")
        return sorted((int(path.stem), path) for path in found if path.stem.isdecimal())


def read_run(path: str | Path) -> Run:
    """Read a run folder.

    Raises:
        DataError: no folder of a run, or a config.yaml or environment.json that is damaged.
    """
    folder = RunFolder(path)
    if not folder.path.is_dir():
        raise DataError(f"{path} is not there; give the folder of a run, e.g. runs/faces")
    if not folder.config.is_file() and not folder.metrics.is_file():
        raise DataError(
            f"{path} is no run folder: it has neither config.yaml nor metrics.jsonl; give the "
            "folder that `vmcmc train` made, e.g. runs/faces"
        )
    notes: list[str] = []
    config = flatten(read_mapping(folder.config))
    metrics = [
        record
        for record in tolerant_lines(folder.metrics, notes)
        if isinstance(record.get("images"), int)
    ]
    notes += [
        f"the evaluation at {record['images']:,} images failed: {record['failed']}"
        for record in metrics
        if record.get("kind") == "evaluation" and record.get("failed")
    ]
    return Run(
        path=folder.path,
        name=str(config.get("name") or folder.path.resolve().name),
        config=config,
        environment=read_mapping(folder.environment),
        metrics=sorted(metrics, key=lambda record: record["images"]),
        evaluations=tolerant_lines(folder.path / "evaluation" / "records.jsonl", notes),
        notes=notes,
    )


def read_runs(paths: Sequence[str | Path]) -> list[Run]:
    """Read several; runs that share a name are told apart by a number behind it."""
    runs = [read_run(path) for path in paths]
    seen: dict[str, int] = {}
    named = []
    for run in runs:
        seen[run.name] = count = seen.get(run.name, 0) + 1
        name = run.name if count == 1 else f"{run.name} ({count})"
        named.append(Run(**{**vars(run), "name": name}))
    return named


def tolerant_lines(path: Path, notes: list[str]) -> list[Record]:
    """The JSON objects of a file, a line each; lines that are none are counted in ``notes``.

    A last line without its end is one that is being written, or was when the process died; it
    is left out in silence.
    """
    if not path.is_file():
        return []
    text = path.read_text(errors="replace")
    records, broken = [], 0
    for line in text[: text.rfind("\n") + 1].splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if isinstance(record, dict):
            records.append(record)
        elif line.strip():
            broken += 1
    if broken:
        lines = "line is" if broken == 1 else "lines are"
        notes.append(f"{broken} {lines} damaged in {path} and left out")
    return records


def read_mapping(path: Path) -> dict[str, Any]:
    """A YAML or JSON file that holds a mapping; empty where there is no file."""
    if not path.is_file():
        return {}
    try:
        text = path.read_text()
        content = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError) as error:
        raise DataError(f"{path} is damaged ({str(error).splitlines()[0]})") from None
    if not isinstance(content, dict):
        raise DataError(f"{path} is damaged: it must hold a mapping")
    return content
