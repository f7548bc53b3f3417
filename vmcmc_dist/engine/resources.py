"""What this machine offers, and what a config asks of it; checked before anything is allocated."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
from pathlib import Path

import torch

from vmcmc_dist.config import Config, auto_device, validate
from vmcmc_dist.data.conditions import condition_of
from vmcmc_dist.data.manifest import Manifest
from vmcmc_dist.errors import ConfigError, ResourceError
from vmcmc_dist.models import Condition, check_nets


def cpu_count() -> int:
    """CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def fast_bf16(device: str) -> bool:
    """Whether bf16 runs in hardware: CUDA since Ampere, or a CPU with AVX512-bf16 or AMX.

    Of GPUs that are on other machines it is assumed; workers look (:func:`check_precision`).
    """
    if device == "cuda":
        if not torch.cuda.is_available():
            return True
        return torch.cuda.is_bf16_supported(including_emulation=False)
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.exists() else ""
    return "avx512_bf16" in text or "amx_bf16" in text


def resolve(config: Config) -> Config:
    """The config with every ``auto`` decided on this machine and paths made absolute.

    Raises:
        ConfigError, ResourceError: what cannot work here.
    """
    train, resources, data = config.train, config.resources, config.data
    device = auto_device() if resources.device == "auto" else resources.device
    launcher = config.launcher
    if launcher == "auto":
        launcher = "torchrun" if "TORCHELASTIC_RUN_ID" in os.environ else "ray"
    workers = resources.workers
    if launcher == "torchrun":
        if "WORLD_SIZE" not in os.environ:
            raise ConfigError("launcher=torchrun: start with `torchrun -m vmcmc_dist train …`")
        workers = int(os.environ["WORLD_SIZE"])
    address = resources.address
    if address is None and launcher == "ray":
        address = os.environ.get("RAY_ADDRESS")
    precision = train.precision
    if precision == "auto":
        precision = "bf16" if fast_bf16(device) else "fp32"
    resolved = dataclasses.replace(
        config,
        out=config.out.rstrip("/") if "://" in config.out else str(Path(config.out).absolute()),
        launcher=launcher,
        train=dataclasses.replace(train, precision=precision),
        data=dataclasses.replace(data, root=_absolute(data.root), shards=_absolute(data.shards)),
        resources=dataclasses.replace(resources, device=device, workers=workers, address=address),
    )
    check(resolved)
    return resolved


def check_precision(precision: str, device: torch.device) -> None:
    """:class:`ResourceError` if a worker's GPU would only emulate bf16."""
    if precision == "bf16" and device.type == "cuda" and not fast_bf16("cuda"):
        raise ResourceError(
            f"train.precision=bf16, which {torch.cuda.get_device_name(device)} has not in "
            "hardware; set train.precision=fp16 or fp32"
        )


def check(config: Config) -> None:
    """Precision and number of workers against this machine (a cluster is asked by the launcher).

    Raises:
        ConfigError, ResourceError: with what to change.
    """
    validate(config)  # again: torchrun says how many workers there are
    device, workers = config.resources.device, config.resources.workers
    for package in ("wandb", "mlflow"):
        if getattr(config.watch, package) and importlib.util.find_spec(package) is None:
            raise ConfigError(
                f"watch.{package} needs the package {package}: pip install 'vmcmc_dist[{package}]'"
            )
    if device == "cuda" and not torch.cuda.is_available() and config.resources.address is None:
        raise ResourceError("resources.device=cuda, but this machine has no usable GPU")
    if config.train.precision == "fp16":
        if device != "cuda":
            raise ConfigError("train.precision=fp16 needs a GPU; use bf16 or fp32 on a CPU")
        for key in ("energy", "vae"):
            if getattr(config, key).zero_stage == 0:
                raise ConfigError(f"train.precision=fp16 needs {key}.zero_stage ≥ 1")
    if config.resources.address is not None or config.launcher != "ray":
        return
    have = torch.cuda.device_count() if device == "cuda" else cpu_count()
    kind = "GPUs" if device == "cuda" else "CPUs"
    needed = workers * max(config.resources.cpus_per_worker, 1 if device == "cpu" else 0)
    if (workers if device == "cuda" else needed) > have:
        raise ResourceError(
            f"resources.workers={workers} needs {needed:g} {kind}, this machine has {have}; set "
            f"resources.workers={have} or fewer, or give a cluster's resources.address"
        )


def check_data(config: Config, manifest: Manifest) -> None:
    """Whether the nets and the condition fit the data; :class:`ConfigError` if not."""
    condition = Condition.of(condition_of(config.condition, manifest))
    shape = tuple(manifest.shape)
    check_nets(config.energy, shape, "energy", condition)
    check_nets(config.vae, shape, "vae", condition)


def _absolute(path: str | None) -> str | None:
    if path is None or "://" in path:
        return path
    return str(Path(path).expanduser().absolute())
