"""The conditional task: right on models whose answer is known, and scores with known values."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from vmcmc_dist.config import Config
from vmcmc_dist.data import Batch, ConditionConfig, DataConfig, conditions
from vmcmc_dist.data.conditions import low_resolution, luminance, masked
from vmcmc_dist.errors import ConfigError, DataError
from vmcmc_dist.evaluation import conditional_scores as scores
from vmcmc_dist.evaluation.features import Features
from vmcmc_dist.evaluation.job import Job
from vmcmc_dist.evaluation.tasks import conditional, task_module
from vmcmc_dist.langevin.config import LangevinConfig
from vmcmc_dist.models import Condition
from vmcmc_dist.models.vae import VAE
from vmcmc_dist.trained import Trained

SIDE, CLASSES = 28, 3


def level(c: Tensor) -> Tensor:
    """Brightness of class c."""
    return c / 2 - 0.5


class Painter(nn.Module):
    """g(z, c): what ``paint`` makes of c, with the first code as a little noise."""

    def __init__(self, paint) -> None:
        super().__init__()
        self.paint = paint

    def forward(self, z: Tensor, c: Tensor) -> Tensor:
        return self.paint(c) + 0.02 * z[:, :1, None, None]


class Darker(nn.Module):
    """U(x, c) = Σx: each Langevin step makes every pixel darker by δ²/2."""

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        return x.flatten(1).sum(1)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DataConfig:
    """60 training and 30 test images; class k is flat at its own brightness, with some noise."""
    monkeypatch.setenv("VMCMC_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    (tmp_path / "raw").mkdir()
    for split, n in (("train", 60), ("test", 30)):
        y = np.arange(n) % CLASSES
        flat = 127.5 * (1 + level(y))[:, None, None, None]
        x = flat + rng.normal(0, 4, (n, SIDE, SIDE, 3))
        np.save(tmp_path / "raw" / f"{split}.npy", x.clip(0, 255).astype(np.uint8))
        np.save(tmp_path / "raw" / f"{split}_labels.npy", y)
    return DataConfig(source="arrays", root=str(tmp_path / "raw"), workers=0, prepare_workers=1)


def trained(data: DataConfig, kind: str, condition: Condition, paint, **more) -> Trained:
    config = Config(data=data, condition=ConditionConfig(kind, **more))
    config.langevin = LangevinConfig(steps=2, step_size=0.4, temperature=0.0)
    vae = VAE(nn.Identity(), Painter(paint), 2)
    names = ("dark", "grey", "light")[: condition.size] if condition.kind != "image" else ()
    shape = (3, SIDE, SIDE)
    return Trained(config, shape, Darker(), vae, condition=condition, label_names=names)


def job(model: Trained, folder: Path, **settings) -> Job:
    return Job(model, folder, conditional.Settings(**settings), {"run": "test"})


def by_brightness(labels="class") -> Features:
    """A net that sees brightness alone; right whenever it is nearest to the class's."""

    def net(pixels: Tensor) -> tuple[Tensor, Tensor]:
        bright = pixels.float().mean((1, 2, 3)) / 127.5 - 1
        phi = torch.stack([bright, pixels.float().std((1, 2, 3)) / 127.5], 1)
        return phi, -(bright[:, None] - level(torch.arange(CLASSES))).abs()

    classes = CLASSES if labels == "class" else None
    return Features("brightness", 2, classes, "0", net, labels=labels, accuracy=1.0)


def flat(value: Tensor) -> Tensor:
    return value.float()[:, None, None, None].expand(-1, 3, SIDE, SIDE)


def test_a_model_that_does_as_asked_and_one_that_does_not(data, tmp_path):
    condition = Condition("class", CLASSES)
    good = trained(data, "class", condition, lambda c: flat(level(c)))
    result = conditional._run_labels(job(good, tmp_path, n=60, batch_size=25), by_brightness())
    figures = result.figures
    assert figures["accuracy_refined"] == figures["accuracy_proposals"] == 1
    assert figures["accuracy_real"] == 1 and figures["labels"] == ["dark", "grey", "light"]
    assert figures["fd_brightness_each_proposals"] == pytest.approx([0] * 3, abs=5e-3)
    assert figures["fd_brightness_real"] < 1e-4
    assert figures["fd_brightness_refined"] == pytest.approx(0.16**2, rel=0.1), "darker by 0.16"
    assert "right on 100.0%" in result.note

    deaf = trained(data, "class", condition, lambda c: flat(level(torch.zeros_like(c))))
    (tmp_path / "deaf").mkdir()
    figures = conditional._run_labels(
        job(deaf, tmp_path / "deaf", n=60, batch_size=25), by_brightness()
    ).figures
    assert figures["accuracy_each_proposals"] == [1, 0, 0]
    assert figures["accuracy_refined"] == pytest.approx(1 / 3)
    distances = figures["fd_brightness_each_proposals"]
    assert distances[1] == pytest.approx(0.25, rel=0.05)  # squared shift of brightness by 1/2
    assert distances[2] == pytest.approx(1, rel=0.05)


def test_the_picture_has_a_row_for_each_class(data, tmp_path):
    model = trained(data, "class", Condition("class", CLASSES), lambda c: flat(level(c)))
    result = conditional._run_labels(job(model, tmp_path, n=30), by_brightness())
    page = np.asarray(Image.open(result.pictures[0]).convert("L")).astype(int)
    cell, left, top = 3 * SIDE, 20 + 42, 20 + 36 + 24 + 42
    rows = [page[top + k * (cell + 2), left] for k in range(CLASSES)]
    assert rows == pytest.approx([127.5 * (1 + level(k)) for k in range(CLASSES)], abs=6)


def test_an_interrupted_evaluation_goes_on_where_it_was(data, tmp_path):
    calls: list[int] = []

    def paint(c: Tensor) -> Tensor:
        calls.append(len(c))
        return flat(level(c))

    model = trained(data, "class", Condition("class", CLASSES), paint)

    def stop(what: str, done: int, total: int) -> None:
        if what == "samples" and done == 40:
            raise KeyboardInterrupt

    whole = conditional._run_labels(job(model, tmp_path / "a", n=60, batch_size=20),
                                    by_brightness()).figures  # fmt: skip
    calls.clear()
    broken = job(model, tmp_path / "b", n=60, batch_size=20)
    broken.progress = stop
    with pytest.raises(KeyboardInterrupt):
        conditional._run_labels(broken, by_brightness())
    assert calls == [20, 20]
    again = job(model, tmp_path / "b", n=60, batch_size=20)
    assert conditional._run_labels(again, by_brightness()).figures == whole
    assert calls[2:4] == [20, CLASSES * conditional.COLUMNS]


def test_attributes(data, tmp_path, monkeypatch):
    """Three attributes, of which the model heeds the last alone."""
    held_out = torch.tensor([[1.0, 0, 0], [1, 1, 1], [0, 0, 1], [1, 0, 0]])
    x = flat(held_out[:, 2] - 0.5)
    monkeypatch.setattr(conditional, "held_out", lambda model, n, seed: (x, held_out))
    model = trained(data, "attributes", Condition("attributes", 3), lambda c: flat(c[:, 2] - 0.5))

    def net(pixels: Tensor) -> tuple[Tensor, Tensor]:
        bright = pixels.float().mean((1, 2, 3)) - 127.5
        return bright[:, None], torch.stack([torch.ones_like(bright), -bright, bright], 1)

    judge = Features("stub", 1, None, "0", net, labels="attributes")
    figures = conditional._run_labels(job(model, tmp_path, n=8, batch_size=3), judge).figures
    assert figures["n"] == 8, "the attributes of held-out images, in turn"
    assert figures["accuracy_each_refined"] == [0.75, 0.25, 1]
    assert figures["balanced_accuracy_each_refined"] == pytest.approx([0.5, 1 / 6, 1])
    assert figures["accuracy_refined"] == pytest.approx(2 / 3)
    assert not any(name.startswith("fd_") for name in figures)
    page = np.asarray(Image.open(tmp_path / "conditional.png").convert("L")).astype(int)
    top, left = 20 + 36 + 24 + 42 + 2 * 86, 20 + 42
    right = left + 8 * 86 - 2 + 28
    assert page[top, left] < 80 < 160 < page[top, right], "the third row, without and with"
    assert page[top - 2 * 86, right] < 80, "in the first row the third attribute is as held out"


PAINTERS = {
    "colour": (1, lambda c: c.expand(-1, 3, -1, -1)),
    "upscale": (3, lambda c: c),
    "inpaint": (4, lambda c: c[:, :3]),
}


@pytest.mark.parametrize("kind", PAINTERS)
def test_image_conditions(data, tmp_path, kind):
    channels, paint = PAINTERS[kind]
    more = {"mask": "left"} if kind == "inpaint" else {}
    model = trained(data, kind, Condition("image", channels), paint, **more)
    result = conditional.run(job(model, tmp_path, n=20, draws=2, batch_size=6))
    figures = result.figures
    assert (figures["conditions"], figures["draws"], figures["n"]) == (10, 2, 20)
    assert figures["psnr_proposals"] > figures["psnr_refined"] or kind == "inpaint"
    assert figures["psnr_best_refined"] >= figures["psnr_refined"]
    assert 0.01 < figures["diversity_proposals"] < 0.05
    assert ("psnr_given" in figures) == ("psnr_condition_refined" in figures) == (kind != "inpaint")
    assert result.pictures[0].name == "conditional.png" and result.pictures[0].is_file()
    assert all(isinstance(v, str) or np.isfinite(v) for v in figures.values())


def test_only_hidden_pixels_of_inpainting_count(data, tmp_path):
    model = trained(
        data, "inpaint", Condition("image", 4), lambda c: 0 * c[:, :3] - 0.8, mask="left"
    )
    figures = conditional.run(job(model, tmp_path, n=40, draws=2)).figures
    x, c = conditional.held_out(model, 20, 0)
    error = (x[:, :, :, : SIDE // 2] + 0.8).double().square().mean((1, 2, 3))
    expected = (10 * torch.log10(4 / error)).mean().item()
    assert figures["psnr_proposals"] == pytest.approx(expected, abs=0.1)


def test_scores_of_images_by_hand():
    truth = torch.tensor([0.0, 0.5]).view(2, 1, 1, 1).expand(2, 1, 12, 12)
    samples = torch.stack([truth + 0.2, truth - 0.2, truth + 0.1], 1)
    found = scores.image_scores(samples, truth)
    in_db = [10 * np.log10(4 / e**2) for e in (0.2, 0.2, 0.1)]
    assert found["psnr"].tolist() == pytest.approx([np.mean(in_db)] * 2)
    assert found["psnr_best"].tolist() == pytest.approx([in_db[2]] * 2)
    assert found["psnr_average"].tolist() == pytest.approx([10 * np.log10(4 / (0.1 / 3) ** 2)] * 2)
    assert found["diversity"].tolist() == pytest.approx([(0.4 + 0.1 + 0.3) / 3] * 2)
    assert found["pixel_std"].tolist() == pytest.approx([np.std([0.2, -0.2, 0.1], ddof=1)] * 2)
    where = torch.zeros(2, 1, 12, 12)
    where[..., 0] = 1
    samples[:, 0, :, :, 1:] = 9
    assert scores.image_scores(samples, truth, where)["psnr"].tolist() == pytest.approx(
        [np.mean(in_db)] * 2
    )


@pytest.mark.parametrize("kind", ["colour", "upscale"])
def test_a_sample_that_keeps_to_its_condition_scores_the_most(kind):
    cfg = ConditionConfig(kind)
    x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    c = conditions(cfg, Batch(x, None, torch.arange(2), torch.arange(2)), x, 0)
    assert c is not None
    (kept,) = scores.condition_scores(cfg, x[:, None], c).values()
    (lost,) = scores.condition_scores(cfg, x.flip(0)[:, None], c).values()
    assert kept.min() > 58 > 30 > lost.max()
    again = luminance(x) if kind == "colour" else low_resolution(x, 4)
    assert torch.equal(c, again)
    assert scores.condition_scores(ConditionConfig("inpaint"), x[:, None], c) == {}


def test_what_is_shown_of_a_masked_image():
    x, hidden = torch.ones(1, 3, 8, 8), torch.zeros(1, 1, 8, 8)
    hidden[..., :4] = 1
    shown = scores.shown_condition(ConditionConfig("inpaint"), masked(x, hidden))
    assert torch.equal(shown, x * (1 - hidden))


def test_what_the_task_refuses(data, tmp_path):
    model = trained(data, "class", Condition("class", CLASSES), lambda c: flat(level(c)))
    with pytest.raises(DataError, match="needs n ≥ 12, got n=11"):
        conditional._run_labels(job(model, tmp_path, n=11), by_brightness())
    with pytest.raises(ConfigError, match="does not judge these 3 labels of kind class"):
        conditional._run_labels(job(model, tmp_path, n=60), by_brightness("attributes"))
    few = job(model, tmp_path, n=2, distances=False)
    with pytest.raises(DataError, match="needs an image of each; there is none of class"):
        conditional._run_labels(few, by_brightness())
    assert task_module("conditional").fits(model) is None
    plain = Trained(dataclasses.replace(model.config, condition=ConditionConfig()), model.shape,
                    model.energy_net, model.vae)  # fmt: skip
    assert "unconditional" in conditional.fits(plain)
