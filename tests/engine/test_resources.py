"""What is decided and refused on this machine before anything starts."""

from __future__ import annotations

import importlib.util

import pytest

from vmcmc_dist.config import load_config
from vmcmc_dist.engine import resources
from vmcmc_dist.errors import ConfigError


@pytest.mark.parametrize("package", ["wandb", "mlflow"])
def test_a_tracker_that_is_not_installed(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    config = load_config(None, [f"watch.{package}=somewhere"])
    with pytest.raises(ConfigError, match=rf"pip install 'vmcmc_dist\[{package}\]'"):
        resources.resolve(config)


def test_auto_is_decided_and_paths_are_absolute() -> None:
    config = resources.resolve(load_config(None, ["data.root=raw", "out=runs"]))
    assert config.train.precision in ("fp32", "bf16")
    assert config.launcher in ("ray", "torchrun")
    assert config.resources.device in ("cpu", "cuda")
    assert config.data.root and config.data.root.startswith("/") and config.out.startswith("/")


def test_buckets_stay_as_they_are() -> None:
    config = resources.resolve(load_config(None, ["data.root=s3://bucket/raw"]))
    assert config.data.root == "s3://bucket/raw"
