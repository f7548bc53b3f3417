"""What of the shell a job gets; no secret is among it."""

from __future__ import annotations

import pytest

from vmcmc_dist.engine.job_environment import (
    is_secret,
    job_environment,
    refuse_secret_settings,
    refuse_secrets,
)
from vmcmc_dist.errors import ConfigError

SHELL = {
    "HOME": "/home/me",
    "AWS_ENDPOINT_URL": "http://store:9000",
    "AWS_REGION": "eu-central-1",
    "AWS_SECRET_ACCESS_KEY": "hidden-1",
    "AWS_ACCESS_KEY_ID": "hidden-2",
    "NCCL_SOCKET_IFNAME": "eth0",
    "GLOO_SOCKET_IFNAME": "eth0",
    "WANDB_PROJECT": "faces",
    "WANDB_API_KEY": "hidden-3",
    "RAY_AUTH_TOKEN": "hidden-4",
    "MLFLOW_TRACKING_URI": "https://me:hidden-5@tracker",
}


def test_places_and_network_are_passed_and_no_secret() -> None:
    passed, left_out = job_environment(SHELL, ["MINE=1"])
    assert set(passed) == {
        "AWS_ENDPOINT_URL", "AWS_REGION", "NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME",
        "WANDB_PROJECT", "MINE",
    }  # fmt: skip
    assert "hidden" not in str(passed)
    assert left_out == [
        "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_URI", "WANDB_API_KEY",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "word", ["WANDB_API_KEY", "WANDB_API_KEY=hidden-3", "DB=postgres://me:hidden-3@db/x"]
)
def test_a_secret_that_is_asked_for_is_refused_and_not_repeated(word: str) -> None:
    with pytest.raises(ConfigError, match="looks like a secret.*dashboard.*IAM role") as said:
        job_environment(SHELL, [word])
    assert "hidden" not in str(said.value)


def test_a_variable_that_is_not_set() -> None:
    with pytest.raises(ConfigError, match="NOWHERE: the variable is not set"):
        job_environment(SHELL, ["NOWHERE"])


@pytest.mark.parametrize("name", ["TOKENIZERS_PARALLELISM", "NCCL_DEBUG", "KEYBOARD", "COMPASS"])
def test_names_that_only_look_alike_are_no_secrets(name: str) -> None:
    assert not is_secret(name, "1")


def test_secrets_in_files_and_settings() -> None:
    with pytest.raises(ConfigError, match="runtime_env.yaml: HF_TOKEN"):
        refuse_secrets({"HF_TOKEN": "hidden"}, "runtime_env.yaml:")
    with pytest.raises(ConfigError, match="watch.mlflow=… holds a password") as said:
        refuse_secret_settings(["seed=1", "watch.mlflow=https://me:hidden@host"])
    assert "hidden" not in str(said.value)
    refuse_secret_settings(["watch.mlflow=https://host:8443/a@b", "out=s3://bucket/a"])
