"""Masks: what they hide, and that a sample's mask depends on nothing but its index."""

from __future__ import annotations

import pytest
import torch

from vmcmc_dist.data.masks import MASK_KINDS, masks, masks_at
from vmcmc_dist.errors import ConfigError

SHAPES = [(1, 28, 28), (3, 64, 64), (3, 40, 24), (1, 4, 4), (17, 31)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", MASK_KINDS)
def test_every_mask_hides_something_and_shows_something(kind, shape) -> None:
    hidden = masks(kind, shape, 6, seed=3)
    assert hidden.shape == (6, 1, *shape[-2:]) and hidden.dtype == torch.float32
    assert set(hidden.unique().tolist()) == {0.0, 1.0}
    share = hidden.mean((1, 2, 3))
    assert (share > 0).all() and (share < 1).all()


def test_halves_lie_where_they_say() -> None:
    left, right, top, bottom = (masks(k, (1, 8, 6), 1)[0, 0] for k in MASK_KINDS[:4])
    assert left[:, :3].all() and not left[:, 3:].any()
    assert right[:, 3:].all() and not right[:, :3].any()
    assert top[:4].all() and not top[4:].any()
    assert bottom[4:].all() and not bottom[:4].any()


def test_the_centre_is_in_the_centre() -> None:
    hidden = masks("centre", (3, 64, 32), 2)
    assert torch.equal(hidden, hidden.flip(2)) and torch.equal(hidden, hidden.flip(3))
    assert hidden[0, 0, 16:48, 8:24].all() and hidden[0].sum() == 32 * 16


@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
def test_the_share_is_kept(share) -> None:
    shape = (1, 40, 40)
    assert masks("random", shape, 4, share=share).mean((1, 2, 3)).tolist() == pytest.approx(
        [share] * 4
    )
    assert masks("left", shape, 1, share=share).mean().item() == pytest.approx(share)
    assert masks("centre", shape, 1, share=share).mean().item() == pytest.approx(share, abs=0.03)
    strokes = masks("free_form", shape, 12, share=share).mean((1, 2, 3))
    assert (strokes >= share).all() and (strokes < share + 0.12).all()


@pytest.mark.parametrize("kind", ["random", "free_form", "mixed"])
def test_a_mask_is_a_function_of_seed_and_index(kind) -> None:
    shape = (3, 32, 32)
    whole = masks(kind, shape, 9, seed=5)
    assert torch.equal(masks_at(kind, shape, [7, 2], seed=5), whole[[7, 2]])
    assert torch.equal(masks_at(kind, shape, torch.tensor([4]), seed=5), whole[[4]])
    assert not torch.equal(masks(kind, shape, 9, seed=6), whole)
    assert len({mask.numpy().tobytes() for mask in whole}) > 3
    assert masks_at(kind, shape, [], seed=5).shape == (0, 1, 32, 32)


def test_strokes_hang_together() -> None:
    """Most hidden pixels of strokes have hidden neighbours, those of noise do not."""

    def compactness(kind):
        hidden = masks(kind, (1, 64, 64), 8, share=0.25).bool()
        inside = hidden[..., 1:-1, 1:-1]
        ring = hidden[..., :-2, 1:-1] & hidden[..., 2:, 1:-1] & hidden[..., 1:-1, :-2]
        return float((inside & ring).sum() / inside.sum())

    assert compactness("free_form") > 0.6 > 0.1 > compactness("random")


def test_large_seeds_are_fine() -> None:
    assert masks("random", (1, 8, 8), 1, seed=2**63 - 1).sum() == 32


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("middle", (1, 8, 8), 1), "no mask 'middle'.*centre"),
        (("left", (2,), 1), "images of at least 4×4"),
        (("left", (1, 3, 8), 1), "images of at least 4×4"),
        (("random", (1, 8, 8), 1, 0, 1.0), "between 0 and 1, got 1"),
        (("random", (1, 8, 8), 1, 0, 0.0), "between 0 and 1, got 0"),
    ],
)
def test_what_is_no_mask_is_said(arguments, message) -> None:
    with pytest.raises(ConfigError, match=message):
        masks(*arguments)


def test_even_a_share_near_one_leaves_something_visible() -> None:
    hidden = masks("free_form", (1, 4, 4), 60, share=0.97)
    assert (hidden.mean((1, 2, 3)) < 1).all() and (hidden.mean((1, 2, 3)) > 0.5).all()
