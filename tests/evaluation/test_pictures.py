"""Grids on disk: where each cell lies, how it is enlarged, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from vmcmc_dist.errors import DataError
from vmcmc_dist.evaluation.pictures import (
    GAP,
    caption_line,
    save_chain_strips,
    save_grid,
    save_pair_grid,
    tile,
    to_bytes,
)


def colours(*levels: float, size: int = 28) -> torch.Tensor:
    return torch.tensor(levels).view(-1, 1, 1, 1).expand(-1, 3, size, size)


def pixels_of(path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def test_model_range_becomes_bytes_and_is_clamped():
    images = torch.tensor([-3.0, -1.0, 0.0, 1.0, 3.0]).view(5, 1, 1, 1)
    assert to_bytes(images)[:, 0, 0].tolist() == [[v] * 3 for v in (0, 0, 128, 255, 255)]
    exact = torch.tensor([0, 7, 255], dtype=torch.uint8).view(3, 1, 1, 1)
    assert to_bytes(exact)[:, 0, 0, 0].tolist() == [0, 7, 255]


@pytest.mark.parametrize(("size", "factor"), [(28, 3), (32, 3), (64, 1), (256, 1)])
def test_small_images_are_enlarged_by_a_whole_factor(size, factor):
    assert tile(colours(0.5, size=size)).size == (size * factor, size * factor)


def test_enlarging_keeps_each_pixel_a_square():
    image = torch.linspace(-1, 1, 28 * 28).view(1, 1, 28, 28)
    drawn = np.asarray(tile(image))
    assert (drawn == np.kron(to_bytes(image)[0], np.ones((3, 3, 1)))).all()


def test_cells_fill_row_by_row():
    drawn = np.asarray(tile(colours(-1, 0, 1), columns=2, scale=1))
    step = 28 + GAP
    assert drawn.shape == (2 * 28 + GAP, 2 * 28 + GAP, 3)
    assert [drawn[y, x, 0] for y, x in ((5, 5), (5, step + 5), (step + 5, 5))] == [0, 128, 255]


def test_pair_grid_puts_proposals_left_and_refined_right(tmp_path):
    path = save_pair_grid(
        tmp_path / "deep" / "pair.png", colours(-1, -1), colours(1, 1), title="t", columns=2
    )
    page = pixels_of(path)
    black = (page == 0).all(2)
    columns = np.flatnonzero(black.sum(0) > 60)
    assert columns.size == 2 * 84 and columns.max() < page.shape[1] / 2


def test_title_and_caption_are_drawn_and_make_room(tmp_path):
    plain = pixels_of(save_grid(tmp_path / "a.png", colours(1.0)))
    caption = caption_line("a run", 120000, 30, "EMA")
    assert caption == "a run · 120,000 images seen · 30 Langevin steps · EMA"
    full = pixels_of(save_grid(tmp_path / "b.png", colours(1.0), title="title", caption=caption))
    assert full.shape[0] > plain.shape[0] + 40
    assert (plain == 255).all() and (full[:50] < 100).any() and (full[-60:] < 150).any()


def test_long_captions_wrap_instead_of_widening(tmp_path):
    short = pixels_of(save_grid(tmp_path / "a.png", colours(1.0), caption="word"))
    long = pixels_of(save_grid(tmp_path / "b.png", colours(1.0), caption="word " * 60))
    assert long.shape[1] <= 400 and long.shape[0] > short.shape[0] + 60


def test_strips_show_one_column_per_state(tmp_path):
    states = [colours(-1, -1), colours(0, 0), colours(1, 1)]
    page = pixels_of(save_chain_strips(tmp_path / "s.png", states, ["0", "10", "20"]))
    middle = page[page.shape[0] // 2]
    assert (middle == 0).all(1).sum() == 84 and (middle == 128).all(1).sum() == 84


def test_what_cannot_be_drawn_is_named(tmp_path):
    with pytest.raises(DataError, match="one start and one end"):
        save_pair_grid(tmp_path / "p.png", colours(0, 0), colours(0))
    with pytest.raises(DataError, match="not finite"):
        save_grid(tmp_path / "p.png", colours(float("nan")))
    with pytest.raises(DataError, match="1 or 3"):
        save_grid(tmp_path / "p.png", torch.zeros(2, 5, 8, 8))
    with pytest.raises(DataError, match="at least one"):
        save_grid(tmp_path / "p.png", torch.zeros(0, 3, 8, 8))
    with pytest.raises(DataError, match="one label each"):
        save_chain_strips(tmp_path / "p.png", [colours(0)], [])
