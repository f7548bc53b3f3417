"""The config of a run: a tree of dataclasses, filled strictly from YAML and ``key=value``.

    config = load_config("configs/fashion_mnist.yaml", ["energy.lr=2e-4"])

Each branch lives beside the code that reads it. A file may hold ``presets``; ``preset=NAME``
picks one (``auto``: ``modern`` on a machine with a GPU, ``cpu`` without).
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from vmcmc_dist.data.config import ConditionConfig, DataConfig, refuse_credentials
from vmcmc_dist.engine.config import (
    EvaluationConfig,
    OptimizerConfig,
    ResourcesConfig,
    SamplingConfig,
    StoreConfig,
    TrainConfig,
    WatchConfig,
)
from vmcmc_dist.errors import ConfigError
from vmcmc_dist.langevin.config import LangevinConfig
from vmcmc_dist.models.build import EnergyNetConfig, VAENetConfig
from vmcmc_dist.settings import out_of_range, setting
from vmcmc_dist.teaching.config import EnergyObjective, GuardConfig, VAEObjective


@dataclass
class EnergyConfig(EnergyNetConfig, EnergyObjective, OptimizerConfig):
    """The energy-based model: its net, its loss, its optimizer."""


@dataclass
class VAEConfig(VAENetConfig, VAEObjective, OptimizerConfig):
    """The VAE, amortized sampler of the energy: its net, its loss, its optimizer."""


@dataclass
class Config:
    """Everything that a run depends on."""

    name: str = setting("run", "the run's folder under `out`; the same name resumes the run")
    out: str = setting("runs", "folder of run folders, local or s3://bucket/prefix")
    preset: str = setting("auto", "preset of the config file")
    seed: int = setting(0, "of initial weights, data order and noise", ge=0)
    launcher: Literal["auto", "ray", "local", "torchrun"] = setting(
        "auto",
        "ray: Ray Train; local: this process; torchrun: under torchrun; auto: ray, or "
        "torchrun where that started us",
    )
    data: DataConfig = field(default_factory=DataConfig)
    condition: ConditionConfig = field(default_factory=ConditionConfig)
    energy: EnergyConfig = field(default_factory=EnergyConfig)
    vae: VAEConfig = field(default_factory=VAEConfig)
    langevin: LangevinConfig = field(default_factory=LangevinConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    guard: GuardConfig = field(default_factory=GuardConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    resources: ResourcesConfig = field(default_factory=ResourcesConfig)
    store: StoreConfig = field(default_factory=StoreConfig)
    watch: WatchConfig = field(default_factory=WatchConfig)


DEVICE = "VMCMC_DEVICE"
RESUMABLE = (
    "out", "preset", "launcher", "train.images", "train.max_minutes", "train.pause_images",
    "train.log_images",
    "train.sample_images", "train.pictures", "train.checkpoint_images", "train.keep", "train.best",
    "train.overlap",
    "energy.zero_stage", "vae.zero_stage", "data.root", "data.shards", "data.workers",
    "data.prefetch", "data.cache_mb", "data.verify", "data.prepare_workers",
    "data.retry_s", "data.stall_s",
    "sampling", "evaluation", "resources", "store", "watch", "guard",
)  # fmt: skip
"""Keys that may change when a run is resumed; any other change is another run."""


def load_config(path: str | Path | None, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file (or none) and ``key=value`` overrides into a checked :class:`Config`.

    Raises:
        ConfigError: unreadable file, unknown key (with the nearest right one), value of the
            wrong type or out of range, or a combination that cannot work.
    """
    schema = OmegaConf.structured(Config)
    command_line = _dotlist(overrides)
    merged = schema
    for origin, layer in [*_file_layers(path, command_line), ("command line", command_line)]:
        for key in layer:
            if OmegaConf.is_config(schema.get(key)) and not OmegaConf.is_config(layer[key]):
                raise ConfigError(f"{origin}: {key!s} is a group of settings; set {key!s}.KEY")
        try:
            merged = cast(DictConfig, OmegaConf.merge(merged, layer))
        except OmegaConfBaseException as error:
            raise ConfigError(f"{origin}: {_explain(error)}") from None
    config = cast(Config, OmegaConf.to_object(merged))
    validate(config)
    return config


T = TypeVar("T")


def fill(cls: type[T], overrides: Sequence[str], path: str | Path | None = None) -> T:
    """A dataclass of settings, filled strictly from ``key=value`` and, before, from a YAML file.

        settings = fill(synthesis.Settings, ["n=500", "temperature=null"])

    Raises:
        ConfigError: as :func:`load_config`.
    """
    merged = OmegaConf.structured(cls)
    layers = [] if path is None else [(f"{path}: ", _read_yaml(path))]
    for origin, layer in [*layers, ("", _dotlist(overrides))]:
        try:
            merged = OmegaConf.merge(merged, layer)
        except OmegaConfBaseException as error:
            raise ConfigError(origin + _explain(error)) from None
    filled = cast(T, OmegaConf.to_object(merged))
    _check_ranges(filled)
    return filled


def override(config: Config, settings: dict[str, Any]) -> Config:
    """A copy with ``{"energy.lr": 2e-4}`` set, checked as by :func:`load_config`."""
    base = OmegaConf.structured(config)
    try:
        for key, value in settings.items():
            OmegaConf.update(base, key, value)
    except OmegaConfBaseException as error:
        raise ConfigError(_explain(error)) from None
    changed = cast(Config, OmegaConf.to_object(base))
    validate(changed)
    return changed


def config_from_dict(values: dict[str, Any]) -> Config:
    """The inverse of :func:`to_dict`, strict."""
    try:
        merged = OmegaConf.merge(OmegaConf.structured(Config), OmegaConf.create(values))
    except OmegaConfBaseException as error:
        raise ConfigError(_explain(error)) from None
    return cast(Config, OmegaConf.to_object(merged))


def to_dict(config: Config) -> dict[str, Any]:
    """Plain nested dictionaries, as for YAML, JSON, or another process."""
    return dataclasses.asdict(config)


def to_yaml(config: Any) -> str:
    """The resolved config (or another dataclass) as YAML; reading it back gives the same."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"energy": {"lr": 1}}`` → ``{"energy.lr": 1}``."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def identity_changes(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Lines ``key: old → new`` for each difference that makes it another run."""
    old, new = flatten(old), flatten(new)
    lines = []
    for key in sorted(old.keys() | new.keys()):
        free = any(key == name or key.startswith(name + ".") for name in RESUMABLE)
        if not free and old.get(key) != new.get(key):
            lines.append(f"{key}: {old.get(key)!r} → {new.get(key)!r}")
    return lines


def walk(node: Any, prefix: str = "") -> Iterator[tuple[str, dataclasses.Field, Any]]:
    """(dotted key, field, value) of every leaf of a tree of dataclasses."""
    for item in dataclasses.fields(node):
        value = getattr(node, item.name)
        if dataclasses.is_dataclass(value):
            yield from walk(value, f"{prefix}{item.name}.")
        else:
            yield prefix + item.name, item, value


def validate(config: Config) -> None:
    """Ranges of every field, then what only holds between fields."""
    _check_ranges(config)
    if config.name in ("", ".", "..") or any(c in config.name for c in "/\\:"):
        raise ConfigError(f"name must be a plain folder name, got {config.name!r}")
    train, workers = config.train, config.resources.workers
    _check_workers(config)
    if config.launcher == "local" and workers > 1:
        raise ConfigError(
            f"launcher=local is one process; for resources.workers={workers} use launcher=ray, "
            "or start with torchrun"
        )
    if train.overlap:
        for key, stage in (("energy", config.energy.zero_stage), ("vae", config.vae.zero_stage)):
            if stage:
                raise ConfigError(
                    f"train.overlap=true needs {key}.zero_stage=0, got {stage}: ZeRO reduces "
                    "gradients as it partitions them"
                )
    config.langevin.check()
    config.data.check()
    if config.out.startswith("s3://"):
        refuse_credentials(config.out)
    elif "://" in config.out:
        raise ConfigError(f"out={config.out}: give a local folder or s3://bucket/prefix")
    if config.vae.refined_weight == 0 and config.vae.data_weight == 0:
        raise ConfigError(
            "vae.refined_weight and vae.data_weight are both 0: the VAE learns nothing"
        )
    if config.energy.label_weight and config.condition.kind != "class":
        raise ConfigError(
            f"energy.label_weight={config.energy.label_weight:g} is for classes; set "
            "condition.kind=class, or energy.label_weight=0"
        )
    if config.condition.kind != "none":
        if train.chains not in (0, train.batch_size):
            raise ConfigError(
                f"train.chains={train.chains}: a conditional model takes the conditions of its "
                "chains from the data, one each; set train.chains=0"
            )
        for key, net in (("energy.net", config.energy.net), ("vae.net", config.vae.net)):
            if net != "modern":
                raise ConfigError(f"{key}={net} takes no condition; set {key}=modern")
    if config.data.source == "toy2d":
        for key, net in (("energy.net", config.energy.net), ("vae.net", config.vae.net)):
            if net != "mlp":
                raise ConfigError(f"{key}={net} is for images; data.source=toy2d needs mlp")


def _check_workers(config: Config) -> None:
    """Whether the batch can be split over any number of workers that there may be."""
    train, most = config.train, config.resources.workers
    least = config.resources.min_workers or most
    if least > most:
        raise ConfigError(
            f"resources.min_workers={least} is more than resources.workers={most}; set at most "
            f"{most}, or 0 for a fixed number"
        )
    if least < most and config.launcher in ("local", "torchrun"):
        raise ConfigError(
            f"resources.min_workers={least}: only Ray changes the number of workers; set "
            "launcher=ray, or resources.min_workers=0"
        )
    for workers in range(least, most + 1):
        share = workers * train.accumulation
        for key, count in (("train.batch_size", train.batch_size), ("train.chains", train.chains)):
            if count % share:
                every = math.lcm(*range(least, most + 1)) * train.accumulation
                raise ConfigError(
                    f"{key}={count} cannot be split over {workers} workers × "
                    f"{train.accumulation} micro-batches; make it a multiple of {every}"
                )


def _check_ranges(node: Any) -> None:
    """ConfigError naming the first field that is not finite or out of its bounds."""
    for key, item, value in walk(node):
        problem = out_of_range(item, value)
        if isinstance(value, float) and not math.isfinite(value):
            problem = f"must be a finite number, got {value}"
        if problem:
            raise ConfigError(f"{key} {problem}")


def _dotlist(overrides: Sequence[str]) -> DictConfig:
    for item in overrides:
        if "=" not in item or item.startswith(("-", "=")):
            raise ConfigError(
                f"cannot read '{item}': settings are given as key=value, e.g. energy.lr=2e-4"
            )
    try:
        return OmegaConf.from_dotlist(list(overrides))
    except (OmegaConfBaseException, YAMLError) as error:
        raise ConfigError(f"cannot read the settings {list(overrides)}: {error}") from None


def _read_yaml(path: str | Path) -> DictConfig:
    if not Path(path).is_file():
        raise ConfigError(f"config file {path} is not there; try configs/faces.yaml")
    try:
        content = OmegaConf.load(path)
    except (OmegaConfBaseException, YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not readable as YAML: {error}") from None
    if not isinstance(content, DictConfig):
        raise ConfigError(f"{path} must hold a mapping of settings")
    return content


def _file_layers(
    path: str | Path | None, command_line: DictConfig
) -> Iterator[tuple[str, DictConfig]]:
    if path is None:
        return
    content = _read_yaml(path)
    presets = content.pop("presets", None) or {}
    yield str(path), content
    if not presets:
        return
    wanted = str(command_line.get("preset", content.get("preset", "auto")))
    if wanted == "auto":
        wanted = auto_preset(list(presets))
        command_line["preset"] = wanted
    for name in _preset_chain(path, presets, wanted):
        layer = OmegaConf.create({k: v for k, v in presets[name].items() if k != "base"})
        yield f"{path}, preset {name}", layer


def _preset_chain(path: str | Path, presets: Any, wanted: str) -> list[str]:
    chain: list[str] = []
    name: str | None = wanted
    while name is not None:
        if name not in presets or name in chain:
            raise ConfigError(f"{path} has no preset '{name}'; it has {', '.join(presets)}")
        chain.insert(0, name)
        name = presets[name].get("base")
    return chain


def auto_preset(names: list[str]) -> str:
    """``modern`` with a GPU; ``cpu`` (or ``modern``, if there is none) without."""
    if auto_device() == "cpu" and "cpu" in names:
        return "cpu"
    return "modern" if "modern" in names else names[0]


def auto_device() -> Literal["cpu", "cuda"]:
    """``cuda`` with a GPU here, else ``cpu``; or ``$VMCMC_DEVICE``, which the nodes of a cluster
    set whose head, where a job's driver runs, has no GPU.

    Raises:
        ConfigError: that variable is neither.
    """
    said = os.environ.get(DEVICE)
    if said == "cpu":
        return "cpu"
    if said == "cuda":
        return "cuda"
    if said:
        raise ConfigError(f"{DEVICE}={said} in the environment: it may be cpu or cuda")
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _explain(error: OmegaConfBaseException) -> str:
    """OmegaConf's message on one line, with the key in front."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = " ".join(
        line for line in lines if not line.startswith(("full_key:", "object_type=", "reference_"))
    )
    key = getattr(error, "full_key", None)
    return f"{key}: {text}" if key and f"'{key}'" not in text else text
