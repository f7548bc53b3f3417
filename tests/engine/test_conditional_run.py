"""Conditional runs: trained, killed, resumed, loaded, and refused at the door."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vmcmc_dist
from vmcmc_dist.config import load_config
from vmcmc_dist.data import ensure_prepared
from vmcmc_dist.data.conditions import masked
from vmcmc_dist.engine.checkpoint import load_checkpoint
from vmcmc_dist.engine.resources import check_data
from vmcmc_dist.errors import ConfigError

CONFIG = """\
data: {{source: arrays, root: {folder}/raw, shards: {folder}/shards, shard_samples: 9, workers: 0,
       prepare_workers: 1}}
energy: {{net: modern, width: 4, depth: 1, lr: 1e-3}}
vae: {{net: modern, width: 4, depth: 1, latent_dim: 4, lr: 1e-3, head_start_images: 24,
      data_weight: 1.0, refined_weight: 0.0, same_z_weight: 0.3}}
langevin: {{steps: 2, step_size: 0.1, clamp: 1.0, temperature: 0.01}}
train: {{images: 320, batch_size: 8, log_images: 24, sample_images: 160, sample_count: 9,
        checkpoint_images: 40, ema_images: 100, precision: fp32}}
resources: {{threads: 1}}
watch: {{tensorboard: false}}
launcher: local
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 images in three classes."""
    folder = tmp_path_factory.mktemp("labelled")
    (folder / "raw").mkdir()
    rng = np.random.default_rng(0)
    np.save(folder / "raw" / "train.npy", rng.integers(0, 256, (40, 28, 28), dtype=np.uint8))
    np.save(folder / "raw" / "train_labels.npy", (np.arange(40) % 3).astype(np.int64))
    path = folder / "labelled.yaml"
    path.write_text(CONFIG.format(folder=folder))
    return path


def test_an_inpainting_run_that_is_killed_is_the_same_run(config: Path, new_run: Callable) -> None:
    """Masks, too, come back: a function of the seed and the sample's number."""
    settings = ("condition.kind=inpaint", "condition.mask=mixed")
    whole, killed = (new_run(config, name, *settings) for name in ("whole", "killed"))
    status, out, err = whole()
    assert status == 0, out + err
    process = killed.start()
    killed.wait_for_checkpoint(process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    status, out, err = killed()
    assert status == 0, out + err
    assert killed.metrics() == whole.metrics()
    a, b = (load_checkpoint(run.checkpoints.latest()) for run in (whole, killed))
    assert all(
        t.equal(b.tensors[part][n]) for part in a.tensors for n, t in a.tensors[part].items()
    )

    model = vmcmc_dist.load(whole.folder.path)
    assert model.condition is not None and (model.condition.kind, model.condition.size) == (
        "image", 2,
    )  # fmt: skip
    x = torch.rand(5, 1, 28, 28) * 2 - 1
    hidden = torch.zeros(5, 1, 28, 28)
    hidden[..., :14] = 1
    refined, proposals = model.sample(5, c=masked(x, hidden), steps=3, return_proposals=True)
    assert torch.equal(refined[..., 14:], x[..., 14:])
    assert torch.equal(proposals[..., 14:], x[..., 14:])
    assert (refined[..., :14] != x[..., :14]).all() and not torch.equal(refined, proposals)
    grid = Image.open(sorted(whole.folder.samples.glob("*.png"))[-1])
    assert grid.width > 3 * 3 * 28  # three panels of three columns


def test_a_class_run_loads_with_its_classes(config: Path, new_run: Callable) -> None:
    run = new_run(config, "class", "condition.kind=class", "train.images=80")
    status, out, err = run()
    assert status == 0, out + err
    model = vmcmc_dist.load(run.folder.path)
    assert model.label_names == ("0", "1", "2") and model.condition.kind == "class"
    c = torch.tensor([0, 1, 2, 2])
    x = model.sample(4, c=c)
    assert x.shape == (4, 1, 28, 28)
    assert not torch.equal(model.energy(x, c), model.energy(x, c.flip(0)))
    with pytest.raises(ConfigError, match="this model is conditional .class, 3.: give"):
        model.sample(4)
    with pytest.raises(ConfigError, match="from 0 to 2"):
        model.sample(4, c=c + 1)
    status, _, err = run("condition.kind=none")
    assert status == 2 and "condition.kind: 'class' → 'none'" in err


def test_what_cannot_be_conditioned_is_refused_at_the_door(config: Path) -> None:
    for setting, words in (
        ("train.chains=16", "conditional model takes the conditions of its chains from the data"),
        ("energy.net=reference", "energy.net=reference takes no condition"),
        ("vae.net=reference", "vae.net=reference takes no condition"),
    ):
        with pytest.raises(ConfigError, match=words):
            load_config(config, ["condition.kind=class", setting])
    for kind in ("attributes", "pair", "colour"):
        wrong = load_config(config, [f"condition.kind={kind}"])
        with pytest.raises(ConfigError, match=f"condition.kind={kind}"):
            check_data(wrong, ensure_prepared(wrong.data))
