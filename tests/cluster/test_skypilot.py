"""skypilot.yaml against the published fields of SkyPilot's tasks, and its command against ours."""

from __future__ import annotations

import copy
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from vmcmc_dist.config import load_config

SCHEMA = json.loads((Path(__file__).parent / "schemas/skypilot.json").read_text())


@pytest.fixture
def task(cluster: Path) -> dict[str, Any]:
    return yaml.safe_load((cluster / "skypilot.yaml").read_text())


def test_fits_the_published_fields(task: dict[str, Any]) -> None:
    jsonschema.validate(task, SCHEMA)
    for damage in (
        lambda wrong: wrong.update(nodes=2),
        lambda wrong: wrong["resources"].update(spot=True),
        lambda wrong: wrong["resources"]["job_recovery"].update(max_restarts=1),
        lambda wrong: wrong.update(num_nodes="two"),
    ):
        wrong = copy.deepcopy(task)
        damage(wrong)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, SCHEMA)


def test_spot_and_no_secret_in_the_file(task: dict[str, Any]) -> None:
    assert task["resources"]["use_spot"] is True
    assert set(task["secrets"].values()) == {None}


def test_the_command_it_repeats_is_valid_and_names_its_run(
    task: dict[str, Any], cluster: Path
) -> None:
    command = task["run"].replace("\\\n", " ").splitlines()[-1]
    words = shlex.split(re.sub(r'"\$\([^)]*\)"', "ADDRESS", command))
    cut = words.index("-m")
    assert words[cut : cut + 3] == ["-m", "vmcmc_dist", "train"]
    path, *settings = words[cut + 3 :]
    config = load_config(cluster.parent / path, settings)
    assert config.name == "celeba" and config.out == "s3://$BUCKET/runs"
    assert config.preset == "modern"
    # torchrun knows its options (and stops at this one)
    options = ["1" if word.startswith("$SKYPILOT") else word for word in words[1:cut]]
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *options, "--help"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_its_shell_is_sound(task: dict[str, Any], tmp_path: Path) -> None:
    for part in ("setup", "run"):
        script = tmp_path / f"{part}.sh"
        script.write_text("#!/bin/bash\n" + task[part])
        done = subprocess.run(
            [Path(sys.executable).with_name("shellcheck"), "--exclude=SC1091", script],
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
