"""A set of shards from one store to another: every byte checked on the way, the manifest last."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from vmcmc_dist.data import index, store
from vmcmc_dist.data.manifest import NAME, Manifest, open_manifest
from vmcmc_dist.data.shard_info import ShardInfo
from vmcmc_dist.data.unfinished import errors_of_writing
from vmcmc_dist.errors import DataError

Progress = Callable[[str, int, int], None]


def mirror(
    source: str, target: str, progress: Progress | None = None, *, threads: int = 4
) -> Manifest:
    """Copy a prepared set to another folder or s3:// prefix; run again, it goes on where it was.

    A shard that is there already is read and checked instead of copied. The manifest comes last,
    so the copy is complete when it is there; nothing is ever deleted.
    Raises DataError for a source without a manifest, a shard that is not what it says, and a
    target that holds another set; ResourceError for a full disk.
    """
    if not store.exists(store.join(source, NAME)):
        raise DataError(f"{source}: has no {NAME}; run `vmcmc data index {source}` first")
    manifest = open_manifest(source)
    content = store.read_bytes(store.join(source, NAME))
    there = store.list_files(target, missing_ok=True)
    if NAME in there and store.read_bytes(store.join(target, NAME)) != content:
        raise DataError(f"{target}: holds another set; give another folder, or delete it")
    if not store.is_remote(target):
        with errors_of_writing(target):
            Path(target).expanduser().mkdir(parents=True, exist_ok=True)

    def bring(number: int) -> int:
        shard = manifest.shards[number]
        place = store.join(target, shard.name)
        here = shard.name in there and there[shard.name][0] == shard.bytes
        if not (here and shard.sha256 and _sha256(place) == shard.sha256):
            _copy(manifest.path(number), place, shard)
        return shard.count

    with ThreadPoolExecutor(threads) as pool:
        done = 0
        waiting = [pool.submit(bring, number) for number in range(len(manifest.shards))]
        try:
            for future in waiting:
                done += future.result()
                if progress is not None:
                    progress("mirror", done, manifest.num_samples)
        finally:
            for future in waiting:
                future.cancel()
    with errors_of_writing(target):
        store.write_bytes(store.join(target, index.NAME), index.to_bytes(manifest.blocks))
        store.write_bytes(store.join(target, NAME), content)
    return open_manifest(target)


def _sha256(path: str) -> str:
    digest = hashlib.sha256()
    for part in store.reader().stream(path):
        digest.update(part)
    return digest.hexdigest()


def _copy(source: str, place: str, shard: ShardInfo) -> None:
    """Bring one shard to its place by a temporary file; it is there whole and right, or not."""
    if store.is_remote(place):
        with tempfile.TemporaryDirectory(prefix="vmcmc-") as folder:
            copy = Path(folder) / "shard.tar"
            _receive(source, copy, shard)
            store.upload(copy, place)
        return
    final = Path(place)
    partial = final.with_name(f".{final.name}.{os.getpid()}.partial")
    try:
        with errors_of_writing(place):
            partial.parent.mkdir(parents=True, exist_ok=True)
            _receive(source, partial, shard)
            os.replace(partial, final)
    finally:
        partial.unlink(missing_ok=True)


def _receive(source: str, copy: Path, shard: ShardInfo) -> None:
    digest, size = hashlib.sha256(), 0
    with errors_of_writing(str(copy)), open(copy, "wb") as file:
        for part in store.reader().stream(source):
            digest.update(part)
            size += file.write(part)
        file.flush()
        os.fsync(file.fileno())
    if size != shard.bytes or (shard.sha256 and digest.hexdigest() != shard.sha256):
        raise DataError(
            f"{source}: is not what its manifest says (torn, overwritten or damaged); run `vmcmc "
            "data verify`, and prepare the data again. Shards that were copied are kept"
        )
