"""Nearest neighbours: exact, and they tell a model that copies from one that does not."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from vmcmc_dist.data.scaling import to_model_range
from vmcmc_dist.errors import ConfigError, DataError
from vmcmc_dist.evaluation.features.base import Features
from vmcmc_dist.evaluation.neighbours import closeness, nearest
from vmcmc_dist.evaluation.tasks import neighbours as task


def points(n: int, d: int, seed: int) -> torch.Tensor:
    return torch.rand(n, d, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.parametrize("size", [7, 50, 1000])
def test_neighbours_are_those_of_all_pairs(size) -> None:
    x, q = points(203, 30, 0), points(11, 30, 1)
    found = nearest(q.view(11, 5, 6), x.view(-1, 5, 6).split(size), 4)
    gap = (q[:, None].double() - x[None].double()).norm(dim=2)
    distance, row = gap.sort(dim=1)
    torch.testing.assert_close(found.distance, distance[:, :4])
    assert torch.equal(found.row, row[:, :4])


def test_more_dimensions_than_are_held_at_a_time(monkeypatch) -> None:
    monkeypatch.setattr("vmcmc_dist.evaluation.neighbours.COLUMNS", 8)
    x, q = points(40, 29, 0), points(5, 29, 1)
    gap = (q[:, None].double() - x[None].double()).norm(dim=2)
    torch.testing.assert_close(nearest(q, [x], 1).distance[:, 0], gap.amin(1))
    near = x.clone()
    near[:, 25] += 1e-3
    gap = (near - x).double().norm(dim=1).tolist()
    assert nearest(near, [x], 1).distance[:, 0].tolist() == pytest.approx(gap, rel=1e-9)


def test_near_copies_are_told_apart() -> None:
    """One grey level in one of 10,000 pixels counts; in float32 sums it would be lost."""
    x = points(30, 10_000, 0)
    q = x[[3, 9]].clone()
    q[1, 17] += 2 / 255
    found = nearest(q, x.split(10), 2)
    assert found.row[:, 0].tolist() == [3, 9]
    assert found.distance[:, 0].tolist() == pytest.approx([0, 2 / 255], abs=1e-5)
    gap = (q.double() - x[[3, 9]].double()).norm(dim=1)
    assert found.distance[:, 0].tolist() == pytest.approx(gap.tolist(), rel=1e-12, abs=0)
    assert (found.without_itself().distance[:, 0] > 10).all()


def test_too_few_or_other_points_are_refused() -> None:
    with pytest.raises(DataError, match="3 neighbours.*2 points"):
        nearest(points(1, 4, 0), [points(2, 4, 1)], 3)
    with pytest.raises(DataError, match="4 values.*5"):
        nearest(points(1, 4, 0), [points(2, 5, 1)], 1)


def test_closeness_of_new_data_and_of_copies() -> None:
    rng = torch.Generator().manual_seed(0)
    held, new = (5 + torch.randn(4000, generator=rng).double() for _ in range(2))
    fair = closeness(new, held)
    assert fair.ratio == pytest.approx(1, abs=0.02) and fair.closer == pytest.approx(
        0.01, abs=0.006
    )
    copies = closeness(new * 0.1, held)
    assert copies.ratio == pytest.approx(0.1, abs=0.01) and copies.closer > 0.99


def test_closeness_says_what_it_needs() -> None:
    with pytest.raises(DataError, match="at least 100.*got 99"):
        closeness(torch.ones(500), torch.ones(99))
    with pytest.raises(DataError, match="in the training data too"):
        closeness(torch.ones(500), torch.zeros(200))


def brightness(pixels: torch.Tensor):
    """Features of rows and columns; no logits."""
    x = to_model_range(pixels)
    return torch.cat([x.mean((1, 2)), x.mean((1, 3))], 1), None


@pytest.fixture
def in_features(monkeypatch):
    net = Features("profile", 56, None, "0" * 64, brightness)
    monkeypatch.setattr(task, "features_for", lambda *a, **k: net)


def sampling(model, images: np.ndarray, noise: float):
    """A model whose samples are these images with a little noise."""
    x = to_model_range(torch.from_numpy(images).permute(0, 3, 1, 2))

    def sample(n, *, seed, **_):
        rng = torch.Generator().manual_seed(seed % 2**31)
        chosen = x[torch.randint(len(x), (n,), generator=rng)]
        return chosen + noise * torch.randn(chosen.shape, generator=rng)

    model.sample = sample
    return model


def test_a_model_that_memorised_is_caught(
    small_model, job_of, blob_data, in_features, make_blobs
) -> None:
    settings = dict(n=120, batch_size=50)
    copies = sampling(small_model(), np.load(blob_data / "train.npy"), 0.01)
    caught = task.run(job_of(copies, "neighbours", **settings)).figures
    fresh = sampling(small_model(), make_blobs(300, seed=77)[0], 0.01)
    clean = task.run(job_of(fresh, "neighbours", **settings)).figures
    for space in ("pixel", "profile"):
        assert caught[f"ratio_{space}"] < 0.4 and caught[f"closer_{space}"] > 0.9
        assert 0.85 < clean[f"ratio_{space}"] < 1.15 and clean[f"closer_{space}"] < 0.06
        assert caught[f"distance_held_out_{space}"] == clean[f"distance_held_out_{space}"]


def test_figures_and_pictures(small_model, job_of, blob_data, in_features) -> None:
    train = np.load(blob_data / "train.npy")
    model = sampling(small_model(), train[40:41], 0.0)
    job = job_of(model, "neighbours", n=100, shown=2, neighbours=2)
    result = task.run(job)
    assert json.loads(json.dumps(result.figures)) == result.figures
    assert result.figures["n"] == 100 and result.figures["n_held_out"] == 100
    assert result.figures["distance_samples_pixel"] == pytest.approx(0, abs=1e-5)
    names = ["neighbours.png", "closest.png", "distances.png"]
    assert [p.name for p in result.pictures] == names
    with Image.open(result.pictures[0]) as picture:  # sample | pixel 1, 2 | profile 1, 2
        pixels = np.asarray(picture.convert("L"))
        assert picture.width >= 5 * 84
    sample = pixels[pixels.shape[0] // 2]
    assert sample.min() < 120  # something is drawn
    images = task.training_images(job, torch.tensor([199, 40, 40]))
    assert sorted(images) == [40, 199]
    assert torch.equal(images[40], to_model_range(torch.from_numpy(train[40]).permute(2, 0, 1)))


def test_without_a_split_held_out_images_are_not_their_own_neighbours(
    small_model, job_of, tmp_path, make_blobs
) -> None:
    """A single file has no test split: its last tenth is held out, and was trained on."""
    np.save(tmp_path / "all.npy", make_blobs(1000, seed=3)[0])
    model = small_model(f"data.root={tmp_path / 'all.npy'}")
    assert task.held_out_was_trained_on(model)
    model = sampling(model, make_blobs(300, seed=4)[0], 0.0)
    figures = task.run(job_of(model, "neighbours", n=100, features="none")).figures
    assert figures["distance_held_out_pixel"] > 1
    assert 0.85 < figures["ratio_pixel"] < 1.15
    assert not any("profile" in name for name in figures)


def test_an_interrupted_task_goes_on(small_model, job_of, in_features, monkeypatch) -> None:
    job = job_of(small_model(), "neighbours", n=100, batch_size=60)
    whole = task.run(job).figures
    job.drop_parts()
    real, calls = task.search, []

    def killed_later(*arguments):
        calls.append(arguments[-1])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(task, "search", killed_later)
    with pytest.raises(KeyboardInterrupt):
        task.run(job)
    monkeypatch.setattr(job.model, "sample", None)
    assert task.run(job).figures == whole and len(calls) == 3


def test_what_cannot_be_done_is_said(small_model, job_of) -> None:
    model = small_model()
    assert task.fits(model) is None
    with pytest.raises(ConfigError, match="no features 'colour'"):
        task.run(job_of(model, "neighbours", n=100, features="colour"))
    model.shape = (2,)
    assert task.fits(model) is not None
