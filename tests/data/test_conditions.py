"""Conditions: shapes, ranges and values of c, and that they belong to the sample alone."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from vmcmc_dist.data import (
    Batch,
    ConditionConfig,
    DataConfig,
    LabelInfo,
    Manifest,
    ShardInfo,
    ShardStream,
    condition_of,
    conditions,
    visible,
)
from vmcmc_dist.data.conditions import low_resolution, luminance
from vmcmc_dist.data.scaling import to_model_range
from vmcmc_dist.errors import ConfigError

CLASSES = LabelInfo("class", ("ant", "bee", "cat"))
ATTRIBUTES = LabelInfo("attributes", ("Smiling", "Male"))


def manifest(shape=(3, 8, 8), labels=CLASSES, source=None) -> Manifest:
    shards = (ShardInfo("a.tar", 4, 100),)
    return Manifest("test", shape, "uint8", shards, labels, source_shape=source)


def batch(shape=(3, 8, 8), n=4, y=None, source=None) -> tuple[Batch, torch.Tensor]:
    pixels = torch.randint(0, 256, (n, *shape), generator=torch.Generator().manual_seed(0))
    index = torch.arange(n)
    return (
        Batch(pixels.to(torch.uint8), y, index, index, source),
        to_model_range(pixels.to(torch.uint8)),
    )


@pytest.mark.parametrize(
    "kind,about,expected",
    [
        ("none", manifest(), None),
        ("class", manifest(), ("class", 3)),
        ("attributes", manifest(labels=ATTRIBUTES), ("attributes", 2)),
        ("pair", manifest(source=(1, 8, 8)), ("image", 1)),
        ("inpaint", manifest(), ("image", 4)),
        ("inpaint", manifest((1, 8, 8)), ("image", 2)),
        ("colour", manifest(), ("image", 1)),
        ("upscale", manifest(), ("image", 3)),
    ],
)
def test_what_condition_the_data_give(kind, about, expected):
    assert condition_of(ConditionConfig(kind), about) == expected


@pytest.mark.parametrize(
    "config,about,message",
    [
        (ConditionConfig("class"), manifest(labels=LabelInfo()), "has no labels"),
        (ConditionConfig("class"), manifest(labels=ATTRIBUTES), "condition.kind=attributes"),
        (ConditionConfig("attributes"), manifest(), "labels of kind class"),
        (ConditionConfig("pair"), manifest(), "holds single images"),
        (ConditionConfig("colour"), manifest((1, 8, 8)), "is grey"),
        (ConditionConfig("inpaint"), manifest((2,)), "is for images"),
        (ConditionConfig("upscale"), manifest((2,)), "is for images"),
        (ConditionConfig("upscale", upscale_factor=3), manifest(), "3 does not divide 8x8"),
    ],
)
def test_data_that_cannot_give_the_condition(config, about, message):
    with pytest.raises(ConfigError, match=message):
        condition_of(config, about)


@pytest.mark.parametrize("kind", ["class", "attributes", "pair", "inpaint", "colour", "upscale"])
def test_every_condition_fits_what_was_promised(kind):
    y = {"class": torch.tensor([0, 2, 1, 1]), "attributes": torch.ones(4, 2, dtype=torch.int64)}
    source = torch.full((4, 1, 8, 8), 255, dtype=torch.uint8)
    labels = ATTRIBUTES if kind == "attributes" else CLASSES
    given, x = batch(y=y.get(kind), source=source)
    c = conditions(ConditionConfig(kind), given, x, seed=3)
    found, size = condition_of(ConditionConfig(kind), manifest(labels=labels, source=(1, 8, 8)))
    assert c is not None
    shapes = {"class": (4,), "attributes": (4, size), "image": (4, size, 8, 8)}
    assert tuple(c.shape) == shapes[found]
    assert c.dtype == (torch.int64 if kind == "class" else torch.float32)
    assert c.min() >= -1 and (kind == "class" or c.max() <= 1)
    if kind in y:
        assert (c == y[kind]).all()
    if kind == "pair":
        assert (c == 1).all()


def test_no_condition():
    given, x = batch()
    assert conditions(ConditionConfig(), given, x, seed=0) is None


def test_visible_pixels_are_those_of_x_and_hidden_ones_are_nowhere():
    given, x = batch()
    c = conditions(ConditionConfig("inpaint", mask="centre"), given, x, seed=0)
    assert c is not None
    known, free = visible(c)
    hidden = free[0, 0] == 1
    assert hidden.sum() == 16 and hidden[2:6, 2:6].all()
    assert (known[:, :, hidden] == 0).all() and (c[:, 3, hidden] == 0).all()
    assert torch.equal(known[:, :, ~hidden], x[:, :, ~hidden])
    other = torch.randn_like(x)
    filled = known + free * other
    assert torch.equal(filled[:, :, hidden], other[:, :, hidden])
    changed = x.clone()
    changed[:, :, hidden] = 0.5
    again = conditions(ConditionConfig("inpaint", mask="centre"), given, changed, seed=0)
    assert torch.equal(again, c), "a hidden pixel leaks into c"


def inpainting(about, world, local, images, batches) -> dict[int, bytes]:
    """Masks by global index, as all readers of a run together see them."""
    cfg = ConditionConfig("inpaint", mask="random", mask_share=0.3)
    seen = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for rank in range(world):
            with ShardStream(
                about, DataConfig(), seed=5, rank=rank, world_size=world, local_batch=local,
                images=images,
            ) as stream:  # fmt: skip
                for _ in range(batches):
                    given = next(stream)
                    c = conditions(cfg, given, to_model_range(given.x), seed=5)
                    assert c is not None
                    seen |= {int(i): m.numpy().tobytes() for i, m in zip(given.index, c,
                                                                         strict=True)}  # fmt: skip
    return seen


def test_masks_are_the_same_for_any_number_of_workers_and_after_a_resume(make_shards):
    about = make_shards([5, 4, 6])
    alone = inpainting(about, world=1, local=12, images=0, batches=4)
    assert inpainting(about, world=3, local=4, images=0, batches=4) == alone
    resumed = inpainting(about, world=2, local=6, images=24, batches=2)
    assert resumed == {i: mask for i, mask in alone.items() if i >= 24}
    assert len(set(alone.values())) > 40, "every sample of every epoch has a mask of its own"


def test_luminance():
    x = torch.tensor([[1.0, -1, -1], [-1, 1, -1], [-1, -1, 1], [1, 1, 1], [-1, -1, -1]])
    y = luminance(x[:, :, None, None])[:, 0, 0, 0]
    assert torch.allclose(y, torch.tensor([-0.402, 0.174, -0.772, 1, -1]), atol=1e-6)
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    grey = np.asarray(Image.fromarray(pixels).convert("L"))
    mine = luminance(to_model_range(torch.from_numpy(pixels).permute(2, 0, 1)[None]))
    assert np.abs((mine[0, 0].numpy() + 1) * 127.5 - grey).max() < 1


def test_low_resolution_is_aligned_and_free_of_aliases():
    ramp = torch.linspace(-0.9, 0.9, 32).expand(1, 2, 32, 32).contiguous()
    assert (low_resolution(ramp, 4) - ramp)[..., 6:-6].abs().max() < 1e-5, "shifted"
    stripes = torch.tensor([1.0, -1.0]).repeat(16).expand(1, 1, 32, 32).contiguous()
    assert low_resolution(stripes, 4).abs().max() < 1e-6, "detail below the grid shines through"
    flat = torch.full((1, 3, 8, 8), 0.25)
    assert torch.allclose(low_resolution(flat, 2), flat)
    edge = torch.cat([torch.full((1, 1, 16, 8), -1.0), torch.ones(1, 1, 16, 8)], 3)
    assert low_resolution(edge, 4).abs().max() <= 1, "overshoot of the bicubic edge"
    with pytest.raises(ConfigError, match="does not divide"):
        low_resolution(torch.zeros(1, 1, 10, 8), 4)
