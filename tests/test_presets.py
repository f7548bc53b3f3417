"""Presets: built on each other, chosen by the machine, and those that come with the package."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from vmcmc_dist.config import (
    load_config,
    to_yaml,
)
from vmcmc_dist.errors import ConfigError

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))


def presets(path: Path) -> list[str]:
    return list(OmegaConf.load(path).get("presets", {})) or ["auto"]


EVERY = [(path, preset) for path in CONFIGS for preset in presets(path)]


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


@pytest.mark.parametrize(
    ("preset", "energy_lr", "vae_lr", "batch"),
    [("modern", 1e-3, 2e-3, 32), ("cpu", 5e-4, 2e-3, 32), ("tiny", 5e-4, 2e-3, 8)],
)
def test_presets_build_on_each_other(
    chained: Path, preset: str, energy_lr: float, vae_lr: float, batch: int
) -> None:
    config = load_config(chained, [f"preset={preset}"])
    assert (config.energy.lr, config.vae.lr, config.train.batch_size) == (energy_lr, vae_lr, batch)
    assert config.preset == preset


def test_the_command_line_has_the_last_word(chained: Path) -> None:
    config = load_config(chained, ["preset=tiny", "train.batch_size=16", "energy.lr=7e-4"])
    assert (config.train.batch_size, config.energy.lr) == (16, 7e-4)


def test_auto_preset_follows_the_machine(chained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for gpu, preset in ((False, "cpu"), (True, "modern")):
        monkeypatch.setattr("torch.cuda.is_available", lambda gpu=gpu: gpu)
        assert load_config(chained).preset == preset


def test_unknown_preset_lists_those_there_are(chained: Path) -> None:
    with pytest.raises(ConfigError, match="no preset 'papre'.*modern, cpu, tiny"):
        load_config(chained, ["preset=papre"])


def test_a_preset_on_a_missing_or_circular_base(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("presets: {a: {base: b}, b: {base: a}}\n")
    with pytest.raises(ConfigError, match=r"a\.yaml"):
        load_config(path, ["preset=a"])
    path.write_text("presets: {a: {base: c}}\n")
    with pytest.raises(ConfigError, match="'c'"):
        load_config(path, ["preset=a"])


def test_typo_inside_a_preset_names_file_and_preset(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("presets: {modern: {energy: {lrr: 1}}}\n")
    with pytest.raises(ConfigError, match=r"a\.yaml, preset modern: .*lrr"):
        load_config(path, ["preset=modern"])


# -- the files that come with the package ----------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "preset"), EVERY, ids=[f"{path.stem}-{preset}" for path, preset in EVERY]
)
def test_every_preset_of_every_config_loads(path: Path, preset: str, tmp_path: Path) -> None:
    config = load_config(path, [f"preset={preset}"])
    config.langevin.check()
    written = tmp_path / "resolved.yaml"
    written.write_text(to_yaml(config))
    assert load_config(written) == config
