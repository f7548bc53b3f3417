"""Rows of the data set, decoded by a pool of threads into one array a batch."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np

from vmcmc_dist.data.blocks import Blocks
from vmcmc_dist.data.buffers import BufferPool
from vmcmc_dist.data.decoding import (
    UndecodableError,
    decode_into,
    decode_jpegs,
    header,
)
from vmcmc_dist.data.fitting import fit_into
from vmcmc_dist.data.manifest import Manifest
from vmcmc_dist.data.order import offsets_of
from vmcmc_dist.data.samples import AlikeBlock, Bad, Encoded
from vmcmc_dist.data.tar import JPEG, VECTORS
from vmcmc_dist.errors import DataError

Item = TypeVar("Item")
Found = TypeVar("Found")


@dataclass
class Decoded:
    """Samples in memory. Images lie as [B, H, W, C]: what decoders write and nets like to read.

    x       uint8 [B, H, W, C] or float32 [B, D]
    y       int64 [B] or [B, A], or None
    source  uint8 [B, H, W, C'] the input images of pairs, or None
    """

    x: np.ndarray
    y: np.ndarray | None
    source: np.ndarray | None

    def take(self, places: np.ndarray | slice) -> Decoded:
        """Some of them: a copy, or for a slice over the same memory."""
        return Decoded(
            self.x[places],
            None if self.y is None else self.y[places],
            None if self.source is None else self.source[places],
        )

    def put(self, places: np.ndarray, other: Decoded) -> None:
        """Copy those of ``other`` to ``places``."""
        self.x[places] = other.x
        if self.y is not None:
            self.y[places] = other.y
        if self.source is not None:
            self.source[places] = other.source


class BatchBuffers:
    """Memory of ``number`` samples of a data set, used again and again."""

    def __init__(self, number: int, manifest: Manifest) -> None:
        labels, shape = manifest.labels, manifest.source_shape
        self.x = BufferPool((number, *_as_stored(manifest.shape)), manifest.dtype)
        self.source = None if shape is None else BufferPool((number, *_as_stored(shape)), np.uint8)
        self._y = (number,) if labels.width is None else (number, labels.width)
        self._labelled = labels.kind != "none"

    def empty(self) -> Decoded:
        """As many samples, their content what it may be."""
        return Decoded(
            self.x.array(),
            np.empty(self._y, dtype=np.int64) if self._labelled else None,
            None if self.source is None else self.source.array(),
        )


def _as_stored(shape: tuple[int, ...]) -> tuple[int, ...]:
    """(C, H, W) → (H, W, C); vectors stay."""
    return (*shape[1:], shape[0]) if len(shape) == 3 else shape


def _as_they_are(manifest: Manifest) -> bool:
    """True for single colour images that are neither cut nor resized."""
    return (
        len(manifest.shape) == 3
        and manifest.shape[0] == 3
        and not (manifest.stored_shape or manifest.source_shape)
    )


class Rows:
    """Random access to rows whose blocks are at hand.

    With ``resident`` every decoded sample stays in memory, so it is read and decoded once.
    """

    def __init__(
        self,
        manifest: Manifest,
        blocks: Blocks,
        *,
        workers: int,
        resident: bool,
        max_pixels: int,
    ) -> None:
        self.manifest, self.blocks, self.resident = manifest, blocks, resident
        self.workers, self.max_pixels = workers, max_pixels
        self.offsets = offsets_of(manifest.blocks["count"])
        self._decoders = ThreadPoolExecutor(workers - 1, "vmcmc-decode") if workers > 1 else None
        number = manifest.num_samples if resident else 0
        self._buffers: dict[int, BatchBuffers] = {}
        self._all = self._empty(number)
        self._short_way = _as_they_are(manifest)
        self._have = np.zeros(number, dtype=bool)
        self._bad: dict[int, str] = {}
        self._missing = manifest.blocks["count"].astype(np.int64) if resident else np.zeros(0)

    def request(self, wanted: Iterable[int]) -> None:
        """Start to fetch these blocks, in this order, and forget others."""
        self.blocks.request(b for b in wanted if not self.resident or self._missing[b])

    def fetch(self, rows: np.ndarray) -> tuple[Decoded, dict[int, str]]:
        """Rows int64 [B] of requested blocks, and the bad ones: place in the batch → what is wrong.

        Places of bad rows hold no sample: the caller must fill them.
        """
        if not self.resident:
            made = self._empty(len(rows))
            return made, self._decode(rows, made, np.arange(len(rows)))
        wanted = np.unique(rows[~self._have[rows]])
        if len(wanted):
            bad = self._decode(wanted, self._all, wanted)
            self._bad.update({int(wanted[i]): why for i, why in bad.items()})
            self._have[wanted] = True
            np.subtract.at(self._missing, self.block_of(wanted), 1)
        if not self._bad:
            return self._all.take(rows), {}
        return self._all.take(rows), {
            i: self._bad[int(r)] for i, r in enumerate(rows) if int(r) in self._bad
        }

    def _empty(self, number: int) -> Decoded:
        if number not in self._buffers:
            self._buffers[number] = BatchBuffers(number, self.manifest)
        return self._buffers[number].empty()

    def block_of(self, rows: np.ndarray) -> np.ndarray:
        """The block of each row, int64 [B]."""
        return np.searchsorted(self.offsets, rows, side="right") - 1

    def _decode(self, rows: np.ndarray, to: Decoded, places: np.ndarray) -> dict[int, str]:
        block_of = self.block_of(rows)
        inside = (rows - self.offsets[block_of]).tolist()
        at_hand = {int(b): self.blocks.samples(int(b)) for b in np.unique(block_of)}
        blocks, target = block_of.tolist(), places.tolist()

        def work(left: Iterator[int]) -> dict[int, str]:
            bad = {}
            for i in left:
                sample = at_hand[blocks[i]][inside[i]]
                try:
                    self._one(sample, to, target[i])
                except UndecodableError as error:
                    where = self.blocks.shard(blocks[i])
                    self._refuse_other_size(sample, to.x, where)
                    bad[i] = f"{where}: sample {sample.key}: {error}"
                except DataError as error:
                    raise DataError(f"{self.blocks.shard(blocks[i])}: {error}") from None
            return bad

        usual = _jpegs(at_hand) if self._short_way else None
        left = list(range(len(rows)))
        if usual is not None:  # a few steps a batch, and one call an image
            found = list(zip((usual[b] for b in blocks), inside, strict=True))
            if to.y is not None:
                to.y[places] = [labels[i] for (_, _, _, labels), i in found]  # type: ignore[index]
            images = [data[starts[i] : stops[i]] for (data, starts, stops, _), i in found]
            outs = list(to.x) if target == left else [to.x[t] for t in target]
            decode = partial(decode_jpegs, to.x.shape[1:])
            todo = list(zip(left, images, outs, strict=True))
            left = [i for failed in self._shared(decode, todo) for i in failed]
        return {i: why for bad in self._shared(work, left) for i, why in bad.items()}

    def _shared(self, work: Callable[[Iterator[Item]], Found], items: list[Item]) -> list[Found]:
        """What all threads found: each takes the next of what is left, so none waits long."""
        left, helpers = iter(items), []
        if self._decoders is not None:
            number = min(self.workers, len(items)) - 1
            helpers = [self._decoders.submit(work, left) for _ in range(number)]
        return [work(left), *(helper.result() for helper in helpers)]

    def _one(self, sample: Encoded | Bad, to: Decoded, place: int) -> None:
        """Decode one sample to its place; raises UndecodableError if it is bad."""
        if isinstance(sample, Bad):
            raise UndecodableError(sample.reason)
        if sample.extension in VECTORS or to.x.ndim == 2:
            _vector(sample, to.x[place])
        elif self.manifest.stored_shape is None:
            decode_into(sample.data, sample.extension, to.x[place])
        else:
            fit_into(bytes(sample.data), sample.extension, to.x[place], self.max_pixels)
        if to.source is not None and sample.source is not None:
            decode_into(sample.source.data, sample.source.extension, to.source[place])
        if to.y is not None:
            to.y[place] = sample.label

    def _refuse_other_size(self, sample: Encoded | Bad, x: np.ndarray, where: str) -> None:
        """An image that is whole but of another size is no damage: all of them may be."""
        if isinstance(sample, Bad) or self.manifest.stored_shape is not None or x.ndim != 4:
            return
        self._compare(sample, self.manifest.shape, where)
        if sample.source is not None and self.manifest.source_shape is not None:
            self._compare(sample.source, self.manifest.source_shape, where)

    def _compare(self, sample: Encoded, shape: tuple[int, ...], where: str) -> None:
        try:
            found = header(sample.data)
        except UndecodableError:
            return  # damaged, then
        if (found.channels, found.height, found.width) != shape:
            raise DataError(
                f"{where}: member {sample.key}.{sample.extension}: {found.width}x{found.height} "
                f"with {found.channels} channels, expected {shape[2]}x{shape[1]} with {shape[0]}; "
                "set data.image_size to a size that all images have at least, or prepare the data "
                "again"
            )

    def close(self) -> None:
        """Stop the threads."""
        self.blocks.close()
        if self._decoders is not None:
            self._decoders.shutdown(wait=False, cancel_futures=True)


_Jpegs = tuple[memoryview, list[int], list[int], list[int] | None]


def _jpegs(blocks: dict[int, Sequence[Encoded | Bad]]) -> dict[int, _Jpegs] | None:
    """Bytes, starts, stops and labels of the blocks, if all are usual ones of JPEGs."""
    found = {
        number: (block.data, block.starts, block.stops, block.labels)
        for number, block in blocks.items()
        if isinstance(block, AlikeBlock) and block.extension in JPEG
    }
    return found if len(found) == len(blocks) else None


def _vector(sample: Encoded, out: np.ndarray) -> None:
    if out.ndim != 1:
        raise DataError(f"member {sample.key}.{sample.extension}: a vector, not an image")
    if sample.extension not in VECTORS:
        raise DataError(
            f"member {sample.key}.{sample.extension}: an image where vectors of {len(out)} numbers "
            "are expected"
        )
    try:
        vector = np.load(io.BytesIO(sample.data), allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise UndecodableError(f"not a .npy array ({error})") from None
    if vector.shape != out.shape or vector.dtype != np.float32:
        raise DataError(
            f"member {sample.key}.{sample.extension}: {vector.dtype}{vector.shape}, expected "
            f"float32{out.shape}"
        )
    out[:] = vector
