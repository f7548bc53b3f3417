"""Raw data set → WebDataset shards and a manifest: parallel, atomic, the same bytes every time."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

from vmcmc_dist.data import celeba_layout, faces, index, store
from vmcmc_dist.data.config import DataConfig, cache_dir
from vmcmc_dist.data.manifest import NAME, SCHEMA_VERSION, Manifest, open_manifest, write_manifest
from vmcmc_dist.data.shard_writer import ShardJob, Written, coding, write_shard
from vmcmc_dist.data.sources import OPENERS, Source
from vmcmc_dist.data.sources.celeba import CelebA
from vmcmc_dist.errors import ConfigError, DataError, ResourceError

Progress = Callable[[str, int, int], None]
SMALL = 3000  # below this many samples, starting processes costs more than it saves

_held: dict[str, Source] = {}


def prepare(cfg: DataConfig, progress: Progress | None = None) -> Manifest:
    """Write the shards of ``cfg`` and their manifest.json, or find them already written.

    The output is ``cfg.shards``, else a folder in the cache named by a key over the config and the
    raw files' names, sizes and times; the same key is never built twice. ``progress(stage, done,
    total)`` counts samples. Undecodable images are skipped and named in ``manifest.bad``.

    Raises DataError for raw data that is missing, empty or too bad, and for an output folder that
    holds something else; ResourceError if the disk is too small.
    """
    key = _key(cfg)
    out = cfg.shards or str(cache_dir() / "shards" / f"{cfg.source}-{cfg.split}-{key[:12]}")
    found = _found(out, key)
    if found is not None:
        return found
    source = open_source(cfg, progress)
    if len(source) == 0:
        raise DataError(f"{cfg.root}: no samples of split {cfg.split!r}")
    with _workplace(out) as folder:
        manifest = _write(cfg, source, key, folder, progress)
        if store.is_remote(out):
            for shard in manifest.shards:
                store.upload(folder / shard.name, store.join(out, shard.name))
            write_manifest(manifest, out)
        else:
            write_manifest(manifest, str(folder))
            _publish(folder, Path(out).expanduser())
    return open_manifest(out)


def open_source(cfg: DataConfig, progress: Progress | None = None) -> Source:
    """The raw data of ``cfg``; an s3:// root is first copied to the cache, faces are rendered."""
    if cfg.source == "faces":
        root = celeba_layout.builtin_faces(
            cfg.faces, cfg.image_size or CelebA.image_size, processes(cfg), progress
        )
        return OPENERS["faces"](cfg, root)
    if cfg.source not in OPENERS:
        raise ConfigError(f"data.source={cfg.source} has no raw data to prepare")
    given = _root(cfg)
    root = store.fetch(given, cache_dir() / "raw") if store.is_remote(given) else Path(given)
    return OPENERS[cfg.source](cfg, root.expanduser())


def processes(cfg: DataConfig) -> int:
    """Worker processes for preparation."""
    return cfg.prepare_workers or len(os.sched_getaffinity(0))


def _root(cfg: DataConfig) -> str:
    if not cfg.root:
        raise ConfigError(f"data.source={cfg.source} needs data.root: where its files are")
    return cfg.root


def _key(cfg: DataConfig) -> str:
    """What decides the shards' bytes: the config's part in it and the raw files."""
    if cfg.source == "faces":
        raw = f"{faces.NAME} version {faces.VERSION}, {cfg.faces} images"
    else:
        files = store.list_files(_root(cfg))
        if not files:
            raise DataError(f"{cfg.root}: the folder is empty; check data.root")
        raw = store.listing_fingerprint(files)
    parts: list[object] = [
        cfg.source,
        cfg.split,
        cfg.image_size,
        cfg.channels,
        cfg.limit,
        cfg.format,
    ]
    parts += [cfg.jpeg_quality, cfg.shard_samples, raw, SCHEMA_VERSION]
    if cfg.source == "pairs":
        parts += [cfg.input, cfg.target, cfg.input_channels, cfg.crops, cfg.crop_resize]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _found(out: str, key: str) -> Manifest | None:
    if store.exists(store.join(out, NAME)):
        manifest = open_manifest(out)
        if manifest.key == key:
            return manifest
        raise DataError(
            f"{out}: holds shards of other data or settings ({manifest.source}, split "
            f"{manifest.split}); give another data.shards, or delete it"
        )
    if not store.is_remote(out):
        folder = Path(out).expanduser()
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise DataError(f"{out}: exists and is not a prepared data set; give another folder")
    return None


@contextmanager
def _workplace(out: str) -> Iterator[Path]:
    """A folder beside the output (in the cache for s3://), removed in the end."""
    parent = cache_dir() if store.is_remote(out) else Path(out).expanduser().parent
    with store.store_errors(str(parent)):
        parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{Path(out).name}.", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _publish(folder: Path, out: Path) -> None:
    folder.chmod(0o755)
    try:
        folder.rename(out)
    except OSError:
        if not (out / NAME).exists():
            raise DataError(f"{out}: cannot be written; give another data.shards") from None


def _write(
    cfg: DataConfig, source: Source, key: str, folder: Path, progress: Progress | None
) -> Manifest:
    code = coding(cfg, source)
    _check_disk(folder, len(source) * code.estimated_bytes)
    starts = range(0, len(source), cfg.shard_samples)
    jobs = [
        ShardJob(
            folder / f"shard-{k:06d}.tar",
            range(start, min(start + cfg.shard_samples, len(source))),
            code,
        )
        for k, start in enumerate(starts)
    ]
    kept: list[Written] = []
    bad: list[str] = []
    done = 0
    for job, written in zip(jobs, _results(source, jobs, processes(cfg)), strict=True):
        done += len(job.samples)
        bad += written.bad
        _check_bad(cfg, source, bad)
        if written.info.count:
            kept.append(written)
        else:
            job.path.unlink()
        if progress is not None:
            progress("shards", done, len(source))
    if not kept:
        raise DataError(f"{cfg.root}: none of its {len(source)} images decodes; first: {bad[0]}")
    return Manifest(
        source=source.name,
        shape=code.shape,
        dtype="uint8" if len(code.shape) == 3 else "float32",
        shards=tuple(w.info for w in kept),
        labels=source.labels,
        licence=source.licence,
        split=cfg.split,
        key=key,
        bad=tuple(bad),
        source_shape=None if code.source is None else code.source.shape,
        blocks=index.joined([w.blocks for w in kept]),
    )


def _results(source: Source, jobs: list[ShardJob], workers: int) -> Iterator[Written]:
    """The jobs' results in order, from this process or from spawned ones."""
    workers = min(workers, len(jobs))
    if workers <= 1 or len(source) < SMALL:
        for job in jobs:
            yield write_shard(source, job)
        return
    context = get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=_hold, initargs=(source,))
    try:
        yield from pool.map(_write_held, jobs)
    except BrokenProcessPool:
        raise ResourceError(
            "a process that prepares shards died: out of memory, or started from a script without "
            "`if __name__ == '__main__':`; set data.prepare_workers=1"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _hold(source: Source) -> None:
    _held["source"] = source


def _write_held(job: ShardJob) -> Written:
    return write_shard(_held["source"], job)


def _check_bad(cfg: DataConfig, source: Source, bad: list[str]) -> None:
    if len(bad) > cfg.max_bad * len(source):
        raise DataError(
            f"{cfg.root}: {len(bad)} of {len(source)} images do not decode, more than data.max_bad="
            f"{cfg.max_bad:g} allows; first: {'; '.join(bad[:3])}. Get them again, or raise "
            "data.max_bad"
        )


def _check_disk(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ResourceError(
            f"{folder.parent}: shards need about {needed / 2**20:.0f} MiB, {free / 2**20:.0f} MiB "
            "are free; free some, or set data.shards or VMCMC_CACHE to another disk"
        )
