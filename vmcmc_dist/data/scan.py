"""A manifest for WebDataset tars that were not written by us, by reading them once."""

from __future__ import annotations

import io
import json

import numpy as np
from PIL import Image, UnidentifiedImageError

from vmcmc_dist.data import shards, store
from vmcmc_dist.data.manifest import LabelInfo, Manifest, ShardInfo
from vmcmc_dist.errors import DataError


def scan(base: str, sizes: dict[str, int]) -> Manifest:
    """Count the samples of each tar and read shape and labels off the first sample.

    Samples with ``KEY.input.EXT`` and ``KEY.target.EXT`` are pairs. Classes come from ``.cls``
    members, attributes from ``.json`` with a list ``attributes``.
    Raises DataError for a torn tar, or if the first sample holds no readable image.
    """
    infos, first, classes = [], None, 0
    for name, size in sizes.items():
        path, count = store.join(base, name), 0
        with shards.open_shard(path) as file, store.store_errors(path):
            for sample in shards.tar_samples(path, file):
                count += 1
                first = first or (path, sample)
                label = sample.get("cls", b"").strip()
                classes = max(classes, int(label) + 1) if label.isdigit() else classes
        infos.append(ShardInfo(name, count, size))
    if first is None:
        raise DataError(f"{base}: the shards hold no samples; prepare the data again")
    path, sample = first
    pairs = shards.is_pair(sample)
    found = shards.encoded(path, sample, LabelInfo(), pairs=pairs)
    shape, dtype = _shape(path, found)
    source_shape = None if found.source is None else _shape(path, found.source)[0]
    if source_shape is not None and source_shape[1:] != shape[1:]:
        raise DataError(
            f"{path}: sample {found.key}: input of {source_shape[2]}x{source_shape[1]} and target "
            f"of {shape[2]}x{shape[1]} pixels; both images of a pair have the same size"
        )
    return Manifest(
        source=f"webdataset:{base.rstrip('/').rsplit('/', 1)[-1]}",
        shape=shape,
        dtype=dtype,
        shards=tuple(infos),
        labels=_labels(sample, classes),
        base=base,
        source_shape=source_shape,
    )


def _shape(path: str, found: shards.Encoded) -> tuple[tuple[int, ...], str]:
    if found.extension in shards.VECTORS:
        return np.load(io.BytesIO(found.data), allow_pickle=False).shape, "float32"
    try:
        image = Image.open(io.BytesIO(found.data))
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: sample {found.key} does not decode ({error})") from None
    return (len(image.getbands()), image.height, image.width), "uint8"


def _labels(sample: dict, classes: int) -> LabelInfo:
    if classes:
        return LabelInfo("class", tuple(str(c) for c in range(classes)))
    try:
        width = len(json.loads(sample.get("json", b"{}"))["attributes"])
    except (ValueError, KeyError, TypeError):
        return LabelInfo()
    return LabelInfo("attributes", tuple(str(a) for a in range(width)))
