"""The built-in faces: deterministic, varied, in CelebA's layout, and named for what they are."""

from __future__ import annotations

import tarfile

import numpy as np
import pytest
from PIL import Image

from vmcmc_dist.data import (
    DataConfig,
    ensure_prepared,
    faces,
    inspect,
    open_stream,
    to_celeba_layout,
)
from vmcmc_dist.errors import DataError


def test_a_face_is_a_function_of_its_index():
    assert (faces.render(3, 48) == faces.render(3, 48)).all()
    assert np.abs(faces.render(3, 48).astype(int) - faces.render(4, 48)).mean() > 5


@pytest.mark.parametrize("size", [32, 64, 150])
def test_any_resolution_shows_the_same_face(size):
    image = faces.render(11, size)
    assert image.shape == (size, size, 3) and image.dtype == np.uint8
    small = np.asarray(Image.fromarray(image).resize((12, 12), Image.Resampling.BOX), float)
    large = Image.fromarray(faces.render(11, 96)).resize((12, 12), Image.Resampling.BOX)
    assert np.abs(small - np.asarray(large, float)).mean() < 6


def test_faces_vary_and_are_not_flat():
    images = np.stack([faces.render(i, 24) for i in range(40)]).astype(float)
    assert images.std(0).mean() > 25, "between faces"
    assert images.std((1, 2)).mean() > 25, "within a face"
    assert len(np.unique(faces.render(5, 64).reshape(-1, 3), axis=0)) > 1500, "smooth shading"


def test_every_attribute_occurs_in_both_values():
    share = np.mean([faces.attributes(faces.factors(i)) for i in range(1500)], axis=0)
    rare = {n: s for n, s in zip(faces.ATTRIBUTES, share, strict=True) if not 0.01 < s < 0.99}
    assert not rare and 20 <= len(faces.ATTRIBUTES) <= 40


def test_prepared_through_the_celeba_path_and_not_called_celeba(cache):
    cfg = DataConfig(source="faces", faces=40, image_size=32, prepare_workers=1)
    manifest = ensure_prepared(cfg)
    assert manifest.source == "builtin-faces" and "not CelebA" in manifest.licence
    assert manifest.num_samples == 36 and manifest.shape == (3, 32, 32)
    (layout,) = (cache / "raw").iterdir()
    assert Image.open(layout / "img_align_celeba" / "000001.jpg").size == (178, 218)
    with open_stream(cfg, seed=0, local_batch=36) as stream:
        batch = next(stream)
    for x, y, row in zip(batch.x, batch.y, batch.row.tolist(), strict=True):
        index = [i for i in range(40) if i % 20 < 18][row]
        assert y.tolist() == faces.attributes(faces.factors(index))
        direct = faces.render(index, 32).astype(float)
        assert np.abs(x.permute(1, 2, 0).numpy() - direct).mean() < 8


def test_larger_faces_than_the_layout_are_square(cache):
    cfg = DataConfig(source="faces", faces=3, image_size=160, prepare_workers=1)
    assert ensure_prepared(cfg).shape == (3, 160, 160)


def test_photos_enter_the_layout_unharmed(shared_data, tmp_path):
    tar = shared_data / "faces64" / "faces64.tar.gz"
    out = tmp_path / "layout"
    male = {"00001.jpg": [1]}
    number = to_celeba_layout(
        tar, out, name="faces64", limit=40, attributes=male, attribute_names=["Male"]
    )
    cfg = DataConfig(source="celeba", root=str(out), format="png", prepare_workers=1)
    manifest = ensure_prepared(cfg)
    assert number == 40 and manifest.source == "faces64" and manifest.num_samples == 36
    assert inspect(manifest).histogram == {"Male": 1}
    with tarfile.open(tar) as archive:
        first = np.asarray(Image.open(archive.extractfile(archive.next())))  # type: ignore[arg-type]
    cfg.shuffle = False
    with open_stream(cfg, seed=0, local_batch=1) as stream:
        assert (next(stream).x[0].permute(1, 2, 0).numpy() == first).all()


def test_layout_refuses_to_be_called_celeba_and_names_a_torn_tar(tmp_path):
    with pytest.raises(DataError, match="give another name"):
        to_celeba_layout(tmp_path, tmp_path / "out", name="celeba")
    (tmp_path / "torn.tar.gz").write_bytes(b"\x1f\x8b nothing")
    with pytest.raises(DataError, match="torn.tar.gz"):
        to_celeba_layout(tmp_path / "torn.tar.gz", tmp_path / "out", name="x")
    assert not (tmp_path / "out").exists()
