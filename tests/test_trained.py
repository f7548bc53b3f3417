"""The library's own door: ten lines, no command line."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch

import vmcmc_dist
from vmcmc_dist.config import Config, load_config, to_dict
from vmcmc_dist.engine.checkpoint import Checkpoint, CheckpointFolder
from vmcmc_dist.errors import CheckpointError, ConfigError
from vmcmc_dist.models import build_energy, build_vae

SHAPE = (1, 28, 28)


def small(*settings: str) -> Config:
    return load_config(
        None,
        [
            "energy.width=4", "energy.depth=1", "vae.width=4", "vae.depth=1", "vae.latent_dim=3",
            "vae.dropout=0.5", "langevin.steps=3", "langevin.step_size=0.1",
            "langevin.reference_std=0.5", "train.precision=fp32", *settings,
        ],
    )  # fmt: skip


def write(folder: Path, config: Config, images: int, score: float | None = None) -> None:
    tensors = {}
    for part in ("energy", "vae"):
        for suffix in ("", "_ema"):
            torch.manual_seed(images + len(part + suffix))
            net = (build_energy if part == "energy" else build_vae)(getattr(config, part), SHAPE)
            tensors[part + suffix] = net.state_dict()
        tensors[f"{part}_adam"] = {"step": torch.tensor(1.0)}
    state = {"shape": list(SHAPE), "score": score, "good": True}
    CheckpointFolder(folder / "checkpoints", keep=9).save(
        Checkpoint(images, to_dict(config), state, tensors)
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with checkpoints at 64 (the best), 128 and 192 images."""
    folder = tmp_path_factory.mktemp("run")
    for images, score in ((64, 0.1), (128, 0.9), (192, None)):
        write(folder, small(), images, score)
    return folder


def test_ten_lines(run: Path) -> None:
    model = vmcmc_dist.load(run)
    proposals = model.propose(5)
    x = model.sample(5, steps=2)
    assert proposals.shape == x.shape == (5, *SHAPE) and x.dtype == torch.float32
    assert model.energy(x).shape == (5,)
    mu, logvar = model.encode(x)
    assert mu.shape == logvar.shape == (5, 3)
    assert model.decode(mu).shape == x.shape
    assert model.images == 192 and model.shape == SHAPE
    assert model.config.vae.latent_dim == 3


def test_samples_are_a_function_of_the_seed(run: Path) -> None:
    model, again = vmcmc_dist.load(run), vmcmc_dist.load(run)
    assert torch.equal(model.sample(4, seed=1), again.sample(4, seed=1))
    assert not torch.equal(model.sample(4, seed=1), model.sample(4, seed=2))
    assert not torch.equal(model.propose(4, seed=1), model.propose(4, seed=2))
    refined, proposals = model.sample(4, seed=1, return_proposals=True)
    assert torch.equal(proposals, model.propose(4, seed=1))
    assert torch.equal(refined, model.refine(proposals, seed=1)[0])
    assert not torch.equal(refined, proposals)


def test_steps_are_those_asked_for_else_of_sampling_else_of_training(run: Path) -> None:
    model = vmcmc_dist.load(run)
    assert [model.chain_config(n).steps for n in (None, 7)] == [3, 7]
    model.config.sampling.steps = 11
    assert model.chain_config().steps == 11
    _, info = model.refine(model.propose(2), steps=4)
    assert len(info.grad_rms) == 4


def test_the_energy_holds_the_gaussian_reference(run: Path) -> None:
    model = vmcmc_dist.load(run)
    x = model.propose(3)
    with torch.no_grad():
        net = model.energy_net(x)
    expected = net + x.square().flatten(1).sum(1) / (2 * 0.5**2)
    torch.testing.assert_close(model.energy(x), expected)


def test_averaged_weights_or_those_as_trained(run: Path) -> None:
    averaged, trained = vmcmc_dist.load(run), vmcmc_dist.load(run, ema=False)
    assert torch.equal(averaged.propose(2), vmcmc_dist.load(run, ema=True).propose(2))
    assert not torch.equal(averaged.propose(2), trained.propose(2))
    assert not torch.equal(
        averaged.energy(averaged.propose(2)), trained.energy(averaged.propose(2))
    )


def test_the_run_says_which_weights_by_default(tmp_path: Path) -> None:
    write(tmp_path, small("sampling.ema=false"), 64)
    by_default, trained = vmcmc_dist.load(tmp_path), vmcmc_dist.load(tmp_path, ema=False)
    assert torch.equal(by_default.propose(2), trained.propose(2))


@pytest.mark.parametrize(
    ("name", "images"),
    [("latest", 192), ("best", 64), ("128", 128), ("000000128", 128)],
)
def test_which_checkpoint(run: Path, name: str, images: int) -> None:
    assert vmcmc_dist.load(run, checkpoint=name).images == images


def test_nets_are_frozen_and_without_dropout(run: Path) -> None:
    model = vmcmc_dist.load(run)
    for net in (model.energy_net, model.vae):
        assert not net.training and not any(p.requires_grad for p in net.parameters())
    x = model.propose(2)
    assert torch.equal(model.encode(x)[0], model.encode(x)[0])


def test_no_run_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="has no checkpoints.*first checkpoint"):
        vmcmc_dist.load(tmp_path / "nowhere")


def test_no_such_checkpoint(run: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint '77'.*000000064"):
        vmcmc_dist.load(run, checkpoint="77")


def test_no_best_without_a_score(tmp_path: Path) -> None:
    write(tmp_path, small(), 64)
    with pytest.raises(CheckpointError, match="no checkpoint 'best'"):
        vmcmc_dist.load(tmp_path, checkpoint="best")


def test_weights_of_another_net_are_refused(tmp_path: Path) -> None:
    """As after a change of the code: the saved config no longer makes the saved nets."""
    config = small()
    write(tmp_path, config, 64)
    state = tmp_path / "checkpoints" / "000000064" / "state.json"
    state.write_text(state.read_text().replace('"width": 4', '"width": 5'))
    with pytest.raises(CheckpointError, match="000000064"):
        vmcmc_dist.load(tmp_path)


def test_a_config_of_another_version_is_said_to_be_one(tmp_path: Path) -> None:
    write(tmp_path, small(), 64)
    state = tmp_path / "checkpoints" / "000000064" / "state.json"
    state.write_text(state.read_text().replace('"batch_size"', '"batch_width"', 1))
    with pytest.raises(CheckpointError, match="not one of this version .*batch_width"):
        vmcmc_dist.load(tmp_path)


def test_an_unconditional_model_takes_no_condition(run: Path) -> None:
    model = vmcmc_dist.load(run)
    assert model.condition is None and model.label_names == ()
    with pytest.raises(ConfigError, match="unconditional: it takes no condition"):
        model.sample(2, c=torch.tensor([0, 1]))


def test_a_mask_holds_pixels_of_a_chain(run: Path) -> None:
    model = vmcmc_dist.load(run)
    x, free = torch.rand(2, *SHAPE), torch.zeros(1, 1, 28, 28)
    free[..., :10] = 1
    seen: list[int] = []
    y, _ = model.refine(x, free=free, callback=lambda step, *_: seen.append(step))
    assert torch.equal(y[..., 10:], x[..., 10:]) and (y[..., :10] != x[..., :10]).all()
    assert seen == [0, 1, 2]


def test_temperature_can_be_chosen(run: Path) -> None:
    model = vmcmc_dist.load(run)
    cold = [model.sample(2, temperature=0.0, seed=1, steps=2) for _ in range(2)]
    assert torch.equal(*cold) and model.chain_config(temperature=0.0).temperature == 0
    x = model.propose(2, seed=1)
    a, b = (model.refine(x, temperature=0.0, seed=s)[0] for s in (1, 2))
    assert torch.equal(a, b)  # without noise nothing is left to the seed


@pytest.mark.parametrize("shape", [(3, 28, 28), (1, 32, 32), (784,)])
def test_samples_of_another_shape_are_refused(run: Path, shape: tuple[int, ...]) -> None:
    model = vmcmc_dist.load(run)
    for call in (model.energy, model.encode, model.refine):
        with pytest.raises(ValueError, match=r"\(1, 28, 28\)"):
            call(torch.zeros(2, *shape))


def test_the_chain_lowers_the_energy_of_proposals(run: Path) -> None:
    model = vmcmc_dist.load(run)
    model.config.langevin = dataclasses.replace(model.config.langevin, temperature=0.0)
    refined, proposals = model.sample(8, steps=20, return_proposals=True)
    assert float((model.energy(refined) - model.energy(proposals)).mean()) < 0
    assert math.isfinite(float(refined.abs().max()))


def test_in_bf16_the_chain_runs_on_a_copy(run: Path) -> None:
    exact = vmcmc_dist.load(run)
    rough = vmcmc_dist.Trained(exact.config, SHAPE, exact.energy_net, exact.vae, precision="bf16")
    a, b = exact.sample(4), rough.sample(4)
    assert b.dtype == torch.float32 and not torch.equal(a, b)
    assert float((a - b).abs().max()) < 0.2
