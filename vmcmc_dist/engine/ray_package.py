"""The working directory as Ray packs it: what goes in, how much it is, whether it may."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from vmcmc_dist.engine.job_environment import refuse_secrets
from vmcmc_dist.errors import ConfigError, ResourceError

RUNTIME_ENV = Path("cluster/runtime_env.yaml")
"""Read where the working directory has it."""
EXCLUDES = ["/.git", "/.venv*", "/runs", "/data", "/build", "__pycache__", "*.egg-info"]
"""Never packed, besides what .gitignore and the file name. Anchored: vmcmc_dist/data is code."""
ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "WDS_SECURE": "1", "DS_BUILD_OPS": "0"}
STOP_WAIT = {"RAY_JOB_STOP_WAIT_TIME_S": "120"}
"""A stopped job has so long to save itself; Ray's own default is 3 seconds."""
ENTRY_BYTES = 150
"""Of the archive for each file, beside its content and twice its name."""


def runtime_env(folder: Path, environment: dict[str, str]) -> dict[str, Any]:
    """Ray's runtime environment of a job: ``folder`` as its working directory.

    Settings of ``cluster/runtime_env.yaml`` come first, then ``environment``.

    Raises:
        ConfigError: the file is not readable, or holds what looks like a secret.
    """
    path = folder / RUNTIME_ENV
    given: dict[str, Any] = {}
    if path.is_file():
        try:
            given = yaml.safe_load(path.read_text()) or {}
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} is not readable as YAML: {error}") from None
        if not isinstance(given, dict) or "working_dir" in given:
            raise ConfigError(f"{path} must be a runtime_env of Ray without a working_dir")
    variables = {str(k): str(v) for k, v in (given.get("env_vars") or {}).items()}
    refuse_secrets(variables, f"{path}:")
    excludes = [*EXCLUDES, *(given.get("excludes") or [])]
    return {
        **given,
        "working_dir": str(folder),
        "excludes": list(dict.fromkeys(excludes)),
        "env_vars": ENVIRONMENT | STOP_WAIT | variables | environment,
    }


def packed_files(folder: Path, excludes: list[str]) -> dict[str, int]:
    """Relative name → bytes of every file that Ray will pack, by Ray's own rules."""
    from ray._private import ray_constants
    from ray._private.runtime_env import packaging

    every = [*ray_constants.get_runtime_env_default_excludes(), *excludes]
    with_gitignore = os.environ.get(ray_constants.RAY_RUNTIME_ENV_IGNORE_GITIGNORE, "0") != "1"
    found: dict[str, int] = {}

    def note(path: Path) -> None:
        if path.is_file():
            found[path.relative_to(folder).as_posix()] = path.stat().st_size

    packaging._dir_travel(
        folder,
        [packaging._get_excludes(folder, every)],
        note,
        include_gitignore=with_gitignore,
        logger=_silent(),
    )
    return found


def check_package(folder: Path, env: dict[str, Any], needed: list[str]) -> int:
    """Bytes that will be sent.

    Args:
        needed: relative names of files without which the job cannot run.

    Raises:
        ConfigError: a needed file is left out by .gitignore or the excludes.
        ResourceError: the directory is over Ray's limit; names the largest entries.
    """
    from ray._private.ray_constants import DASHBOARD_CLIENT_MAX_SIZE
    from ray._private.runtime_env.packaging import GCS_STORAGE_MAX_SIZE

    # the head's store takes 512 MiB, but the dashboard, through which a job comes, only 100 MiB
    limit = min(GCS_STORAGE_MAX_SIZE, DASHBOARD_CLIENT_MAX_SIZE)
    files = packed_files(folder, env["excludes"])
    for name in [*needed, *_own_code(folder)]:
        if name not in files:
            raise ConfigError(
                f"{folder / name} would be left behind: .gitignore, .rayignore or the excludes of "
                f"{RUNTIME_ENV} match it. Write the pattern with a leading slash (/data, not data)"
            )
    total = sum(size + ENTRY_BYTES + 2 * len(name) for name, size in files.items())
    if total > limit:
        raise ResourceError(
            f"the working directory {folder} is {_mib(total)}, Ray takes at most "
            f"{_mib(limit)} with a job. The largest in it:\n"
            + "\n".join(f"  {_mib(size):>12}  {name}" for name, size in largest(files))
            + f"\nMove data out of it, or name these under excludes in {folder / RUNTIME_ENV}."
        )
    return total


def largest(files: dict[str, int], count: int = 5) -> list[tuple[str, int]]:
    """The heaviest entries of the top two levels, the heaviest first."""
    sizes: Counter[str] = Counter()
    for name, size in files.items():
        parts = name.split("/")
        sizes["/".join(parts[:2]) + ("/" if len(parts) > 2 else "")] += size
    return sizes.most_common(count)


def _own_code(folder: Path) -> list[str]:
    """This package's files, where they lie in the working directory."""
    if not (folder / "vmcmc_dist" / "__main__.py").is_file():
        return []
    return [p.relative_to(folder).as_posix() for p in (folder / "vmcmc_dist").rglob("*.py")]


def _mib(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"


def _silent() -> Any:
    """Ray tells of every .gitignore on the logger that it is given."""
    import logging

    logger = logging.getLogger("vmcmc_dist.package")
    logger.setLevel(logging.ERROR)
    return logger
