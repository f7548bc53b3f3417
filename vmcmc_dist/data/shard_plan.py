"""How many samples go into a shard, and which shards one process writes together."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vmcmc_dist.data.shard_writer import Coding, Part, is_small, members
from vmcmc_dist.data.sources.base import Source, UndecodableError
from vmcmc_dist.data.tar import RECORD

SHARD_BYTES = 64 << 20
LOOKED_AT = 64
LEAST_SHARDS, LEAST_SAMPLES = 16, 64
UNKNOWN_BYTES = 100_000
"""Of a sample, where none of those looked at decodes."""


@dataclass(frozen=True)
class Look:
    """A few samples of a source, spread evenly over it, coded for each of the sets: mean bytes of
    one in the tar, share of images that are smaller than the set's, seconds that one took.
    """

    bytes: tuple[int, ...]
    small: tuple[float, ...]
    seconds: float


def look(source: Source, codings: Sequence[Coding]) -> Look:
    """Code up to LOOKED_AT samples; always the same ones, so that what follows is the same."""
    rows = np.unique(np.linspace(0, len(source) - 1, min(LOOKED_AT, len(source))).astype(int))
    sizes: list[list[int]] = [[] for _ in codings]
    small = [0] * len(codings)
    begun = time.perf_counter()
    for row in rows.tolist():
        try:
            raw = source.load(row)
            coded = [members(raw, code) for code in codings]
        except UndecodableError:
            continue
        for k, (code, sample) in enumerate(zip(codings, coded, strict=True)):
            sizes[k].append(sum(in_tar(len(content)) for content in sample.values()))
            small[k] += is_small(raw, code)
    seconds = (time.perf_counter() - begun) / len(rows)
    return Look(
        tuple(int(np.mean(each)) if each else UNKNOWN_BYTES for each in sizes),
        tuple(count / max(1, len(each)) for count, each in zip(small, sizes, strict=True)),
        seconds,
    )


def in_tar(size: int) -> int:
    """Bytes that a member of ``size`` bytes takes: its header, and whole records."""
    return RECORD + -(-size // RECORD) * RECORD


def shard_samples(number: int, sample_bytes: int) -> int:
    """Samples in a shard of a set of ``number``: a power of two, so that shards of several sets
    begin together; 32 to 64 MiB, smaller where there would be fewer than 16 of them, but not
    below 64 samples for that.
    """
    by_size = SHARD_BYTES // max(1, sample_bytes)
    samples = max(1, min(by_size, max(LEAST_SAMPLES, number // LEAST_SHARDS)))
    return 1 << (samples.bit_length() - 1)


def jobs(number: int, samples: Sequence[int]) -> list[list[Part]]:
    """Every shard of every set, ``samples[s]`` in each of set s; those that share samples are
    together, so that each raw image is read once.
    """
    span = int(np.lcm.reduce(list(samples)))
    return [
        [
            Part(s, start // each, range(start, min(start + each, number)))
            for s, each in enumerate(samples)
            for start in range(first, min(first + span, number), each)
        ]
        for first in range(0, number, span)
    ]
