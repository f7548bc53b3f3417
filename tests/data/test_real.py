"""Real data through the whole path: Fashion-MNIST and CIFAR-10."""

from __future__ import annotations

import gzip
import subprocess
import sys
import tarfile

import numpy as np
import pytest

from vmcmc_dist.data import (
    DataConfig,
    ensure_prepared,
    inspect,
    open_stream,
    prepare_sizes,
    verify,
)


def test_fashion_mnist(shared_data):
    root = shared_data / "fashion_mnist"
    cfg = DataConfig(source="fashion_mnist", root=str(root), split="test", limit=2500)
    manifest = ensure_prepared(cfg)
    assert manifest.shape == (1, 28, 28) and manifest.num_samples == 2500
    pixels = gzip.decompress((root / "t10k-images-idx3-ubyte.gz").read_bytes())[16:]
    labels = gzip.decompress((root / "t10k-labels-idx1-ubyte.gz").read_bytes())[8:]
    images = np.frombuffer(pixels, np.uint8).reshape(-1, 28, 28)
    seen = []
    with open_stream(cfg, seed=0, local_batch=500) as stream:
        for _ in range(5):
            batch = next(stream)
            assert (batch.x[:, 0].numpy() == images[batch.row]).all()
            assert batch.y.tolist() == [labels[r] for r in batch.row.tolist()]
            seen += batch.row.tolist()
    assert sorted(seen) == list(range(2500))


@pytest.mark.slow
def test_cifar10(shared_data, tmp_path):
    decoder = shared_data / "cifar10" / "decode_cifar10.py"
    subprocess.run([sys.executable, str(decoder), str(tmp_path)], check=True, capture_output=True)
    cfg = DataConfig(source="cifar10", root=str(tmp_path))
    found = inspect(ensure_prepared(cfg))
    assert found.shape == (3, 32, 32) and found.num_samples == 50_000
    assert all(4800 < count < 5200 for count in found.histogram.values())
    assert found.mean == pytest.approx(120.7, abs=0.3)


def test_photos_in_three_sizes(shared_data, tmp_path):
    """Photos of 481x321 from a tar: a set a size, whole, of the same photos."""
    root = tmp_path / "photos.tar"
    with tarfile.open(shared_data / "edges_photos" / "bsds-110.tar") as given:
        with tarfile.open(root, "w") as kept:
            for member in given:
                if member.name.endswith(".photo.jpg"):
                    kept.addfile(member, given.extractfile(member))
    cfg = DataConfig(source="folder", root=str(root), shards=str(tmp_path / "out"), limit=40)
    made = prepare_sizes(cfg, [32, 64, 256], allow_upscaling=False)
    means = []
    for manifest in made:
        assert verify(manifest.base, decode=True).problems == () and manifest.small == 0
        with open_stream(DataConfig(source="shards", root=manifest.base, shuffle=False), seed=0,
                         local_batch=40) as stream:  # fmt: skip
            means.append(next(stream).x.float().mean((1, 2, 3)))
    assert (means[0] - means[2]).abs().max() < 2 and (means[1] - means[2]).abs().max() < 2
    sizes = [sum(shard.bytes for shard in manifest.shards) for manifest in made]
    assert sizes[0] < sizes[1] < sizes[2]
