"""gcp.yaml against the published fields of Compute Engine's instances."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

SCHEMA = json.loads((Path(__file__).parent / "schemas/compute_instance.json").read_text())


@pytest.fixture
def types(cluster: Path) -> dict[str, Any]:
    config = yaml.safe_load((cluster / "gcp.yaml").read_text())
    return {name: kind["node_config"] for name, kind in config["available_node_types"].items()}


def test_node_types_are_what_compute_engine_takes(types: dict[str, Any]) -> None:
    for node_config in types.values():
        jsonschema.validate(node_config, SCHEMA)
    wrong = copy.deepcopy(types["l4"])
    wrong["scheduling"]["preemtible"] = True
    with pytest.raises(jsonschema.ValidationError, match="preemtible"):
        jsonschema.validate(wrong, SCHEMA)


def test_workers_are_spot_with_gvnic_scratch_disks_and_an_account(types: dict[str, Any]) -> None:
    head = types.pop("head")
    assert "scheduling" not in head and "serviceAccounts" not in head  # Ray gives it its own
    for worker in types.values():
        assert worker["scheduling"]["provisioningModel"] == "SPOT"
        assert worker["scheduling"]["onHostMaintenance"] == "TERMINATE"  # VMs with GPUs cannot move
        assert worker["networkInterfaces"][0]["nicType"] == "GVNIC"
        assert worker["disks"][1]["type"] == "SCRATCH"
        assert worker["serviceAccounts"][0]["email"].startswith("vmcmc@")
