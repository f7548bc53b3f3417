"""One trial's checkpoint becomes another's, with other settings."""

from __future__ import annotations

import json
import shutil
from typing import Any

from vmcmc_dist.engine.checkpoint import CheckpointFolder
from vmcmc_dist.engine.run_folder import RunFolder, complete_lines
from vmcmc_dist.errors import CheckpointError


def adopt(trial: str, folder: RunFolder, donor: RunFolder, settings: dict[str, Any]) -> None:
    """Make the donor's latest checkpoint the only one of a trial, under the trial's own config.

    Neither may be training. The trial's metrics stay, up to the donor's images, and get a line of
    the kind ``exploit``.

    Args:
        settings: the dials' values that the trial goes on with.

    Raises:
        CheckpointError: the donor has no checkpoint.
    """
    latest = CheckpointFolder(donor.checkpoints).latest()
    if latest is None:
        raise CheckpointError(f"{donor.path} has no checkpoint for trial {trial} to go on from")
    images = int(latest.name)
    new = folder.checkpoints / f".partial-{images:09d}"
    shutil.rmtree(new, ignore_errors=True)
    shutil.copytree(latest, new)
    state = json.loads((new / "state.json").read_text())
    state["config"]["name"] = trial
    for key, value in settings.items():
        _set(state["config"], key, value)
    state["state"]["score"] = None
    (new / "state.json").write_text(json.dumps(state, indent=1, allow_nan=False))
    for old in CheckpointFolder(folder.checkpoints).all():
        shutil.rmtree(old)
    new.rename(folder.checkpoints / f"{images:09d}")
    folder.truncate_metrics(images)
    name = donor.path.name
    folder.append({"kind": "exploit", "images": images, "donor": name, "settings": settings})


def has_adopted(folder: RunFolder, donor: str, settings: dict[str, Any]) -> bool:
    """Whether the trial's last line of the kind ``exploit`` says this."""
    lines = complete_lines(folder.metrics) if folder.metrics.exists() else []
    found = [line for line in lines if line["kind"] == "exploit"]
    return bool(found) and (found[-1]["donor"], found[-1]["settings"]) == (donor, settings)


def _set(config: dict[str, Any], key: str, value: Any) -> None:
    *groups, name = key.split(".")
    for group in groups:
        config = config[group]
    config[name] = value
