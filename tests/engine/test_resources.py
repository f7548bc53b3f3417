"""What is decided and refused on this machine before anything starts."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from vmcmc_dist.config import load_config
from vmcmc_dist.engine import resources
from vmcmc_dist.errors import ConfigError, ResourceError


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


def test_the_driver_of_a_gpu_cluster_needs_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a head without a GPU: `auto` goes by what the cluster's nodes say, at full speed."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setenv("VMCMC_DEVICE", "cuda")
    loaded = load_config("configs/celeba.yaml", ["resources.address=auto"])
    config = resources.resolve(loaded)
    assert (config.preset, config.resources.device) == ("modern", "cuda")
    assert config.train.precision == "bf16"
    monkeypatch.setenv("VMCMC_DEVICE", "gpu")
    with pytest.raises(ConfigError, match="VMCMC_DEVICE=gpu.*cpu or cuda"):
        load_config("configs/celeba.yaml")


def test_a_gpu_without_bf16_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation: False)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device: "Tesla V100")
    gpu = torch.device("cuda", 0)
    with pytest.raises(ResourceError, match="Tesla V100.*train.precision=fp16 or fp32"):
        resources.check_precision("bf16", gpu)
    resources.check_precision("fp16", gpu)
    resources.check_precision("bf16", torch.device("cpu"))


def test_buckets_stay_as_they_are() -> None:
    config = resources.resolve(load_config(None, ["data.root=s3://bucket/raw"]))
    assert config.data.root == "s3://bucket/raw"
