"""Shell scripts and the image's recipe: linted, and of one mind with the rest of the repository."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import ray
import yaml

TOOLS = Path(sys.executable).parent


def run(*words: object, **more: str) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
    return subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, env=clean | more
    )


def test_shell_scripts_pass_shellcheck(cluster: Path) -> None:
    scripts = sorted(cluster.glob("*.sh"))
    assert len(scripts) == 3
    done = run(TOOLS / "shellcheck", "--external-sources", *scripts)
    assert done.returncode == 0, done.stdout


def test_dockerfile_passes_hadolint(cluster: Path, tmp_path: Path) -> None:
    done = run(TOOLS / "hadolint", cluster / "Dockerfile")
    assert done.returncode == 0, done.stdout
    wrong = tmp_path / "Dockerfile"
    wrong.write_text((cluster / "Dockerfile").read_text().replace("--no-cache-dir", ""))
    assert "DL3042" in run(TOOLS / "hadolint", wrong).stdout


@pytest.fixture
def recipe(cluster: Path) -> str:
    return (cluster / "Dockerfile").read_text()


def test_what_is_copied_into_the_image_is_there_and_not_ignored(recipe: str, cluster: Path) -> None:
    let_in = {
        line.removeprefix("!")
        for line in (cluster.parent / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    copied = {
        source
        for words in re.findall(r"^COPY (?!--from)(.*) \S+$", recipe, re.MULTILINE)
        for source in words.split()
    }
    assert copied == let_in
    assert all((cluster.parent / path).exists() for path in copied)


def test_dependencies_come_before_code_and_the_user_is_not_root(recipe: str) -> None:
    assert recipe.index("--requirement requirements.txt") < recipe.index("COPY vmcmc_dist")
    assert re.findall(r"^USER (.*)$", recipe, re.MULTILINE) == ["1000"]
    assert "--constraint constraints.txt" in recipe and "DS_BUILD_OPS=0" in recipe


def test_the_image_installs_what_the_package_needs(recipe: str, cluster: Path) -> None:
    (program,) = re.findall(r'python -c "(import tomllib;.*?)"', recipe, re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", program.replace("\\\n", "")],
        cwd=cluster.parent, capture_output=True, text=True, check=True,
    )  # fmt: skip
    project = tomllib.loads((cluster.parent / "pyproject.toml").read_text())["project"]
    assert done.stdout.split() == project["dependencies"]


def test_versions_named_in_files_are_those_pinned(recipe: str, cluster: Path) -> None:
    pins = dict(
        line.split("==")
        for line in (cluster.parent / ".ci/constraints.txt").read_text().splitlines()
        if "==" in line
    )
    assert pins["ray"] == ray.__version__
    named = re.findall(r"Ray (\d+\.\d+), torch (\d+\.\d+)", recipe)
    assert [(pins["ray"].rsplit(".", 1)[0], pins["torch"].rsplit(".", 1)[0])] == named


@pytest.mark.parametrize("place", ["aws", "gcp", "slurm"])
def test_environment_of_a_node(cluster: Path, place: str) -> None:
    done = run("bash", "-euc", '. "$0" "$1"; env -0', cluster / "environment.sh", place)
    assert done.returncode == 0, done.stderr
    found = dict(entry.split("=", 1) for entry in done.stdout.split("\0") if entry)
    assert found["RAY_AUTH_MODE"] == "token"
    assert int(found["RAY_JOB_STOP_WAIT_TIME_S"]) >= 60
    assert found["NCCL_DEBUG"] == "WARN"
    assert found.get("GLOO_SOCKET_IFNAME") == found.get("NCCL_SOCKET_IFNAME") != "lo"
    assert ("AWS_ENDPOINT_URL" in found) == (place == "gcp")
    assert found.get("VMCMC_DEVICE") == ("cuda" if place in ("aws", "gcp") else None)
    wrong = run("bash", "-c", '. "$0" azure; echo $?', cluster / "environment.sh")
    assert wrong.stdout == "2\n" and "usage" in wrong.stderr


def test_scratch_without_disks_is_a_folder_and_stays(cluster: Path, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    sudo = tmp_path / "bin/sudo"
    sudo.write_text('#!/bin/sh\nexec "$@"\n')
    sudo.chmod(0o755)
    more = {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "DISKS_BY_ID": str(tmp_path / "none")}
    for _ in range(2):
        done = run("bash", cluster / "scratch.sh", tmp_path / "scratch", **more)
        assert done.returncode == 0, done.stderr
        assert "no NVMe disks" in done.stdout
    assert (tmp_path / "scratch").is_dir()


def test_every_yaml_of_the_folder_is_read_by_a_test(cluster: Path) -> None:
    """A file that nothing checks would rot."""
    checked = {"aws.yaml", "gcp.yaml", "aws_account.yaml", "skypilot.yaml", "runtime_env.yaml"}
    assert {path.name for path in cluster.glob("*.yaml")} == checked


def test_a_jobs_environment_sends_code_alone(cluster: Path) -> None:
    environment = yaml.safe_load((cluster / "runtime_env.yaml").read_text())
    assert {"/.git", "/.venv*", "/runs", "/data"} <= set(environment["excludes"])
    from ray.runtime_env import RuntimeEnv

    assert RuntimeEnv(**environment)["env_vars"]["WDS_SECURE"] == "1"
