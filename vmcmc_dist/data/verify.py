"""Whether shards are what their manifest says, byte by byte; all that is not is named."""

from __future__ import annotations

import hashlib
import io
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from vmcmc_dist.data import store
from vmcmc_dist.data.decoding import decode_into
from vmcmc_dist.data.image_header import UndecodableError
from vmcmc_dist.data.manifest import Manifest, open_manifest
from vmcmc_dist.data.samples import Bad, Encoded, split_block
from vmcmc_dist.data.tar import VECTORS
from vmcmc_dist.errors import DataError

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Verified:
    """What was read, and every problem found, one line each; none = the set is whole."""

    manifest: Manifest | None
    problems: tuple[str, ...]

    @property
    def bytes(self) -> int:
        return sum(s.bytes for s in self.manifest.shards) if self.manifest else 0


def verify(
    base: str, progress: Progress | None = None, *, decode: bool = False, threads: int = 8
) -> Verified:
    """Read every shard of a folder or s3:// prefix once: size, sha256, the crc32 and the number of
    samples of every block, and with ``decode`` every image.

    All problems are collected; none is raised. Memory: a few MiB for each of ``threads``.
    """
    try:
        manifest = open_manifest(base)
    except DataError as error:
        return Verified(None, (str(error),))
    problems = _others(manifest)
    total = manifest.num_samples

    def check(shard: int) -> list[str]:
        return list(_shard(manifest, shard, decode))

    with ThreadPoolExecutor(threads) as pool:
        done = 0
        for info, found in zip(
            manifest.shards, pool.map(check, range(len(manifest.shards))), strict=True
        ):
            problems += found
            done += info.count
            if progress is not None:
                progress("verify", done, total)
    return Verified(manifest, tuple(problems))


def _others(manifest: Manifest) -> list[str]:
    """Tars beside the shards that nothing will ever read."""
    known = {shard.name for shard in manifest.shards}
    names = [name for name in store.list_files(manifest.base) if name.endswith(".tar")]
    return [
        f"{store.join(manifest.base, name)}: not in the manifest; delete it, or run `vmcmc data "
        "index` on a set without a manifest"
        for name in names
        if name not in known
    ]


def _shard(manifest: Manifest, number: int, decode: bool) -> Iterator[str]:
    info, where = manifest.shards[number], manifest.path(number)
    blocks = manifest.blocks[manifest.blocks["shard"] == number]
    digest, size, next_block = hashlib.sha256(), 0, 0
    held, at = bytearray(), 0  # the bytes that no block has taken yet, and where they begin
    try:
        for part in store.reader().stream(where):
            digest.update(part)
            size += len(part)
            held += part
            while next_block < len(blocks):
                start, stop = (int(blocks[next_block][f]) for f in ("start", "bytes"))
                stop += start
                if stop > size:
                    break
                yield from _block(
                    manifest, where, blocks[next_block], held[start - at : stop - at], decode
                )
                next_block += 1
            keep_from = int(blocks[next_block]["start"]) if next_block < len(blocks) else size
            cut = max(0, min(keep_from, size) - at)
            del held[:cut]
            at += cut
    except DataError as error:
        yield str(error)
        return
    if size != info.bytes:
        yield f"{where}: {size} bytes, the manifest says {info.bytes}: torn or overwritten"
    elif info.sha256 and digest.hexdigest() != info.sha256:
        yield f"{where}: its sha256 is not the manifest's: overwritten or damaged"
    if next_block < len(blocks):
        yield f"{where}: ends before {len(blocks) - next_block} of its {len(blocks)} blocks"


def _block(
    manifest: Manifest, where: str, block: np.void, data: bytearray, decode: bool
) -> Iterator[str]:
    place = f"{where}, bytes {int(block['start'])} to {int(block['start'] + block['bytes'])}"
    if zlib.crc32(data) != int(block["crc32"]):
        yield f"{place}: checksum mismatch"
        return
    try:
        pairs = manifest.source_shape is not None
        samples = split_block(bytes(data), place, int(block["count"]), manifest.labels, pairs=pairs)
    except DataError as error:
        yield str(error)
        return
    for sample in samples:
        if isinstance(sample, Bad):
            yield f"{where}: sample {sample.key}: {sample.reason}"
        elif decode:
            yield from _undecodable(manifest, where, sample)


def _undecodable(manifest: Manifest, where: str, sample: Encoded) -> Iterator[str]:
    parts = [(sample, manifest.shape)]
    if sample.source is not None and manifest.source_shape is not None:
        parts.append((sample.source, manifest.source_shape))
    for part, shape in parts:
        try:
            if part.extension in VECTORS:
                _check_vector(bytes(part.data), shape)
            else:
                channels, height, width = shape
                out = np.empty((height, width, channels), dtype=np.uint8)
                decode_into(part.data, part.extension, out)
        except (UndecodableError, ValueError, OSError, EOFError) as error:
            yield f"{where}: sample {part.key}.{part.extension}: {error}"


def _check_vector(data: bytes, shape: tuple[int, ...]) -> None:
    vector = np.load(io.BytesIO(data), allow_pickle=False)
    if vector.shape != shape or vector.dtype != np.float32:
        raise ValueError(f"{vector.dtype}{vector.shape}, expected float32{shape}")
