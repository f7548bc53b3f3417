"""A manifest for tars that came without one of ours, by reading them through once."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from vmcmc_dist.data import index, samples, store, tar
from vmcmc_dist.data.manifest import NAME, LabelInfo, Manifest, write_manifest
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
    first: tuple[str, dict[str, bytes]] | None = None
    path, key, classes = "", "", 0
    for done, name in enumerate(names):
        where = store.join(base, name)
        with local_copy(where) as file:
            info, table = index.index_tar(file, name, where=where)
            data = file.read_bytes()
        infos.append(info)
        tables.append(table)
        for sample in tar.samples(data, where):
            if first is None:
                members = {e: data[a:b] for e, (a, b) in sample.members.items()}
                path, key, first = where, sample.key, (sample.key, members)
            if "cls" in sample.members:
                a, b = sample.members["cls"]
                label = data[a:b].strip()
                classes = max(classes, int(label) + 1) if label.isdigit() else classes
        if progress is not None:
            progress("index", done + 1, len(names))
    if first is None:
        raise DataError(f"{base}: the shards hold no samples; prepare the data again")
    shape, dtype, source_shape = samples.shapes_of(path, key, first[1])
    return Manifest(
        source=f"webdataset:{base.rstrip('/').rsplit('/', 1)[-1]}",
        shape=shape,
        dtype=dtype,
        shards=tuple(infos),
        labels=_labels(first[1], classes),
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
        record = json.loads(store.read_bytes(where))
        tables = []
        for done, shard in enumerate(record["shards"]):
            path = store.join(base, shard["name"])
            with local_copy(path) as file:
                info, table = index.index_tar(file, shard["name"], where=path)
            if (info.count, info.bytes) != (shard["count"], shard["bytes"]) or (
                shard["sha256"] and info.sha256 != shard["sha256"]
            ):
                raise DataError(f"{path}: is not what {NAME} says; prepare the data again")
            tables.append(table)
            if progress is not None:
                progress("index", done + 1, len(record["shards"]))
        blocks = index.joined(tables)
        record |= {"schema_version": 2, "index": index.sha256(blocks)}
        manifest = Manifest.from_json(json.dumps(record), base, index.to_bytes(blocks))
    write_manifest(manifest, base)
    return replace(manifest, base=base)


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


def _labels(sample: dict[str, bytes], classes: int) -> LabelInfo:
    if classes:
        return LabelInfo("class", tuple(str(c) for c in range(classes)))
    try:
        width = len(json.loads(sample.get("json", b"{}"))["attributes"])
    except (ValueError, KeyError, TypeError):
        return LabelInfo()
    return LabelInfo("attributes", tuple(str(a) for a in range(width)))
