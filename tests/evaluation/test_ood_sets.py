"""The other sets are what their names say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from vmcmc_dist.errors import DataError
from vmcmc_dist.evaluation.ood_sets import other_data, other_sets, set_name


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randint(256, (30, 3, 8, 8), generator=torch.Generator().manual_seed(0)).byte()


def test_every_set_is_uint8_of_the_same_shape_and_by_the_seed(images) -> None:
    sets, again, other = (other_sets(images, seed) for seed in (0, 0, 1))
    for name, x in sets.items():
        assert x.dtype == torch.uint8 and x.shape == images.shape, name
        assert torch.equal(x, again[name])
        assert torch.equal(x, other[name]) == (name in ("upside_down", "rotated", "inverted"))


def test_changed_images(images) -> None:
    sets = other_sets(images)
    assert torch.equal(sets["upside_down"][:, :, 0], images[:, :, -1])
    assert torch.equal(sets["rotated"][:, :, 0, 0], images[:, :, 0, -1])
    assert torch.equal(sets["inverted"].int() + images, torch.full(images.shape, 255))
    flat, shuffled = images.flatten(2), sets["shuffled"].flatten(2)
    colours, moved = (x.permute(0, 2, 1).tolist() for x in (flat, shuffled))
    assert all(sorted(a) == sorted(b) for a, b in zip(colours, moved, strict=True))
    assert not torch.equal(flat, shuffled)
    alike = other_sets(images[:1].repeat(20, 1, 1, 1))["shuffled"]
    assert len(alike.unique(dim=0)) == 20  # every image in an order of its own


def test_noise(images) -> None:
    dark = (images // 4).contiguous()
    sets = other_sets(dark)
    assert sets["uniform"].float().mean().item() == pytest.approx(127.5, abs=5)
    assert sets["gaussian"].float().mean().item() == pytest.approx(dark.float().mean(), abs=2)
    assert (sets["constant"].flatten(2).float().std(2) == 0).all()
    assert sets["constant"][:, 0, 0, 0].unique().numel() > 20


def test_images_that_are_not_square_are_not_rotated() -> None:
    assert "rotated" not in other_sets(torch.zeros(2, 1, 6, 8).byte())


def test_floats_are_refused() -> None:
    with pytest.raises(DataError, match="uint8"):
        other_sets(torch.zeros(2, 1, 8, 8))


def test_other_data_by_source_by_config_and_by_shards(tmp_path, blob_data, monkeypatch) -> None:
    monkeypatch.setenv("VMCMC_CACHE", str(tmp_path / "cache"))
    x = other_data(f"arrays:{blob_data}", (3, 14, 14), n=10)
    assert x.shape == (10, 3, 14, 14) and torch.equal(x[:, 0], x[:, 2])
    config = tmp_path / "blobs.yaml"
    config.write_text(f"data: {{source: arrays, root: {blob_data}}}\n")
    from_config = other_data(str(config), (3, 14, 14), n=10)
    assert torch.equal(from_config, x)
    shards = next((tmp_path / "cache" / "shards").glob("*test*"))
    assert other_data(str(shards), (3, 14, 14), n=500).shape[1:] == (3, 14, 14)
    with pytest.raises(DataError, match=r"\[3, 14, 14\].*\[1, 28, 28\]"):
        other_data(str(shards), (1, 28, 28), n=5)


def test_a_place_that_is_no_data_set_says_what_is(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros(3))
    for place in (str(tmp_path), "no/such/folder", "nosource:/data"):
        with pytest.raises(DataError, match="SOURCE:ROOT"):
            other_data(place, (1, 28, 28), n=5)


def test_names() -> None:
    assert set_name("cifar10:/data/cifar-10") == "cifar10"
    assert set_name("configs/my-data.yaml") == "my_data"
    assert set_name("shards/digits/") == "digits"
