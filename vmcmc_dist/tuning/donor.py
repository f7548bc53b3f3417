"""Population-based training: one trial's checkpoint becomes another's, with other settings."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from vmcmc_dist.config import Config, flatten, to_dict
from vmcmc_dist.engine.checkpoint import CheckpointFolder
from vmcmc_dist.engine.resources import resolve
from vmcmc_dist.engine.run_folder import RunFolder

DONOR = "donor.json"
CHECKPOINT = "checkpoint"


def give(folder: RunFolder, trial: str, into: Path) -> None:
    """Copy the run's latest checkpoint into ``into``, with a note whose it is."""
    latest = CheckpointFolder(folder.checkpoints).latest()
    images = int(latest.name) if latest else 0
    if latest is not None:
        shutil.copytree(latest, into / CHECKPOINT)
    (into / DONOR).write_text(json.dumps({"donor": trial, "images": images}))


def adopt(
    folder: RunFolder, trial: str, given: Path, config: Config, settings: dict[str, Any]
) -> None:
    """Make what was given the run's only checkpoint, under the run's own config.

    A run's own checkpoint is left alone (its folder holds that one or a later one), and what was
    adopted before is not adopted again: the run goes on from where it is.
    """
    note = json.loads((given / DONOR).read_text()) | {"settings": settings}
    if note["donor"] == trial or not note["images"]:
        return
    adopted = folder.path / ".adopted"
    if adopted.exists() and json.loads(adopted.read_text()) == note:
        return
    folder.create()
    checkpoints = CheckpointFolder(folder.checkpoints)
    new = folder.checkpoints / f".partial-{note['images']:09d}"
    shutil.rmtree(new, ignore_errors=True)
    shutil.copytree(given / CHECKPOINT, new)
    state = json.loads((new / "state.json").read_text())
    state["config"] = to_dict(resolve(config))
    state["state"]["score"] = None
    (new / "state.json").write_text(json.dumps(state, indent=1, allow_nan=False))
    for old in checkpoints.all():
        shutil.rmtree(old)
    new.rename(folder.checkpoints / f"{note['images']:09d}")
    folder.truncate_metrics(note["images"])
    folder.append({"kind": "exploit", **note})
    adopted.write_text(json.dumps(note))


def settings_in_checkpoint(folder: RunFolder, keys: list[str]) -> dict[str, Any] | None:
    """The dials' values that the run's latest checkpoint was made with; None without one."""
    latest = CheckpointFolder(folder.checkpoints).latest()
    if latest is None:
        return None
    saved = flatten(json.loads((latest / "state.json").read_text())["config"])
    return {key: saved[key] for key in keys}
