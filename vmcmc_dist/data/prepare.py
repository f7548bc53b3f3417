"""Raw data set → WebDataset shards and a manifest: parallel, resumable, the same every time."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from vmcmc_dist.data import faces, index, mapping, shard_plan, store
from vmcmc_dist.data.config import DataConfig, cache_dir
from vmcmc_dist.data.file_lock import locked
from vmcmc_dist.data.manifest import NAME, SCHEMA_VERSION, Manifest, open_manifest, write_manifest
from vmcmc_dist.data.raw import RawData, open_source, processes, root_of
from vmcmc_dist.data.shard_writer import (
    Coding,
    Part,
    ShardSet,
    coding,
    temporary_folder,
    write_parts,
)
from vmcmc_dist.data.sources import BY_NAME, Source
from vmcmc_dist.data.unfinished import LOCK, Unfinished, Written, errors_of_writing
from vmcmc_dist.errors import ConfigError, DataError, ResourceError

Progress = Callable[[str, int, int], None]

QUICK_SECONDS = 6.0  # less work than this is not worth starting processes for
ONE_SIZE = ("faces", "pairs")  # drawn or cropped for their size: each size is read by itself


def prepare(
    cfg: DataConfig,
    progress: Progress | None = None,
    *,
    mapper: mapping.Mapper | None = None,
    restart: bool = False,
    allow_upscaling: bool = True,
) -> Manifest:
    """Write the shards of ``cfg`` and their manifest.json, or find them already written.

    The output is ``cfg.shards`` (a folder or s3:// prefix), else a folder in the cache named by a
    key over the config and the raw files' names, sizes and times; the same key is never built
    twice. A preparation that was interrupted, in whatever way, goes on where it was: finished
    shards are kept in the output, which is complete when manifest.json is there. ``restart``
    deletes what an interrupted one of other data or settings left there. The bytes depend on
    neither the number of processes nor on interruptions.

    ``progress(stage, done, total)`` counts samples. ``mapper`` runs the jobs, by default over
    ``cfg.prepare_workers`` processes of this machine. Undecodable images are skipped and named in
    ``manifest.bad``; ``manifest.small`` counts images that were enlarged.

    Raises DataError for raw data that is missing, empty or too bad, for an output folder that
    holds something else, and, without ``allow_upscaling``, for images that are mostly smaller
    than ``cfg.image_size``; ResourceError if the disk is too small or full, or if another process
    is preparing the same output.
    """
    return _prepare([cfg], progress, mapper, restart, allow_upscaling)[0]


def prepare_sizes(
    cfg: DataConfig,
    sizes: Sequence[int],
    progress: Progress | None = None,
    *,
    mapper: mapping.Mapper | None = None,
    restart: bool = False,
    allow_upscaling: bool = True,
) -> list[Manifest]:
    """As :func:`prepare`, for several sizes of images: ``cfg.shards``/64, ``cfg.shards``/128, …

    Each raw image is read and decoded once for all of them (not so for faces and pairs, which are
    drawn or cropped for their size), as the largest needs it.
    """
    if not sizes or len(set(sizes)) != len(sizes) or min(sizes) < 4:
        raise ConfigError(f"sizes {','.join(map(str, sizes))}: give each once, 4 or more pixels")
    if cfg.image_size is not None and cfg.image_size not in sizes:
        raise ConfigError(f"data.image_size={cfg.image_size} is not among the sizes; leave it out")
    each = [
        replace(
            cfg, image_size=size, shards=store.join(cfg.shards, str(size)) if cfg.shards else None
        )
        for size in sizes
    ]
    groups = [[one] for one in each] if cfg.source in ONE_SIZE else [each]
    return [
        manifest
        for group in groups
        for manifest in _prepare(group, progress, mapper, restart, allow_upscaling)
    ]


@dataclass
class _Set:
    """One of the sets that are prepared together."""

    cfg: DataConfig
    out: str
    key: str
    manifest: Manifest | None = None
    written: dict[str, Written] = field(default_factory=dict)

    @property
    def unfinished(self) -> Unfinished:
        return Unfinished(self.out, self.key)

    def find(self) -> None:
        self.manifest = _found(self.out, self.key)


def _prepare(
    cfgs: list[DataConfig],
    progress: Progress | None,
    mapper: mapping.Mapper | None,
    restart: bool,
    allow_upscaling: bool,
) -> list[Manifest]:
    raw = _fingerprint(cfgs[0])
    largest = max(cfgs, key=lambda cfg: cfg.image_size or 0)
    sets = [
        _Set(cfg, _out(cfg, key), key)
        for cfg in cfgs
        for key in [_key(cfg, largest.image_size, raw)]
    ]
    for each in sets:
        each.find()
    with ExitStack() as stack:
        todo = [each for each in sets if each.manifest is None]
        for each in todo:
            stack.enter_context(_claimed(each, restart))
        todo = [each for each in todo if each.manifest is None]  # not made by another meanwhile
        if todo:
            source = open_source(largest, progress)
            if len(source) == 0:
                raise DataError(f"{largest.root}: no samples of split {largest.split!r}")
            _write(todo, RawData(largest, source), progress, mapper, allow_upscaling)
    return [each.manifest or open_manifest(each.out) for each in sets]


def _out(cfg: DataConfig, key: str) -> str:
    return cfg.shards or str(cache_dir() / "shards" / f"{cfg.source}-{cfg.split}-{key[:12]}")


def _fingerprint(cfg: DataConfig) -> str:
    """What stands for the raw files in a key."""
    if cfg.source == "faces":
        return f"{faces.NAME} version {faces.VERSION}, {cfg.faces} images"
    root = root_of(cfg)
    if cfg.source in BY_NAME and not Path(root).expanduser().exists():
        return root
    files = store.list_files(root)
    if not files:
        raise DataError(f"{cfg.root}: the folder is empty; check data.root")
    return store.listing_fingerprint(files)


def _key(cfg: DataConfig, decoded_for: int | None, raw: str) -> str:
    """What decides the shards' bytes: the config's part in it, the size that images are decoded
    for, and the raw files.
    """
    parts: list[object] = [cfg.source, cfg.split, cfg.image_size, cfg.channels, cfg.limit]
    parts += [cfg.format, cfg.jpeg_quality, cfg.shard_samples, raw, SCHEMA_VERSION]
    if cfg.source == "pairs":
        parts += [cfg.input, cfg.target, cfg.input_channels, cfg.crops, cfg.crop_resize]
    if decoded_for != cfg.image_size:
        parts += [decoded_for]
    if cfg.image_column or cfg.label_column:
        parts += [cfg.image_column, cfg.label_column]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _found(out: str, key: str) -> Manifest | None:
    """The set at ``out`` if it is complete; DataError for one of other data or settings."""
    if not store.exists(store.join(out, NAME)):
        return None
    manifest = open_manifest(out)
    if manifest.key == key:
        return manifest
    raise DataError(
        f"{out}: holds shards of other data or settings ({manifest.source}, split "
        f"{manifest.split}); give another data.shards, or delete it"
    )


@contextmanager
def _claimed(each: _Set, restart: bool) -> Iterator[None]:
    """The output as ours: locked (a local one), free of what is not ours, ready for records."""
    unfinished = each.unfinished
    with ExitStack() as stack:
        if not store.is_remote(each.out):
            folder = Path(each.out).expanduser()
            _check_free(each.out, folder)
            with errors_of_writing(each.out):
                folder.mkdir(parents=True, exist_ok=True)
            says = (
                f"{each.out}: another process is preparing it; wait for it, or give another "
                "data.shards"
            )
            stack.enter_context(locked(folder / LOCK, wait=not each.cfg.shards, what=says))
            each.find()
        else:
            _check_bucket(each.out)
        if each.manifest is None:
            if restart:
                unfinished.sweep()
            elif others := unfinished.others():
                raise DataError(
                    f"{each.out}: holds an unfinished preparation of other data or settings "
                    f"({', '.join(others)}); --restart deletes it, or give another data.shards"
                )
            unfinished.begin()
            stack.push(lambda kind, *_: unfinished.end_if_empty() if kind else None)
        yield


def _check_free(out: str, folder: Path) -> None:
    """Refuse a folder with anything but a set of ours, finished or not."""
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{out}: a file is in the way; give another data.shards")
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    if names and not any(name.startswith(".preparing") for name in names) and NAME not in names:
        raise DataError(f"{out}: exists and is not a prepared data set; give another folder")


def _check_bucket(out: str) -> None:
    names = list(store.list_files(out, missing_ok=True))
    if names and not any(name.startswith(".preparing") for name in names):
        raise DataError(f"{out}: holds {names[0]} and no prepared data set; give another prefix")


def _write(
    sets: list[_Set],
    raw: RawData,
    progress: Progress | None,
    mapper: mapping.Mapper | None,
    allow_upscaling: bool,
) -> None:
    source = raw.source
    total = len(source)
    codings = [coding(each.cfg, source) for each in sets]
    look = shard_plan.look(source, codings)
    if not allow_upscaling:
        _check_sizes(sets, codings, look)
    samples = [
        each.cfg.shard_samples or shard_plan.shard_samples(total, size)
        for each, size in zip(sets, look.bytes, strict=True)
    ]
    workers = _workers(sets[0].cfg, look.seconds * total)
    jobs = _left(sets, shard_plan.jobs(total, samples))
    for each, size, number in zip(sets, look.bytes, samples, strict=True):
        _check_disk(each, size, total, number * workers)
    targets = [ShardSet(each.out, each.key, code) for each, code in zip(sets, codings, strict=True)]
    run = mapper or (mapping.in_processes(workers) if workers > 1 else mapping.here)
    done = _count(sets)
    if progress is not None and done:
        progress("shards", done // len(sets), total)
    _check_bad(sets, source)
    for results in run(partial(_write_job, raw, targets), jobs) if jobs else ():
        for k, written in results:
            sets[k].written[written.name] = written
        _check_bad(sets, source)
        if progress is not None:
            progress("shards", _count(sets) // len(sets), total)
    for each, code in zip(sets, codings, strict=True):
        each.manifest = _manifest(each, source, code)
        write_manifest(each.manifest, each.out)
        each.manifest = open_manifest(each.out)
        each.unfinished.end()


def _write_job(
    raw: RawData, targets: list[ShardSet], parts: list[Part]
) -> list[tuple[int, Written]]:
    return write_parts(raw.source, targets, parts)


def _left(sets: list[_Set], jobs: list[list[Part]]) -> list[list[Part]]:
    """The jobs without the shards that are there already, which are taken into the sets."""
    found = [each.unfinished.finished() for each in sets]
    left = []
    for job in jobs:
        parts = []
        for part in job:
            written = found[part.set].get(part.name)
            if written and (written.first, written.stop) == (part.samples.start, part.samples.stop):
                sets[part.set].written[part.name] = written
            else:
                parts.append(part)
        if parts:
            left.append(parts)
    return left


def _count(sets: list[_Set]) -> int:
    return sum(w.stop - w.first for each in sets for w in each.written.values())


def _manifest(each: _Set, source: Source, code: Coding) -> Manifest:
    written = sorted(each.written.values(), key=lambda w: w.first)
    bad = tuple(name for w in written for name in w.bad)
    kept = [w for w in written if w.info.count]
    if not kept:
        raise DataError(
            f"{each.cfg.root}: none of its {len(source)} images decodes; first: {bad[0]}"
        )
    return Manifest(
        source=source.name,
        shape=code.shape,
        dtype="uint8" if len(code.shape) == 3 else "float32",
        shards=tuple(w.info for w in kept),
        labels=source.labels,
        licence=source.licence,
        split=each.cfg.split,
        key=each.key,
        bad=bad,
        small=sum(w.small for w in written),
        source_shape=None if code.source is None else code.source.shape,
        blocks=index.joined([w.blocks.copy() for w in kept]),
    )


def _workers(cfg: DataConfig, seconds: float) -> int:
    """As many as were asked for; else one per CPU, if the work takes longer than their start."""
    return 1 if not cfg.prepare_workers and seconds < QUICK_SECONDS else processes(cfg)


def _check_bad(sets: list[_Set], source: Source) -> None:
    for each in sets:
        bad = [name for w in each.written.values() for name in w.bad]
        if len(bad) > each.cfg.max_bad * len(source):
            raise DataError(
                f"{each.cfg.root}: {len(bad)} of {len(source)} images do not decode, more than "
                f"data.max_bad={each.cfg.max_bad:g} allows; first: {'; '.join(bad[:3])}. Get them "
                "again, or raise data.max_bad; finished shards are kept"
            )


def _check_sizes(sets: list[_Set], codings: list[Coding], look: shard_plan.Look) -> None:
    for each, code, small in zip(sets, codings, look.small, strict=True):
        if small > 0.5:
            raise DataError(
                f"{each.cfg.root}: {small:.0%} of the images looked at are smaller than "
                f"{code.shape[2]}x{code.shape[1]} pixels and would be enlarged; give a smaller "
                "data.image_size, or --allow-upscaling"
            )


def _check_disk(each: _Set, size: int, total: int, at_a_time: int) -> None:
    remote = store.is_remote(each.out)
    folder = temporary_folder(each.out, each.unfinished)
    left = total - sum(w.stop - w.first for w in each.written.values())
    needed = size * (min(left, at_a_time) if remote else left) * 11 // 10
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ResourceError(
            f"{folder.parent}: shards need about {needed / 2**20:.0f} MiB, {free / 2**20:.0f} MiB "
            "are free; free some, or set data.shards or VMCMC_CACHE to another disk"
        )
