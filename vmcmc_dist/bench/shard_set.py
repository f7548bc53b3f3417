"""WebDataset shards of given JPEG bytes, as a user's own tool would write them."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path

from vmcmc_dist.data.manifest import Manifest
from vmcmc_dist.data.scan import write_index

CLASSES = 10


def write_shards(folder: Path, files: Sequence[bytes], count: int, shards: int) -> Manifest:
    """``count`` samples in ``shards`` tars: the files over and over, with a class label.

    Members are ``KEY.jpg`` with the very bytes and ``KEY.cls``; the block table lies beside them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    per_shard = -(-count // shards)
    for shard, start in enumerate(range(0, count, per_shard)):
        with tarfile.open(
            folder / f"shard-{shard:05d}.tar", "w", format=tarfile.USTAR_FORMAT
        ) as tar:
            for i in range(start, min(start + per_shard, count)):
                _add(tar, f"{i:08d}.jpg", files[i % len(files)])
                _add(tar, f"{i:08d}.cls", str(i % CLASSES).encode())
    return write_index(str(folder))


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))
