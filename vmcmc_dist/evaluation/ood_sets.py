"""Images that are not of the data: noise, changed data, and other data sets of the same shape.

    sets = other_sets(images, seed=0)        # images uint8 [N, C, H, W]; name → the same shape
    sets["cifar10"] = other_data("cifar10:/data/cifar", images.shape[1:], n=1000, seed=0)

Everything is uint8, so that no set is told apart by finer grey levels than the data have.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, cast, get_args, get_type_hints

import torch
from torch import Tensor

from vmcmc_dist.config import load_config
from vmcmc_dist.data import DataConfig
from vmcmc_dist.data.manifest import holds_shards
from vmcmc_dist.errors import DataError
from vmcmc_dist.evaluation.real import real_images
from vmcmc_dist.langevin import stream_seed


def other_sets(images: Tensor, seed: int = 0) -> dict[str, Tensor]:
    """Noise and changed images by name, each uint8 of the shape of ``images`` [N, C, H, W].

    uniform        every value uniform on 0…255
    gaussian       every value normal with the mean and std of the data, clipped
    shuffled       each image with its own pixels in random places (colours stay together)
    constant       each image of one random colour
    upside_down    mirrored top to bottom
    rotated        by 90° (square images only)
    inverted       255 − x
    """
    if images.ndim != 4 or images.dtype != torch.uint8:
        raise DataError(f"other sets are made of uint8 images [N, C, H, W], got {images.shape}")
    n, channels, height, width = images.shape
    sets = {
        "uniform": torch.randint(256, images.shape, generator=_rng(seed, "uniform")),
        "gaussian": _gaussian(images, _rng(seed, "gaussian")),
        "shuffled": _shuffled(images, _rng(seed, "shuffled")),
        "constant": torch.randint(
            256, (n, channels, 1, 1), generator=_rng(seed, "constant")
        ).expand(images.shape),
        "upside_down": images.flip(2),
    }
    if height == width:
        sets["rotated"] = images.rot90(1, (2, 3))
    sets["inverted"] = 255 - images
    return {name: x.to(torch.uint8).contiguous() for name, x in sets.items()}


def other_data(place: str, shape: tuple[int, ...], n: int, seed: int = 0) -> Tensor:
    """At most n held-out images uint8 [N, *shape] of another data set.

    ``place`` is a folder of prepared shards, a config file (its ``data`` group), or SOURCE:ROOT,
    e.g. ``cifar10:/data/cifar``. Raw data are resized and made grey or colour as ``shape`` says.
    DataError: not there, or of another shape.
    """
    images = real_images(_data_config(place, shape), "held out", limit=n, seed=seed).images
    if tuple(images.shape[1:]) != tuple(shape):
        raise DataError(
            f"{place} holds samples of shape {list(images.shape[1:])}, the model's are "
            f"{list(shape)}: give a data set of that shape"
        )
    return images


def set_name(place: str) -> str:
    """What a set is called in figures: the last part of its path, or its source."""
    if _names_source(place):
        return place.split(":", 1)[0]
    path = Path(place.rstrip("/"))
    return "".join(c if c.isalnum() else "_" for c in path.stem)


def _data_config(place: str, shape: tuple[int, ...]) -> DataConfig:
    channels, height, width = shape
    size = height if height == width else None
    if place.endswith((".yaml", ".yml")):
        data = load_config(place).data
        if data.source == "shards":
            return data
        return dataclasses.replace(
            data, shards=None, image_size=size, channels=channels, limit=None
        )
    if _names_source(place):
        source, root = place.split(":", 1)
        return DataConfig(source=cast(Any, source), root=root, image_size=size, channels=channels)
    if holds_shards(place):
        return DataConfig(source="shards", root=place)
    raise DataError(
        f"{place} is no data set: give a folder of prepared shards, a config file, or SOURCE:ROOT "
        "as in cifar10:/data/cifar"
    )


def _names_source(place: str) -> bool:
    return place.split(":", 1)[0] in get_args(get_type_hints(DataConfig)["source"]) and ":" in place


def _gaussian(images: Tensor, rng: torch.Generator) -> Tensor:
    x = images.float()
    noise = torch.randn(images.shape, generator=rng)
    return (x.mean() + x.std() * noise).round().clamp(0, 255)


def _shuffled(images: Tensor, rng: torch.Generator) -> Tensor:
    n, channels, height, width = images.shape
    order = torch.rand(n, 1, height * width, generator=rng).argsort(2)
    flat = images.flatten(2)
    return flat.gather(2, order.expand_as(flat)).view(images.shape)


def _rng(seed: int, name: str) -> torch.Generator:
    return torch.Generator().manual_seed(stream_seed(seed, "other set", name))
