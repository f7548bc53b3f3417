"""Pairs in shards: one sample of the stream, once an epoch, mirrored together, resumable."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from webdataset import TarWriter

from vmcmc_dist.data import (
    DataConfig,
    ShardStream,
    open_manifest,
)
from vmcmc_dist.errors import DataError


def number(x: torch.Tensor) -> list[int]:
    return (x[:, 0, 0, 0].long() * 256 + x[:, 0, 0, 1].long()).tolist()


UNEVEN = [5, 1, 9, 3, 3, 2]
N = sum(UNEVEN)


def read(manifest, batches, world=1, local=4, images=0, **changes) -> list[int]:
    """The numbers in global order; input and target of each sample carry the same one."""
    out = [-1] * (batches * local * world)
    cfg = DataConfig(streams=4, shuffle_blocks=2, **changes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for rank in range(world):
            with ShardStream(
                manifest, cfg, seed=0, rank=rank, world_size=world, local_batch=local, images=images
            ) as stream:
                for k in range(batches):
                    batch = next(stream)
                    assert batch.x.shape[1] == 3 and batch.source.shape[1] == 1
                    assert number(batch.x) == number(batch.source) == batch.row.tolist()
                    assert batch.y.tolist() == [n % 3 for n in batch.row.tolist()]
                    start = k * local * world
                    out[start + rank : start + local * world : world] = number(batch.source)
    return out


def test_a_webdataset_of_pairs_is_read_as_it_is(pair_shards):
    manifest = pair_shards([3, 2])
    assert (manifest.shape, manifest.source_shape) == ((3, 4, 4), (1, 4, 4))
    assert manifest.labels.names == ("0", "1", "2")
    assert manifest.sample_bytes == 64
    assert sorted(read(manifest, 1, local=5)) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("world", [1, 3])
@pytest.mark.parametrize("workers,cache_mb", [(0, 0), (2, 0), (2, 64)])
def test_each_epoch_has_every_pair_once(pair_shards, world, workers, cache_mb):
    manifest = pair_shards(UNEVEN)
    how = {"workers": workers, "cache_mb": cache_mb}
    seen = read(manifest, -(-2 * N // world), world=world, local=1, **how)
    assert sorted(seen[:N]) == sorted(seen[N : 2 * N]) == list(range(N))


@pytest.mark.parametrize("images,world", [(8, 1), (40, 2), (N + 3, 1)])
def test_pairs_resume_with_the_very_next_batch(pair_shards, images, world):
    manifest = pair_shards(UNEVEN)
    whole = read(manifest, -(-(images + 24) // 8), local=8)
    resumed = read(manifest, 3, world=world, local=8 // world, images=images, cache_mb=0)
    assert resumed == whole[images : images + 24]


def test_both_images_of_a_pair_are_mirrored_together(pair_shards):
    with ShardStream(pair_shards(UNEVEN), DataConfig(flip=True), seed=1, local_batch=N) as stream:
        batch = next(stream)
    assert torch.equal(batch.x[:, :1], batch.source)
    assert batch.source.is_contiguous()
    plain = [n // 256 * 256 + n % 256 for n in batch.row.tolist()]
    flipped = [a != b for a, b in zip(number(batch.source), plain, strict=True)]
    assert 3 < sum(flipped) < N - 3


@pytest.mark.parametrize("members", [{"input.png": 4}, {"target.png": 4}])
def test_a_sample_without_its_partner_is_named(pair_shards, grey_png, members):
    manifest = pair_shards([2])
    path = Path(manifest.path(0))
    with open(path, "ab"):
        pass
    with open(path, "wb") as file, TarWriter(file, mtime=0) as tar:
        both = {"input.png": grey_png(0), "target.png": grey_png(0), "cls": 0}
        tar.write({"__key__": "a", **both})
        tar.write({"__key__": "b", "cls": 0, **{name: grey_png(1) for name in members}})
    torn = open_manifest(manifest.base)
    with ShardStream(torn, DataConfig(), seed=0, local_batch=2) as stream:
        with pytest.raises(DataError, match=r"sample b: no input.EXT and target.EXT member"):
            next(stream)


def test_a_sample_of_unequal_images_is_refused(pair_shards, grey_png):
    manifest = pair_shards([1])
    with open(manifest.path(0), "wb") as file, TarWriter(file, mtime=0) as tar:
        images = {"input.png": grey_png(0, 4), "target.png": grey_png(0, 8)}
        tar.write({"__key__": "a", **images})
    with pytest.raises(DataError, match="input of 4x4 and target of 8x8"):
        open_manifest(manifest.base)
