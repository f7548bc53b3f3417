"""Samples as files: a PNG each, or WebDataset shards that ``data.source=shards`` reads again.

files = SampleFiles(folder, "shards", shape, labels)
made = files.write(0, images[:250])       # samples 0 … 249
files.finish([made, …])                   # shards: the manifest
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vmcmc_dist.data import index
from vmcmc_dist.data.manifest import LabelInfo, Manifest, write_manifest
from vmcmc_dist.data.scaling import to_pixels
from vmcmc_dist.data.shard_info import ShardInfo
from vmcmc_dist.data.shard_writer import Coding, ShardJob, write_shard
from vmcmc_dist.data.sources.base import Raw
from vmcmc_dist.errors import ResourceError


@dataclass
class SampleFiles:
    """Where samples go, some at a time; the same samples give the same bytes."""

    folder: Path
    form: Literal["folder", "shards"]
    shape: tuple[int, ...]
    source: str = "samples"
    labels: LabelInfo = field(default_factory=LabelInfo)

    def write(self, first: int, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Samples ``first``, … [B, C, H, W] in [-1, 1]; what :meth:`finish` needs, as uint8.

        ResourceError: the folder cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if self.form == "folder":
                for i, image in enumerate(to_pictures(images)):
                    image.save(self.folder / f"{first + i:09d}.png")
                return torch.empty(0, dtype=torch.uint8)
            batch = Batch(images, labels, first, self)
            path = self.folder / f"shard-{first:09d}.tar"
            samples = range(first, first + len(images))
            shard = write_shard(batch, ShardJob(path, samples, Coding(self.shape, "png", 0)))
        except OSError as error:
            raise ResourceError(
                f"{self.folder} cannot be written ({error.strerror or error}); make room and run "
                "the same command again to go on"
            ) from None
        record = {"info": asdict(shard.info), "blocks": shard.blocks.tolist()}
        return torch.tensor(list(json.dumps(record).encode()), dtype=torch.uint8)

    def finish(self, written: list[Tensor]) -> None:
        """The manifest of the shards, in their order; nothing for a folder of PNGs."""
        if self.form == "folder":
            return
        records = [json.loads(bytes(part.tolist())) for part in written]
        tables = [np.array([tuple(b) for b in r["blocks"]], index.DTYPE) for r in records]
        manifest = Manifest(
            source=self.source,
            shape=self.shape,
            dtype="uint8",
            shards=tuple(ShardInfo(**record["info"]) for record in records),
            labels=self.labels,
            licence="samples of a model",
            blocks=index.joined(tables),
        )
        write_manifest(manifest, str(self.folder))


@dataclass
class Batch:
    """Samples in memory, as the shard writer's source."""

    images: Tensor
    asked: Tensor | None
    first: int
    files: SampleFiles
    image_size: int | None = None
    channels: int = 0

    def __post_init__(self) -> None:
        self.pictures = to_pictures(self.images)

    @property
    def name(self) -> str:
        return self.files.source

    @property
    def licence(self) -> str:
        return "samples of a model"

    @property
    def labels(self) -> LabelInfo:
        return self.files.labels

    def __len__(self) -> int:
        return len(self.images)

    def describe(self, i: int) -> str:
        return f"sample {i}"

    def load(self, i: int) -> Raw:
        label = None if self.asked is None else self.asked[i - self.first].long().tolist()
        return Raw(self.pictures[i - self.first], label)


def to_pictures(images: Tensor) -> list[Image.Image]:
    """[B, 1 or 3, H, W] in [-1, 1] → images of mode L or RGB."""
    pixels = to_pixels(images).cpu().permute(0, 2, 3, 1).contiguous().numpy()
    return [Image.fromarray(p[..., 0] if p.shape[2] == 1 else p) for p in pixels]
