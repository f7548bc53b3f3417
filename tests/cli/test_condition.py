"""``vmcmc sample --condition``: what is asked is what is drawn; what fits no run is said."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vmcmc_dist
from vmcmc_dist.cli import main
from vmcmc_dist.config import load_config, to_dict
from vmcmc_dist.engine.checkpoint import Checkpoint, CheckpointFolder
from vmcmc_dist.engine.run_folder import RunFolder
from vmcmc_dist.models import Condition, build_energy, build_vae

LABELS = {
    "class": ["T-shirt/top", "Trouser", "Bag"],
    "attributes": ["Smiling", "Male", "Eyeglasses"],
}
KINDS = {
    "none": None,
    "class": Condition("class", 3),
    "attributes": Condition("attributes", 3),
    "pair": Condition("image", 1),
    "inpaint": Condition("image", 4),
    "upscale": Condition("image", 3),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A run folder of random nets for each kind of condition; colour images of 28 pixels."""
    folder = tmp_path_factory.mktemp("runs")
    made = {}
    for kind, condition in KINDS.items():
        config = load_config(
            None,
            [
                f"name={kind}", "energy.width=4", "energy.depth=1", "vae.width=4",
                "vae.depth=1", "vae.latent_dim=3", "langevin.steps=2", "langevin.step_size=0.1",
                "langevin.clamp=1", "train.precision=fp32", f"condition.kind={kind}",
            ],
        )  # fmt: skip
        torch.manual_seed(0)
        tensors = {}
        for suffix in ("", "_ema"):
            energy = build_energy(config.energy, (3, 28, 28), condition)
            tensors["energy" + suffix] = energy.state_dict()
            tensors["vae" + suffix] = build_vae(config.vae, (3, 28, 28), condition).state_dict()
        state = {
            "shape": [3, 28, 28],
            "score": 1.0,
            "good": True,
            "condition": condition and {"kind": condition.kind, "size": condition.size},
            "labels": LABELS.get(kind, []),
        }
        run = RunFolder(folder / kind)
        run.create()
        CheckpointFolder(run.checkpoints).save(Checkpoint(64, to_dict(config), state, tensors))
        made[kind] = str(run.path)
    return made


def sample(capsys, *words: str) -> tuple[int, str, str]:
    status = main(["sample", *words])
    out, err = capsys.readouterr()
    return status, out, err


def drawn(capsys, tmp_path: Path, *words: str) -> np.ndarray:
    out = tmp_path / "x.npy"
    status, _, err = sample(capsys, *words, "--out", str(out))
    assert status == 0, err
    return np.load(out)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    values = np.random.default_rng(0).integers(0, 256, (28, 28, 3), dtype=np.uint8)
    path = tmp_path / "photo.png"
    Image.fromarray(values).save(path)
    return path


@pytest.mark.parametrize(
    "text,classes",
    [("Bag", [2]), ("2", [2]), ("trouser,T-shirt/top", [1, 0]), ("all", [0, 1, 2])],
)
def test_classes(capsys, runs, tmp_path, text, classes):
    x = drawn(capsys, tmp_path, runs["class"], "--condition", text, "-n", "2")
    c = torch.tensor(classes).repeat_interleave(2)
    expected = vmcmc_dist.load(runs["class"]).sample(len(c), c=c, seed=0)
    assert np.array_equal(x, expected.numpy())


@pytest.mark.parametrize(
    "text,c", [("Smiling", [1, 0, 0]), ("Smiling, male=0,EYEGLASSES=1", [1, 0, 1]),
               ("Male=0", [0, 0, 0])],
)  # fmt: skip
def test_attributes(capsys, runs, tmp_path, text, c):
    x = drawn(capsys, tmp_path, runs["attributes"], "--condition", text)
    asked = torch.tensor([c], dtype=torch.float32).expand(8, -1)
    expected = vmcmc_dist.load(runs["attributes"]).sample(8, c=asked, seed=0)
    assert np.array_equal(x, expected.numpy())


def test_what_is_visible_of_a_photo_stays(capsys, runs, tmp_path, photo):
    hidden = np.zeros((28, 28), np.uint8)
    hidden[5:20, 9:25] = 255
    Image.fromarray(hidden).save(tmp_path / "mask.png")
    x = drawn(capsys, tmp_path, runs["inpaint"], "--condition", str(photo), "--mask",
              str(tmp_path / "mask.png"), "-n", "3")  # fmt: skip
    truth = np.asarray(Image.open(photo)).transpose(2, 0, 1) / 127.5 - 1
    visible = hidden == 0
    assert np.allclose(x[:, :, visible], truth[:, visible], atol=1e-6)
    assert np.abs(x[:, :, ~visible] - truth[:, ~visible]).mean() > 0.2


def test_a_row_for_each_condition_with_the_condition_in_front(capsys, runs, tmp_path, photo):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        Image.open(photo).save(folder / name)
    out = tmp_path / "grid.png"
    status, said, err = sample(
        capsys, runs["upscale"], "--condition", str(folder), "-n", "3", "--out", str(out)
    )
    assert status == 0 and said.strip() == str(out), err
    page = np.asarray(Image.open(out))
    cells = 2 * 20 + 84 + 2 * 28 + 2 * (3 * 84 + 2 * 2)
    assert page.shape[1] == cells and page.shape[0] > 20 + 36 + 24 + 2 * 84


def test_a_grid_of_classes_is_written_into_the_run(capsys, runs):
    status, out, _ = sample(capsys, runs["class"], "--condition", "all", "-n", "4")
    assert status == 0 and Path(out.strip()).parent == Path(runs["class"]) / "samples"
    assert Image.open(out.strip()).width == 2 * 20 + 28 + 2 * (4 * 84 + 3 * 2)


@pytest.mark.parametrize(
    "kind,words,said",
    [
        ("none", ["--condition", "Bag"], "none is unconditional: it takes no --condition"),
        ("none", ["--mask", "m.png"], "it takes no --condition and no --mask"),
        ("class", [], "give --condition with any of: T-shirt/top, Trouser, Bag, or all"),
        ("class", ["--condition", "Bagg"], r"knows no such class \(did you mean Bag\?\)"),
        ("class", ["--condition", "3"], "--condition 3: class knows no such class"),
        ("class", ["--condition", "Bag", "--mask", "m.png"], "--mask is for inpainting"),
        ("class", ["--condition", "photo.png"], "no such class"),
        ("attributes", ["--condition", "Smile"], r"no such attribute \(did you mean Smiling"),
        ("attributes", ["--condition", "1"], "no such attribute"),
        ("attributes", ["--condition", "Male=2"], "an attribute is 0 or 1"),
        ("pair", [], r"give --condition IMAGE or FOLDER \(pair\)"),
        ("pair", ["--condition", "Bag"], "Bag: no such image or folder"),
        ("pair", ["--condition", "PHOTO"], "a colour image; this model's input images are grey"),
        ("inpaint", [], "--mask FILE"),
        ("inpaint", ["--condition", "PHOTO"], "which pixels are hidden"),
        ("upscale", ["--condition", "PHOTO", "--mask", "PHOTO"], "a mask is for inpainting"),
    ],
)
def test_conditions_that_do_not_fit_the_model(capsys, runs, photo, kind, words, said):
    words = [str(photo) if word == "PHOTO" else word for word in words]
    status, _, err = sample(capsys, runs[kind], *words)
    assert status == 2 and "Traceback" not in err

    assert re.search(said, err), err


def test_an_image_of_another_size(capsys, runs, tmp_path):
    Image.new("L", (20, 40)).save(tmp_path / "small.png")
    status, _, err = sample(capsys, runs["pair"], "--condition", str(tmp_path / "small.png"))
    assert status == 2 and "small.png: 20x40 pixels; this model needs 28x28 or more" in err
