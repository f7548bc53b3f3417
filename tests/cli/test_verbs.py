"""The command line: help, exit statuses, and the verbs that need no long training."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from vmcmc_dist import __version__
from vmcmc_dist.cli import VERBS, main
from vmcmc_dist.config import Config, load_config, to_dict, walk
from vmcmc_dist.engine.checkpoint import Checkpoint, CheckpointFolder
from vmcmc_dist.engine.run_folder import RunFolder
from vmcmc_dist.models import build_energy, build_vae

NESTED = {
    "data": (
        "prepare",
        "inspect",
        "verify",
        "mirror",
        "index",
        "celeba-layout",
        "bench",
    ),
    "bench": ("chain", "step"),
}
HELPS = [(verb,) for verb in VERBS] + [(v, what) for v, all_ in NESTED.items() for what in all_]


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """(exit status, stdout, stderr) of ``vmcmc WORDS`` in this process."""
    try:
        status = main(words)
    except SystemExit as end:
        status = int(end.code or 0)
    out, err = capsys.readouterr()
    return status, out, err


def write_run(folder: Path, shape: tuple[int, ...], *settings: str) -> Path:
    """A run folder with one checkpoint of random nets."""
    config = load_config(
        None,
        [
            "name=tiny", "energy.width=4", "energy.depth=1", "vae.width=4", "vae.depth=1",
            "vae.latent_dim=3", "langevin.steps=2", "langevin.step_size=0.1",
            "train.precision=fp32", *settings,
        ],
    )  # fmt: skip
    torch.manual_seed(0)
    tensors = {}
    for suffix in ("", "_ema"):
        tensors["energy" + suffix] = build_energy(config.energy, shape).state_dict()
        tensors["vae" + suffix] = build_vae(config.vae, shape).state_dict()
    state = {"shape": list(shape), "score": 1.0, "good": True}
    run_folder = RunFolder(folder / "tiny")
    run_folder.create()
    CheckpointFolder(run_folder.checkpoints).save(Checkpoint(64, to_dict(config), state, tensors))
    return run_folder.path


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("images"), (1, 28, 28))


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(
        tmp_path_factory.mktemp("vectors"), (2,), "data.source=toy2d", "energy.net=mlp",
        "vae.net=mlp",
    )  # fmt: skip


# -- help and exit statuses ------------------------------------------------------------------------


@pytest.mark.parametrize("words", HELPS, ids=" ".join)
def test_help_of_every_verb(capsys, words: tuple[str, ...]) -> None:
    status, out, err = run(capsys, *words, "--help")
    assert status == 0 and out.startswith(f"usage: vmcmc {' '.join(words)}") and not err


def test_help_of_train_lists_every_key(capsys) -> None:
    _, out, _ = run(capsys, "train", "--help")
    for key, _, _ in walk(Config()):
        assert re.search(rf"^  {re.escape(key)}=", out, re.M), key


def test_help_of_data_lists_the_keys_of_data_alone(capsys) -> None:
    _, out, _ = run(capsys, "data", "prepare", "--help")
    assert "  data.source=" in out and "energy.lr" not in out


def test_the_help_itself_names_every_verb(capsys) -> None:
    status, out, _ = run(capsys, "--help")
    assert status == 0 and all(verb in out for verb in VERBS)
    assert run(capsys, "--version")[1].strip() == __version__


@pytest.mark.parametrize("words", [(), ("trian",), ("train",), ("data",), ("sample", "--stepz")])
def test_a_wrong_command_is_usage_and_status_2(capsys, words: tuple[str, ...]) -> None:
    status, _, err = run(capsys, *words)
    assert status == 2 and "usage: vmcmc" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("train", "nowhere.yaml"), "nowhere.yaml is not there"),
        (("config", "nowhere.yaml"), "nowhere.yaml is not there"),
        (("sample", "nowhere"), "has no checkpoints"),
        (("evaluate", "nowhere"), "has no checkpoints"),
        (("data", "prepare", "nowhere.yaml"), "nowhere.yaml is not there"),
    ],
)
def test_an_error_of_the_user_is_one_line_and_status_2(capsys, words, said: str) -> None:
    status, out, err = run(capsys, *words)
    assert status == 2 and said in err and err.startswith("vmcmc: ") and out == ""


def test_ctrl_c_is_status_130(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("vmcmc_dist.config.load_config", interrupted)
    assert run(capsys, "config", "a.yaml")[0] == 130


def test_python_dash_m_is_the_same(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "vmcmc_dist", "sample", str(tmp_path / "none")],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 2 and done.stderr.startswith("vmcmc: ") and "none" in done.stderr
    assert "Traceback" not in done.stderr


def test_help_loads_neither_torch_nor_ray() -> None:
    code = (
        "import sys\nfrom vmcmc_dist.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'ray', 'deepspeed', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


# -- config ----------------------------------------------------------------------------------------


def test_config_prints_what_can_be_read_again(capsys, tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("energy: {lr: 3e-4}\npresets: {modern: {vae: {lr: 5e-4}}}\n")
    status, out, _ = run(capsys, "config", str(path), "preset=modern", "seed=7")
    assert status == 0
    (tmp_path / "b.yaml").write_text(out)
    assert load_config(tmp_path / "b.yaml") == load_config(path, ["preset=modern", "seed=7"])
    assert yaml.safe_load(out)["energy"]["lr"] == 3e-4


def test_settings_may_stand_anywhere(capsys, tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("seed: 1\n")
    words = ("name=a", "--here", "launcher=local", "seed=5")
    status, out, err = run(capsys, "config", str(path), *words)
    values = yaml.safe_load(out)
    assert status == 0, err
    assert (values["name"], values["launcher"], values["seed"]) == ("a", "local", 5)
    assert run(capsys, "config", str(path), "--here", "launcher=local", "--hree")[0] == 2
    assert run(capsys, "sample", "a", "steps=3")[0] == 2


def test_config_here_decides_every_auto(capsys, tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("seed: 1\n")
    status, out, _ = run(capsys, "config", str(path), "--here", "launcher=local")
    values = yaml.safe_load(out)
    assert status == 0 and values["out"] == "runs"
    assert values["train"]["precision"] != "auto" and values["resources"]["device"] != "auto"


# -- sample ----------------------------------------------------------------------------------------


def test_sample_draws_a_grid_into_the_run(capsys, images: Path) -> None:
    status, out, _ = run(capsys, "sample", str(images), "-n", "4", "--seed", "3")
    path = images / "samples" / "drawn-3.png"
    assert status == 0 and out.strip() == str(path)
    with Image.open(path) as picture:
        assert picture.width > 2 * 28


def test_sample_to_npy_is_a_function_of_the_seed(capsys, images: Path, tmp_path: Path) -> None:
    drawn = {}
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        out = tmp_path / "deep" / f"{name}.npy"
        assert (
            run(capsys, "sample", str(images), "-n", "5", "--seed", seed, "--out", str(out))[0] == 0
        )
        drawn[name] = np.load(out, allow_pickle=False)
    assert drawn["a"].shape == (5, 1, 28, 28) and drawn["a"].dtype == np.float32
    assert np.array_equal(drawn["a"], drawn["b"]) and not np.array_equal(drawn["a"], drawn["c"])


def test_steps_and_weights_can_be_chosen(capsys, images: Path, tmp_path: Path) -> None:
    drawn = []
    for i, options in enumerate(([], ["--steps", "5"], ["--no-ema"], ["--checkpoint", "64"])):
        out = tmp_path / f"{i}.npy"
        assert run(capsys, "sample", str(images), "-n", "2", "--out", str(out), *options)[0] == 0
        drawn.append(np.load(out))
    assert np.array_equal(drawn[0], drawn[3])
    assert not np.array_equal(drawn[0], drawn[1]) and not np.array_equal(drawn[0], drawn[2])


def test_vectors_are_drawn_as_npy(capsys, vectors: Path) -> None:
    status, out, _ = run(capsys, "sample", str(vectors), "-n", "6")
    assert status == 0 and np.load(out.strip()).shape == (6, 2)
    status, _, err = run(capsys, "sample", str(vectors), "--out", "a.png")
    assert status == 2 and "write a .npy" in err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["-n", "0"], "-n"),
        (["--steps", "0"], "--steps"),
        (["--out", "a.jpg"], ".npy"),
        (["--checkpoint", "65"], "no checkpoint '65'"),
    ],
)
def test_bad_options_of_sample(capsys, images: Path, options: list[str], said: str) -> None:
    status, _, err = run(capsys, "sample", str(images), *options)
    assert status == 2 and said in err


def test_a_folder_that_cannot_take_samples(capsys, images: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "a.npy"
    status, _, err = run(capsys, "sample", str(images), "-n", "1", "--out", str(out))
    assert status == 2 and str(out) in err


# -- data ------------------------------------------------------------------------------------------


def test_inspect_the_built_in_faces(capsys, tmp_path: Path) -> None:
    path = tmp_path / "faces.yaml"
    path.write_text(
        f"data: {{source: faces, faces: 12, image_size: 32, shards: {tmp_path}/shards,\n"
        "       prepare_workers: 1}\n"
    )
    grid = tmp_path / "grid.png"
    status, out, _ = run(capsys, "data", "inspect", str(path), "--grid", str(grid))
    assert status == 0 and grid.exists()
    assert "num_samples" in out and "12" in out and "(3, 32, 32)" in out
    status, out, _ = run(capsys, "data", "prepare", str(path))
    assert status == 0 and out.startswith("12 samples, 1 shards")
    assert json.loads((tmp_path / "shards" / "manifest.json").read_text())


def test_data_that_are_not_there(capsys, tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(f"data: {{source: folder, root: {tmp_path}/none, shards: {tmp_path}/s}}\n")
    status, _, err = run(capsys, "data", "prepare", str(path))
    assert status == 2 and "none" in err and "Traceback" not in err
