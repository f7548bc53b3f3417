"""Which variables of this shell a job gets, and which it must not."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from vmcmc_dist.errors import ConfigError

PASSED = {
    "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION",
    "MLFLOW_TRACKING_URI", "WANDB_ENTITY", "WANDB_PROJECT", "WANDB_MODE", "WANDB_BASE_URL",
    "WANDB_TAGS", "WANDB_RUN_GROUP",
}  # fmt: skip
"""By name: where the store and the trackers are."""
PREFIXES = ("NCCL_", "TORCH_NCCL_", "GLOO_", "FI_")
"""By prefix: how the nodes talk to one another."""

SECRET_NAME = re.compile(
    r"(^|_)(API)?(KEYS?|SECRETS?|TOKENS?|PASS(WORDS?|WD)?|CREDENTIALS?|AUTH|PAT)(_|$)", re.I
)
SECRET_VALUE = re.compile(r"://[^/\s@:]*:[^/\s@]+@|\b(AKIA|ASIA)[0-9A-Z]{16}\b")

INSTEAD = (
    "a job's environment and command stand in Ray's dashboard and its logs. Give the secret to the "
    "nodes: an IAM role or service account for a bucket, a Secret of Kubernetes (envFrom), or "
    "an export in the cluster file's commands that start Ray"
)


def job_environment(
    shell: Mapping[str, str], asked: Sequence[str] = ()
) -> tuple[dict[str, str], list[str]]:
    """Variables for the job, and names of secrets that were left out.

    Args:
        shell: the environment of this process; of it go the names of ``PASSED`` and ``PREFIXES``.
        asked: ``NAME`` (its value in ``shell``) or ``NAME=value``.

    Raises:
        ConfigError: a variable that was asked for is not set, or looks like a secret.
    """
    passed = {
        name: value
        for name, value in shell.items()
        if (name in PASSED or name.startswith(PREFIXES)) and not is_secret(name, value)
    }
    for word in asked:
        name, given, value = word.partition("=")
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise ConfigError(f"--env {name}: give NAME or NAME=value")
        if not given and name not in shell:
            raise ConfigError(f"--env {name}: the variable is not set here; set it, or NAME=value")
        passed[name] = value if given else shell[name]
    refuse_secrets(passed, "--env")
    left_out = [
        name
        for name, value in shell.items()
        if name.startswith(("WANDB_", "AWS_", "MLFLOW_", *PREFIXES)) and is_secret(name, value)
    ]
    return dict(sorted(passed.items())), sorted(left_out)


def is_secret(name: str, value: str) -> bool:
    """Whether a variable looks like a secret, by its name or by what it holds."""
    return bool(SECRET_NAME.search(name) or SECRET_VALUE.search(value))


def refuse_secrets(variables: Mapping[str, str], origin: str) -> None:
    """:class:`ConfigError` naming the first variable that looks like a secret, not its value."""
    for name, value in variables.items():
        if is_secret(name, str(value)):
            raise ConfigError(f"{origin} {name} looks like a secret, and {INSTEAD}.")


def refuse_secret_settings(settings: Sequence[str]) -> None:
    """:class:`ConfigError` if a ``key=value`` holds a password; the job's command is public."""
    for setting in settings:
        key, _, value = setting.partition("=")
        if SECRET_VALUE.search(value):
            raise ConfigError(f"{key}=… holds a password or key, and {INSTEAD}.")
