"""One reader of the soak: streams for ever, and notes every sample it was given.

python soak_reader.py BASE RANK WORLD GLOBAL_BATCH IMAGES NOTES

NOTES gets three int64 a sample (global index, row, crc32 of the pixels), a batch at a time.
"""

from __future__ import annotations

import os
import sys
import zlib

import numpy as np

from vmcmc_dist.data import DataConfig, ShardStream, open_manifest


def main(base: str, rank: int, world: int, batch_size: int, images: int, notes: str) -> None:
    cfg = DataConfig(workers=1, cache_mb=0, retry_s=60.0, stall_s=2.0, max_bad=0.0)
    stream = ShardStream(
        open_manifest(base),
        cfg,
        seed=11,
        rank=rank,
        world_size=world,
        local_batch=batch_size // world,
        images=images,
    )
    file = os.open(notes, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for batch in stream:
        pixels = batch.x.permute(0, 2, 3, 1).numpy()
        sums = [zlib.crc32(np.ascontiguousarray(image)) for image in pixels]
        record = np.stack([batch.index.numpy(), batch.row.numpy(), np.array(sums)], 1)
        os.write(file, record.astype(np.int64).tobytes())


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:6]), sys.argv[6])  # type: ignore[arg-type]
