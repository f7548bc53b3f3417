"""KubeRay's manifests: rendered by kustomize, held against the custom resources' fields."""

from __future__ import annotations

import copy
import json
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray
import yaml

from vmcmc_dist.config import load_config

SCHEMA = json.loads((Path(__file__).parent / "schemas/kuberay.json").read_text())
KUSTOMIZE = shutil.which("kubectl") or shutil.which("kustomize")


@pytest.fixture(scope="module", params=["small", "large"])
def rendered(request: pytest.FixtureRequest, cluster: Path) -> dict[str, dict[str, Any]]:
    """Kind → manifest of an overlay, Ray's alone."""
    if KUSTOMIZE is None:
        pytest.skip("neither kubectl nor kustomize here")
    words = [KUSTOMIZE, "kustomize" if KUSTOMIZE.endswith("kubectl") else "build"]
    folder = str(cluster / "kuberay" / request.param)
    done = subprocess.run([*words, folder], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    manifests = yaml.safe_load_all(done.stdout)
    return {one["kind"]: one for one in manifests if one["apiVersion"] == "ray.io/v1"}


@pytest.fixture(params=["head", "worker"])
def pod(request: pytest.FixtureRequest, rendered: dict[str, Any]) -> dict[str, Any]:
    spec = rendered["RayJob"]["spec"]["rayClusterSpec"]
    group = spec["headGroupSpec"] if request.param == "head" else spec["workerGroupSpecs"][0]
    return group["template"]["spec"]


def test_base_and_overlays_fit_the_custom_resources(
    rendered: dict[str, Any], cluster: Path
) -> None:
    jsonschema.validate(
        yaml.safe_load((cluster / "kuberay/base/raycluster.yaml").read_text()), SCHEMA
    )
    assert set(rendered) == {"RayCluster", "RayJob"}
    for manifest in rendered.values():
        jsonschema.validate(manifest, SCHEMA)


@pytest.mark.parametrize(
    "damage",
    [
        lambda spec: spec.update(enableAutoscaling=True),
        lambda spec: spec.pop("headGroupSpec"),
        lambda spec: spec["authOptions"].update(mode="tokens"),
        lambda spec: spec["workerGroupSpecs"][0].pop("groupName"),
        lambda spec: spec["workerGroupSpecs"][0]["template"]["spec"].update(gracePeriod=1),
        lambda spec: spec["headGroupSpec"]["template"]["spec"]["containers"][0].update(gpus=1),
    ],
    ids=[
        "unknown key",
        "no head",
        "no such mode",
        "group without name",
        "in a pod",
        "in a container",
    ],
)
def test_a_damaged_manifest_is_refused(rendered: dict[str, Any], damage: Any) -> None:
    wrong = copy.deepcopy(rendered["RayCluster"])
    damage(wrong["spec"])
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, SCHEMA)


def test_the_job_has_the_clusters_spec(rendered: dict[str, Any]) -> None:
    assert rendered["RayJob"]["spec"]["rayClusterSpec"] == rendered["RayCluster"]["spec"]


def test_cluster_has_token_autoscaler_v2_and_outlives_its_head(rendered: dict[str, Any]) -> None:
    spec = rendered["RayCluster"]["spec"]
    assert spec["rayVersion"] == ray.__version__
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["enableInTreeAutoscaling"] and spec["autoscalerOptions"]["version"] == "v2"
    assert "secretKeyRef" in spec["gcsFaultToleranceOptions"]["redisPassword"]["valueFrom"]
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    (group,) = spec["workerGroupSpecs"]
    assert group["minReplicas"] == group["replicas"] == 0 < group["maxReplicas"]


def test_pods_are_not_root_and_share_memory(pod: dict[str, Any]) -> None:
    assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] > 0
    (container,) = pod["containers"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert set(mounts.values()) == set(volumes)
    assert volumes[mounts["/dev/shm"]]["emptyDir"]["medium"] == "Memory"


def test_grace_is_longer_than_what_has_to_happen_in_it(pod: dict[str, Any]) -> None:
    (container,) = pod["containers"]
    environment = {entry["name"]: entry["value"] for entry in container["env"]}
    grace = pod["terminationGracePeriodSeconds"]
    drain = float(environment["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"])
    stop = float(environment["RAY_JOB_STOP_WAIT_TIME_S"])
    assert grace > stop
    assert environment["VMCMC_DEVICE"] == "cuda"
    if container["name"] == "ray-worker":
        command = container["lifecycle"]["preStop"]["exec"]["command"]
        assert grace > float(command[command.index("--seconds") + 1]) + drain + 30
        gpus = int(container["resources"]["limits"]["nvidia.com/gpu"])
        assert gpus == int(container["resources"]["requests"]["nvidia.com/gpu"]) >= 1


def test_a_retry_runs_the_same_command_and_that_command_is_valid(
    rendered: dict[str, Any], cluster: Path
) -> None:
    job, spec = rendered["RayJob"]["spec"], rendered["RayCluster"]["spec"]
    assert job["backoffLimit"] >= 1 and job["shutdownAfterJobFinishes"]
    python, _, module, verb, path, *settings = shlex.split(job["entrypoint"])
    assert (python, module, verb) == ("python", "vmcmc_dist", "train")
    config = load_config(cluster.parent / path, settings)
    assert config.name == "celeba" and config.out.startswith("s3://")  # what a resume is found by
    assert "preset=modern" in settings  # a head without GPU would take the CPU's
    (group,) = spec["workerGroupSpecs"]
    (container,) = group["template"]["spec"]["containers"]
    gpus = int(container["resources"]["limits"]["nvidia.com/gpu"])
    assert config.resources.workers == gpus * group["maxReplicas"]
    cpus = float(container["resources"]["limits"]["cpu"])
    assert config.resources.cpus_per_worker * gpus <= cpus
