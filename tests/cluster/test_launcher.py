"""The cluster launcher's files: Ray's schema, Ray's own checks, the clouds' published fields."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray.autoscaler
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

CLOUDS = ["aws", "gcp"]
SCHEMA = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())


@pytest.fixture
def read(cluster: Path) -> Callable[[str], dict[str, Any]]:
    return lambda cloud: yaml.safe_load((cluster / f"{cloud}.yaml").read_text())


@pytest.mark.parametrize("cloud", CLOUDS)
def test_valid_by_the_schema_and_by_ray(read: Callable[[str], dict[str, Any]], cloud: str) -> None:
    config = read(cloud)
    jsonschema.validate(config, SCHEMA)
    validate_config(prepare_config(copy.deepcopy(config)))


@pytest.mark.parametrize("cloud", CLOUDS)
@pytest.mark.parametrize(
    "damage",
    [
        lambda config: config.update(worker_types={}),
        lambda config: config.pop("cluster_name"),
        lambda config: config.update(max_workers="many"),
        lambda config: next(iter(config["available_node_types"].values())).pop("node_config"),
        lambda config: next(iter(config["available_node_types"].values())).update(spot=True),
        lambda config: config.update(head_node_type="chief"),
    ],
    ids=["unknown key", "no name", "no number", "no node_config", "unknown of a type", "no head"],
)
def test_a_damaged_file_is_refused(
    read: Callable[[str], dict[str, Any]], cloud: str, damage: Callable[[dict[str, Any]], None]
) -> None:
    config = read(cloud)
    damage(config)
    with pytest.raises((jsonschema.ValidationError, ValueError, KeyError)):
        jsonschema.validate(config, SCHEMA)
        validate_config(prepare_config(config))


@pytest.mark.parametrize("cloud", CLOUDS)
def test_head_works_not_and_workers_come_from_zero(
    read: Callable[[str], dict[str, Any]], cloud: str
) -> None:
    config = read(cloud)
    types = dict(config["available_node_types"])
    head = types.pop(config["head_node_type"])
    assert head["resources"] == {"CPU": 0}
    for worker in types.values():
        assert worker["resources"]["GPU"] >= 1
        assert worker.get("min_workers", 0) == 0 < worker["max_workers"]
        assert worker["node_config"]["InstanceType" if cloud == "aws" else "machineType"]


@pytest.mark.parametrize("cloud", CLOUDS)
def test_what_nodes_run(read: Callable[[str], dict[str, Any]], cloud: str, cluster: Path) -> None:
    config = read(cloud)
    environment = f". ~/vmcmc/cluster/environment.sh {cloud}"
    head, worker = config["head_start_ray_commands"], config["worker_start_ray_commands"]
    assert any("--num-cpus=0" in line and "--dashboard-host=127.0.0.1" in line for line in head)
    assert not any("0.0.0.0" in line for line in [*head, *worker])
    for line in [*head, *worker]:
        assert "ray start" not in line or line.startswith(environment)
    assert any(f"spot_notice.py {cloud}" in line for line in worker)
    assert not any("spot_notice" in line for line in head)  # the head is no spot instance
    # the token goes to every node, and lies in no file of the repository
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    # every file named is there
    mounted = {
        remote: local
        for remote, local in config["file_mounts"].items()
        if not local.startswith("~")
    }
    for local in mounted.values():
        assert (cluster.parent / local).exists(), local
    commands = [line for key, lines in config.items() if key.endswith("commands") for line in lines]
    for path in re.findall(r"~/vmcmc(?:/[\w./]+)?", "\n".join(commands)):
        if path == "~/vmcmc":
            continue
        assert (cluster.parent / path.removeprefix("~/vmcmc/")).exists(), path
        assert any(path.startswith(remote) for remote in mounted), path


@pytest.mark.parametrize("cloud", CLOUDS)
def test_commands_are_sound_shell(
    read: Callable[[str], dict[str, Any]], cloud: str, tmp_path: Path
) -> None:
    config = prepare_config(read(cloud))
    script = tmp_path / "commands.sh"
    own = ("initialization_commands", "setup_commands", "start_ray_commands")
    lines = [line for key, group in config.items() if key.endswith(own) for line in group]
    assert len(lines) > 10
    script.write_text("#!/bin/bash\n" + "\n".join(f"({line})" for line in lines))
    # as Ray runs them: each by itself, so what is sourced lies elsewhere, and `~` is the node's
    done = subprocess.run(
        [Path(sys.executable).with_name("shellcheck"), "--exclude=SC1090,SC2016,SC2086", script],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
