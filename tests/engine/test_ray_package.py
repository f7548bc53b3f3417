"""What is packed of a working directory, by Ray's own rules, and what it may weigh."""

from __future__ import annotations

from pathlib import Path

import pytest

from vmcmc_dist.engine.ray_package import check_package, packed_files, runtime_env
from vmcmc_dist.errors import ConfigError, ResourceError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in (
        "a.yaml", ".git/x", ".venv/x", ".venv-swift/x", "runs/x", "data/x", "build/x", "notes.tmp",
        "vmcmc_dist/__main__.py", "vmcmc_dist/data/open.py", "vmcmc_dist/__pycache__/open.pyc",
    ):  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("1")
    (tmp_path / ".gitignore").write_text("*.tmp\n/runs/\n")
    return tmp_path


def test_code_travels_and_data_stay(folder: Path) -> None:
    env = runtime_env(folder, {"A": "1"})
    files = packed_files(folder, env["excludes"])
    assert set(files) == {
        ".gitignore", "a.yaml", "vmcmc_dist/__main__.py", "vmcmc_dist/data/open.py",
    }  # fmt: skip
    assert env["env_vars"]["A"] == "1" and env["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"] == "120"
    assert check_package(folder, env, ["a.yaml"]) < 2000


def test_settings_of_the_file_in_the_working_directory_count(folder: Path) -> None:
    (folder / "cluster").mkdir()
    file = folder / "cluster" / "runtime_env.yaml"
    file.write_text('excludes: ["*.big"]\nenv_vars: {A: "file", B: "2"}\nconfig: {eager: true}\n')
    env = runtime_env(folder, {"A": "shell"})
    assert env["env_vars"]["A"] == "shell" and env["env_vars"]["B"] == "2"
    assert "*.big" in env["excludes"] and "/.git" in env["excludes"] and "config" in env
    file.write_text("env_vars: {HF_TOKEN: abc}\n")
    with pytest.raises(ConfigError, match="HF_TOKEN looks like a secret"):
        runtime_env(folder, {})
    file.write_text("a: [\n")
    with pytest.raises(ConfigError, match="not readable as YAML"):
        runtime_env(folder, {})


def test_the_project_s_own_file_takes_its_code_along() -> None:
    root = Path(__file__).parents[2]
    env = runtime_env(root, {})
    files = packed_files(root, env["excludes"])
    assert {"vmcmc_dist/data/open.py", "configs/faces.yaml", "pyproject.toml"} <= set(files)
    assert not any(name.startswith((".git/", "runs/", ".venv")) for name in files)
    assert check_package(root, env, ["configs/faces.yaml"]) < 50 << 20


@pytest.mark.parametrize("pattern", ["data", "a.yaml"])
def test_a_pattern_that_leaves_code_behind_is_refused(folder: Path, pattern: str) -> None:
    (folder / ".rayignore").write_text(pattern + "\n")
    with pytest.raises(ConfigError, match="would be left behind.*leading slash"):
        check_package(folder, runtime_env(folder, {}), ["a.yaml"])


def test_over_the_limit_the_largest_are_named(folder: Path) -> None:
    for name, size in (("images/a.bin", 70 << 20), ("images/b.bin", 40 << 20)):
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        with path.open("wb") as file:
            file.truncate(size)  # sparse: no bytes on the disk
    env = runtime_env(folder, {})
    with pytest.raises(ResourceError, match=r"110\.0 MiB, Ray takes at most 100\.0 MiB") as said:
        check_package(folder, env, ["a.yaml"])
    lines = str(said.value).splitlines()
    assert lines[1].split() == ["70.0", "MiB", "images/a.bin"] and "excludes" in lines[-1]
    env["excludes"].append("images")
    assert check_package(folder, env, ["a.yaml"]) < 2000
