"""The config: strict, explained, and the same after a trip through YAML."""

from __future__ import annotations

import dataclasses
import json
import typing
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from vmcmc_dist.cli.keys import list_keys
from vmcmc_dist.config import (
    RESUMABLE,
    Config,
    config_from_dict,
    flatten,
    identity_changes,
    load_config,
    to_dict,
    to_yaml,
    validate,
    walk,
)
from vmcmc_dist.engine import resources
from vmcmc_dist.errors import ConfigError, ResourceError

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))


def presets(path: Path) -> list[str]:
    return list(OmegaConf.load(path).get("presets", {})) or ["auto"]


EVERY = [(path, preset) for path in CONFIGS for preset in presets(path)]


def typing_of_keys() -> list[tuple[str, Any]]:
    """(dotted key, type) of every leaf."""
    found = []
    for section in ("", *(f.name for f in dataclasses.fields(Config))):
        node = getattr(Config(), section) if section else Config()
        if dataclasses.is_dataclass(node):
            kinds = typing.get_type_hints(type(node))
            prefix = f"{section}." if section else ""
            found += [(prefix + name, kind) for name, kind in kinds.items()]
    return found


@pytest.fixture
def chained(tmp_path: Path) -> Path:
    path = tmp_path / "chained.yaml"
    path.write_text(
        "train: {batch_size: 32}\n"
        "presets:\n"
        "  modern: {energy: {lr: 1e-3}, vae: {lr: 2e-3}}\n"
        "  cpu: {base: modern, energy: {lr: 5e-4}}\n"
        "  tiny: {base: cpu, train: {batch_size: 8}}\n"
    )
    return path


# -- what is refused, and how it is said -----------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("energy.lrr=1e-4", ["energy.lrr", "lr"]),
        ("langevn.steps=3", ["langevn", "langevin"]),
        ("train.batchsize=3", ["batchsize", "batch_size"]),
    ],
)
def test_typo_is_an_error_that_names_the_nearest_key(setting: str, said: list[str]) -> None:
    with pytest.raises(ConfigError, match="(?i)did you mean") as caught:
        load_config(None, [setting])
    for word in said:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("langevin.steps=abc", "langevin.steps"),
        ("langevin.steps=1.5", "langevin.steps"),
        ("train.precision=fp8", "train.precision"),
        ("data.flip=perhaps", "data.flip"),
        ("energy=3", "energy"),
    ],
)
def test_wrong_type_names_the_key_on_one_line(setting: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, [setting])
    message = str(caught.value)
    assert said in message and "command line" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("energy.lr=0", "energy.lr must be > 0, got 0"),
        ("energy.lr=-1e-4", "energy.lr must be > 0"),
        ("vae.beta2=1", "vae.beta2 must be ≥ 0, < 1, got 1"),
        ("energy.zero_stage=4", "energy.zero_stage must be ≥ 0, ≤ 3, got 4"),
        ("langevin.temperature=-1", "langevin.temperature must be ≥ 0"),
        ("resources.workers=0", "resources.workers must be ≥ 1"),
        ("train.batch_size=0", "train.batch_size must be ≥ 1"),
        ("energy.lr=nan", "energy.lr"),
        ("energy.lr=inf", "energy.lr"),
    ],
)
def test_out_of_range_names_key_range_and_value(setting: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, [setting])
    assert said in str(caught.value)


@pytest.mark.parametrize("word", ["energy.lr", "--energy.lr=3", "-x", "=3"])
def test_something_else_than_key_value(word: str) -> None:
    with pytest.raises(ConfigError, match="key=value|cannot read"):
        load_config(None, [word])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("energy: {lr: 1e-4", "not readable as YAML"),
        ("- 1\n- 2\n", "mapping"),
        ("energy: {lr: 1e-4}\nenergi: {}\n", "energi"),
        ("energy: {lr: fast}\n", "energy.lr"),
        ("", None),
    ],
)
def test_bad_file_is_named(tmp_path: Path, text: str, said: str | None) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    if said is None:
        assert load_config(path) == Config()
        return
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert said in str(caught.value) and "bad.yaml" in str(caught.value)


LITERALS = [
    (key, option)
    for key, value in typing_of_keys()
    for option in typing.get_args(value)
    if typing.get_origin(value) is typing.Literal
]


@pytest.mark.parametrize(("key", "option"), LITERALS)
def test_every_option_can_be_written_as_it_is(key: str, option: str) -> None:
    """YAML takes a bare on, off, yes or no for a boolean."""
    layer = OmegaConf.from_dotlist([f"{key}={option}"])
    assert OmegaConf.select(layer, key) == option


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(ConfigError, match=r"bad\.yaml"):
        load_config(path)


def test_missing_file() -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml is not there"):
        load_config("nowhere.yaml")


def test_two_runs_cannot_hide_in_a_path() -> None:
    for name in ("a/b", "..", ".", "", "a:b"):
        with pytest.raises(ConfigError, match="name"):
            load_config(None, [f"name={name}"])


# -- what only holds between keys ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            ["resources.workers=2", "train.accumulation=3", "train.batch_size=64"],
            ["train.batch_size=64", "2 workers × 3 micro-batches", "multiple of 6"],
        ),
        (["resources.workers=4", "train.chains=10"], ["train.chains=10", "multiple of 4"]),
        (["launcher=local", "resources.workers=2"], ["launcher=ray", "torchrun"]),
        (["langevin.adjusted=true", "langevin.temperature=0"], ["langevin.temperature"]),
        (["langevin.final_scale=0.5"], ["langevin.final_scale", "langevin.schedule"]),
        (
            ["train.overlap=true", "vae.zero_stage=2"],
            ["train.overlap=true", "vae.zero_stage=0", "got 2"],
        ),
        (["vae.refined_weight=0"], ["vae.refined_weight", "vae.data_weight"]),
        (["data.source=toy2d"], ["energy.net=modern", "mlp"]),
    ],
)
def test_combinations_that_cannot_work(settings: list[str], said: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, settings)
    for words in said:
        assert words in str(caught.value)


def test_machine_is_asked_before_anything_is_allocated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    many = resources.cpu_count() + 1
    with pytest.raises(ResourceError, match=f"resources.workers={many} needs {many} CPUs"):
        resources.resolve(
            load_config(None, [f"resources.workers={many}", f"train.batch_size={many}"])
        )


def test_fp16_needs_a_gpu() -> None:
    with pytest.raises(ConfigError, match="train.precision=fp16 needs a GPU"):
        resources.resolve(
            load_config(None, ["train.precision=fp16", "resources.device=cpu", "launcher=local"])
        )


def test_torchrun_is_told_from_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="torchrun -m vmcmc_dist"):
        monkeypatch.delenv("WORLD_SIZE", raising=False)
        resources.resolve(load_config(None, ["launcher=torchrun"]))
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("WORLD_SIZE", "4")
    resolved = resources.resolve(load_config(None, []))
    assert (resolved.launcher, resolved.resources.workers) == ("torchrun", 4)
    with pytest.raises(ConfigError, match="train.batch_size=6 cannot be split over 4 workers"):
        resources.resolve(load_config(None, ["train.batch_size=6"]))


def test_resolve_leaves_no_auto_and_no_relative_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    config = load_config(None, ["data.root=some/where", "data.shards=s3://bucket/prefix"])
    resolved = resources.resolve(config)
    values = flatten(to_dict(resolved))
    for key in ("launcher", "train.precision", "resources.device"):
        assert values[key] != "auto"
    assert Path(resolved.out).is_absolute() and Path(str(resolved.data.root)).is_absolute()
    assert resolved.data.shards == "s3://bucket/prefix"
    assert resources.resolve(resolved) == resolved


# -- round trips -----------------------------------------------------------------------------------


def test_yaml_json_and_dict_give_the_same_config(tmp_path: Path) -> None:
    settings = ["energy.lr=2e-4", "langevin.reference_std=0.016", "data.limit=10", "name=x y"]
    config = load_config(None, settings)
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(config))
    assert load_config(path) == config
    assert config_from_dict(to_dict(config)) == config
    assert config_from_dict(json.loads(json.dumps(to_dict(config)))) == config
    assert not identity_changes(json.loads(json.dumps(to_dict(config))), to_dict(config))


def test_config_from_dict_is_strict() -> None:
    with pytest.raises(ConfigError, match="lrr"):
        config_from_dict({"energy": {"lrr": 1}})


# -- which run is it? ------------------------------------------------------------------------------


def changed(config: Config, key: str, value: object) -> Config:
    values = to_dict(config)
    *path, last = key.split(".")
    node = values
    for part in path:
        node = node[part]
    node[last] = value
    return config_from_dict(values)


def test_identity_changes_name_key_old_and_new() -> None:
    old = load_config(None, [])
    new = changed(changed(old, "energy.lr", 5e-4), "langevin.steps", 7)
    assert identity_changes(to_dict(old), to_dict(new)) == [
        "energy.lr: 0.0001 → 0.0005",
        "langevin.steps: 20 → 7",
    ]


def test_what_only_says_how_long_where_and_how_often_may_change() -> None:
    old = load_config(None, [])
    new = load_config(
        None,
        [
            "out=elsewhere", "train.images=5", "train.max_minutes=3", "train.log_images=7",
            "resources.workers=2", "energy.zero_stage=2", "data.root=/moved", "guard.action=stop",
            "sampling.steps=3", "watch.tensorboard=false", "launcher=ray",
        ],
    )  # fmt: skip
    assert identity_changes(to_dict(old), to_dict(new)) == []


def test_a_key_that_came_or_went_is_a_change() -> None:
    old = to_dict(load_config(None, []))
    new = json.loads(json.dumps(old))
    del new["energy"]["penalty"]
    assert identity_changes(old, new) == ["energy.penalty: 0.0 → None"]


def test_resumable_keys_exist() -> None:
    keys = {key for key, _, _ in walk(Config())}
    sections = {key.split(".")[0] for key in keys}
    assert [key for key in RESUMABLE if key not in keys | sections] == []


# -- help ------------------------------------------------------------------------------------------


def test_help_lists_every_key_with_meaning_range_and_unit() -> None:
    lines = list_keys()
    text = "\n".join(lines)
    heads = {line.split("=", 1)[0].strip(): i for i, line in enumerate(lines) if "=" in line}
    for key, field, _ in walk(Config()):
        assert field.metadata.get("help"), f"{key} has no help"
        assert key in heads, f"{key} is not in the help"
        first, second = lines[heads[key]], lines[heads[key] + 1]
        assert field.metadata["help"] in second
        assert field.metadata["unit"] in first
    assert "energy.lr=0.0001  (float, > 0)" in text
    assert "energy.zero_stage=0  (int, ≥ 0, ≤ 3)" in text
    assert "train.images=1000000  (int, ≥ 1, images)" in text
    assert "train.precision=auto  (auto|fp32|bf16|fp16)" in text


def test_every_default_is_inside_its_range() -> None:
    validate(Config())
    for key, field, value in walk(Config()):
        assert dataclasses.MISSING is not value, key
        assert "bounds" in field.metadata, f"{key} was not made by setting()"
