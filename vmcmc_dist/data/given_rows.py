"""Batches of given rows, in their order: what evaluation reads, without epochs and shuffling."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np

from vmcmc_dist.data.blocks import Blocks
from vmcmc_dist.data.config import DataConfig
from vmcmc_dist.data.manifest import Manifest
from vmcmc_dist.data.rows import Decoded, Rows
from vmcmc_dist.data.stream import Batch, batch_of, source_of
from vmcmc_dist.errors import DataError

log = logging.getLogger(__name__)


def read_rows(
    manifest: Manifest, cfg: DataConfig, rows: np.ndarray, batch_size: int = 500
) -> Iterator[Batch]:
    """Batches of ``rows`` int64 [N], with ``index`` and ``row`` the row itself.

    A bad row is named in the log and replaced by the next good one of the data set; ``row`` then
    says which. Raises DataError for torn or missing shards, and for more bad rows than
    ``cfg.max_bad`` of N.
    """
    blocks = Blocks(manifest, source_of(cfg), readers=cfg.readers, verify=cfg.verify)
    reader = Rows(manifest, blocks, workers=cfg.workers, resident=False, max_pixels=cfg.max_pixels)
    bad_ones: list[str] = []
    try:
        for start in range(0, len(rows), batch_size):
            ahead = reader.block_of(rows[start : start + 2 * batch_size])
            wanted = np.array(rows[start : start + batch_size])
            reader.request(ahead.tolist())
            made, bad = reader.fetch(wanted)
            for place, why in sorted(bad.items()):
                log.warning("sample skipped: %s", why)
                bad_ones.append(why)
                if len(bad_ones) > cfg.max_bad * len(rows):
                    raise DataError(
                        f"{len(bad_ones)} of {len(rows)} samples are bad, more than data.max_bad="
                        f"{cfg.max_bad:g} allows; the first: {bad_ones[0]}"
                    )
                wanted[place] = _stand_in(reader, int(wanted[place]), made, place)
            yield batch_of(made, wanted, wanted)
    finally:
        reader.close()


def _stand_in(reader: Rows, row: int, made: Decoded, place: int) -> int:
    number = reader.manifest.num_samples
    for step in range(1, number):
        other = np.array([(row + step) % number])
        reader.request(reader.block_of(other).tolist())
        one, bad = reader.fetch(other)
        if not bad:
            made.put(np.array([place]), one)
            return int(other[0])
    raise DataError(f"{reader.manifest.base}: no sample is good; run `vmcmc data verify` on it")
