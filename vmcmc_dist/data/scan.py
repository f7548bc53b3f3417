"""A manifest for tars that came without one of ours, by reading them through once."""

from __future__ import annotations

import json
import mmap
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np

from vmcmc_dist.data import index, samples, store, tar
from vmcmc_dist.data.manifest import NAME, LabelInfo, Manifest, shard_of, write_manifest
from vmcmc_dist.data.shard_info import ShardInfo
from vmcmc_dist.data.unfinished import is_unfinished
from vmcmc_dist.errors import DataError

Progress = Callable[[str, int, int], None]


def scan(base: str, progress: Progress | None = None) -> Manifest:
    """Count the samples of each tar below ``base``, read shape and labels off the first sample.

    Samples with ``KEY.input.EXT`` and ``KEY.target.EXT`` are pairs. Classes come from ``.cls``
    members, attributes from ``.json`` with a list ``attributes``.
    Raises DataError for a torn tar, or if the first sample holds no readable image.
    """
    files = list(store.list_files(base))
    if is_unfinished(files):
        raise DataError(
            f"{base}: its preparation is not finished; run the same `vmcmc data prepare` again"
        )
    names = [name for name in files if name.endswith(".tar")]
    if not names:
        raise DataError(f"{base}: no {NAME} and no .tar shards there; run `vmcmc data prepare`")
    infos: list[ShardInfo] = []
    tables: list[np.ndarray] = []
    first: tuple[str, tar.Sample, bytes] | None = None
    classes = 0
    for done, name in enumerate(names):
        where = store.join(base, name)
        with local_copy(where) as file:
            info, table = index.index_tar(file, name, where=where)
            infos.append(info)
            tables.append(table)
            with open(file, "rb") as opened, _mapped(opened) as data:
                for sample in tar.samples(data, where):
                    if first is None:
                        first = where, *_alone(sample, data)
                    if "cls" in sample.members:
                        a, b = sample.members["cls"]
                        label = bytes(data[a:b]).strip()
                        classes = max(classes, int(label) + 1) if label.isdigit() else classes
        if progress is not None:
            progress("index", done + 1, len(names))
    if first is None:
        raise DataError(f"{base}: the shards hold no samples; prepare the data again")
    shape, dtype, source_shape = samples.shapes_of(*first)
    return Manifest(
        source=f"webdataset:{base.rstrip('/').rsplit('/', 1)[-1]}",
        shape=shape,
        dtype=dtype,
        shards=tuple(infos),
        labels=_labels(first[1], first[2], classes),
        base=base,
        source_shape=source_shape,
        blocks=index.joined(tables),
    )


def write_index(base: str, progress: Progress | None = None) -> Manifest:
    """Read the shards below ``base`` and write their manifest and block table there.

    A manifest that is there keeps what it says of the data (source, labels, licence, …); its
    shards are checked against it. Raises DataError where they differ, and for torn tars.
    """
    where = store.join(base, NAME)
    if not store.exists(where):
        manifest = scan(base, progress)
    else:
        record, shards = _record(where)
        tables = []
        for done, shard in enumerate(shards):
            path = store.join(base, shard.name)
            with local_copy(path) as file:
                info, table = index.index_tar(file, shard.name, where=path)
            if replace(info, sha256="") != replace(shard, sha256="") or (
                shard.sha256 and info.sha256 != shard.sha256
            ):
                raise DataError(f"{path}: is not what {NAME} says; prepare the data again")
            tables.append(table)
            if progress is not None:
                progress("index", done + 1, len(shards))
        blocks = index.joined(tables)
        record |= {"schema_version": 2, "index": index.sha256(blocks)}
        manifest = Manifest.from_json(json.dumps(record), base, index.to_bytes(blocks))
    write_manifest(manifest, base)
    return replace(manifest, base=base)


def _alone(sample: tar.Sample, data: memoryview) -> tuple[tar.Sample, bytes]:
    """One sample and its bytes, out of those of its tar."""
    start = sample.start
    members = {e: (a - start, b - start) for e, (a, b) in sample.members.items()}
    alone = sample._replace(start=0, stop=sample.stop - start, members=members)
    return alone, bytes(data[start : sample.stop])


def _record(where: str) -> tuple[dict[str, Any], list[ShardInfo]]:
    """A manifest.json of ours, of this or an older version, and its shards."""
    try:
        record = json.loads(store.read_bytes(where))
        return record, [shard_of(where, shard) for shard in record["shards"]]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{where}: not a manifest of ours ({type(error).__name__}: {error}); move it away: "
            "the tars are then read as any WebDataset"
        ) from None


@contextmanager
def _mapped(file: IO[bytes]) -> Iterator[memoryview]:
    """The bytes of an open file, as the kernel maps it."""
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as whole:
        data = memoryview(whole)
        try:
            yield data
        finally:
            data.release()


@contextmanager
def local_copy(path: str) -> Iterator[Path]:
    """A file on this machine: the file itself, or a copy of an s3:// object, deleted afterwards."""
    if not store.is_remote(path):
        with store.store_errors(path):
            yield Path(path).expanduser()
        return
    with tempfile.TemporaryDirectory(prefix="vmcmc-") as folder:
        copy = Path(folder) / "shard.tar"
        store.reader().copy(path, copy)
        yield copy


def _labels(sample: tar.Sample, data: bytes, classes: int) -> LabelInfo:
    if classes:
        return LabelInfo("class", tuple(str(c) for c in range(classes)))
    try:
        start, stop = sample.members["json"]
        width = len(json.loads(data[start:stop])["attributes"])
    except (ValueError, KeyError, TypeError):
        return LabelInfo()
    return LabelInfo("attributes", tuple(str(a) for a in range(width)))
