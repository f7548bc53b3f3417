"""Checkpoints: one folder holds everything that changes, or is not there at all.

    checkpoints/000012800/
        energy.safetensors  energy_ema.safetensors  energy_adam.safetensors
        vae.safetensors     vae_ema.safetensors     vae_adam.safetensors
        state.json          images, config, meters, guard, score; size and sha256 of each file

Tensors are full and fp32, whatever the ZeRO stage and the number of workers, so a checkpoint
loads at any other. Nothing is pickled. Random states need no place: every draw is a function of
(seed, rank, images). (The dynamic loss scale of fp16 starts anew.)

A checkpoint is written under a temporary name, flushed to the disk, and renamed: a kill at any
moment leaves the earlier ones whole. Of a run on S3 the folder is a local copy, kept equal to
the store by :mod:`vmcmc_dist.engine.remote_checkpoints`.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from vmcmc_dist.errors import CheckpointError

FORMAT = 1
PARTS = ("energy", "energy_ema", "energy_adam", "vae", "vae_ema", "vae_adam")


@dataclass
class Checkpoint:
    """What a run is at a number of images.

    Attributes:
        tensors: for each of :data:`PARTS`, tensors by name.
        state: JSON-able rest: iteration, seconds, meter, guard, salt, lr_scale, samples' score.
        config: the run's config as nested dictionaries.
    """

    images: int
    config: dict[str, Any]
    state: dict[str, Any]
    tensors: dict[str, dict[str, Tensor]] = field(default_factory=dict)


class Copies(Protocol):
    """Where the checkpoints of a folder are kept a second time."""

    def commit(self, path: Path) -> None: ...
    def put_state(self, path: Path) -> None: ...
    def remove(self, images: int) -> None: ...


class CheckpointFolder:
    """The checkpoints of one run: save, find, load, prune. One thread may save meanwhile.

    Args:
        copies: gets every checkpoint that is saved, changed or removed here.
    """

    def __init__(self, path: Path, keep: int = 2, copies: Copies | None = None):
        self.path, self.keep, self.copies = Path(path), keep, copies
        self._held: int | None = None
        self._lock = threading.RLock()  # of what is listed: one thread saves, another reads

    def hold(self, images: int) -> bool:
        """Keep this checkpoint until :meth:`let_go`, for someone reads it; False if it is gone."""
        with self._lock:
            there = (self.path / f"{images:09d}").is_dir()
            self._held = images if there else None
            return there

    def let_go(self) -> None:
        self._held = None

    def all(self) -> list[Path]:
        """Complete checkpoints, oldest first."""
        if not self.path.is_dir():
            return []
        names = (p for p in self.path.iterdir() if p.name.isdigit() and p.is_dir())
        return sorted(names, key=lambda p: int(p.name))

    def latest(self) -> Path | None:
        found = self.all()
        return found[-1] if found else None

    def best(self) -> Path | None:
        """The checkpoint with the least score; ``None`` if none has a score."""
        scored = [(s, p) for p in self.all() if (s := _state(p).get("score")) is not None]
        return min(scored)[1] if scored else None

    def set_score(self, images: int, score: float) -> None:
        """Give a checkpoint its score later on; nothing if it is gone."""
        with self._lock:
            path = self.path / f"{images:09d}" / "state.json"
            if not path.exists():
                return
            content = json.loads(path.read_text())
            content["state"]["score"] = score
            partial = path.with_suffix(".partial")
            partial.write_text(json.dumps(content, indent=1, allow_nan=False))
            _flush(partial)
            partial.replace(path)
        if self.copies:
            self.copies.put_state(path.parent)

    def good(self) -> Path | None:
        """The latest checkpoint written while the guard saw nothing wrong."""
        return next((p for p in reversed(self.all()) if _state(p).get("good")), None)

    def drop_after_last_good(self) -> int:
        """Remove checkpoints behind the last good one; returns its images, or 0."""
        good = self.good()
        self._remove([p for p in self.all() if good is None or int(p.name) > int(good.name)])
        return int(good.name) if good else 0

    def save(self, checkpoint: Checkpoint) -> Path:
        """Write, flush, rename, copy, prune.

        Raises:
            CheckpointError: no room on the disk, or the folder cannot be written. Earlier
                checkpoints stay, and the torn one is removed.
            DataError: it could not be copied; it is whole here, and nothing was pruned.
        """
        final = self.path / f"{checkpoint.images:09d}"
        if not final.exists():
            self._write(checkpoint, final)
        if self.copies:
            self.copies.commit(final)
        self.prune()
        return final

    def _write(self, checkpoint: Checkpoint, final: Path) -> None:
        partial = self.path / f".partial-{checkpoint.images:09d}"
        size = sum(t.nbytes for part in checkpoint.tensors.values() for t in part.values())
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            for stale in self.path.glob(".partial-*"):
                shutil.rmtree(stale)
            free = shutil.disk_usage(self.path).free
            if free < 1.05 * size:
                raise OSError(errno.ENOSPC, f"{size / 1e6:.0f} MB needed, {free / 1e6:.0f} MB free")
            partial.mkdir()
            for part, tensors in checkpoint.tensors.items():
                whole = {n: t.detach().cpu().contiguous() for n, t in tensors.items()}
                save_file(whole, partial / f"{part}.safetensors")
            state = {
                "format": FORMAT,
                "images": checkpoint.images,
                "config": checkpoint.config,
                "state": checkpoint.state,
                "files": {part: describe_file(partial, part) for part in checkpoint.tensors},
            }
            (partial / "state.json").write_text(json.dumps(state, indent=1, allow_nan=False))
            for file in partial.iterdir():
                _flush(file)
            _flush(partial)
            with self._lock:
                partial.rename(final)
            _flush(self.path)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(partial, ignore_errors=True)
            raise CheckpointError(
                f"the checkpoint at {checkpoint.images:,} images could not be written to "
                f"{self.path}: {error}. Earlier checkpoints are whole; make room (about "
                f"{size * (self.keep + 2) / 1e6:.0f} MB) and run the same command again."
            ) from None

    def prune(self) -> None:
        """Keep the last ``keep``, the best, the last good one, and the one that is held."""
        with self._lock:
            found = self.all()
            kept = {*found[-self.keep :], self.best(), self.good()}
            gone = [p for p in found if p not in kept and int(p.name) != self._held]
        self._remove(gone)

    def _remove(self, paths: list[Path]) -> None:
        """The copy first, so that no copy is without its original after a failure in between."""
        for path in paths:
            if self.copies:
                self.copies.remove(int(path.name))
            with self._lock:
                remove_folder(path)


def describe_file(folder: Path, part: str) -> dict[str, Any]:
    """Of one part of a checkpoint: file (below its folder), bytes, sha256."""
    name = f"{part}.safetensors"
    with (folder / name).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"file": name, "bytes": (folder / name).stat().st_size, "sha256": digest}


def load_checkpoint(path: Path, parts: tuple[str, ...] = PARTS) -> Checkpoint:
    """Read a checkpoint folder, or only some of its parts.

    Raises:
        CheckpointError: missing or damaged files, or another format.
    """
    try:
        saved = json.loads((path / "state.json").read_text())
        if saved["format"] != FORMAT:
            raise CheckpointError(
                f"{path} has checkpoint format {saved['format']}, this version reads {FORMAT}"
            )
        files = saved.get("files", {})  # earlier versions did not list them
        names = {p: files.get(p, {}).get("file", f"{p}.safetensors") for p in parts}
        tensors = {part: load_file(path / name) for part, name in names.items()}
        return Checkpoint(saved["images"], saved["config"], saved["state"], tensors)
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"the checkpoint {path} is damaged ({error}). Delete that folder; the run then goes "
            "on from the one before."
        ) from None


def _state(path: Path) -> dict[str, Any]:
    try:
        return json.loads((path / "state.json").read_text())["state"]
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"the checkpoint {path} is damaged ({error}). Delete it.") from None


def remove_folder(path: Path) -> None:
    """Rename first: a kill in between leaves no half checkpoint under a checkpoint's name."""
    gone = path.with_name(f".partial-{path.name}")
    path.rename(gone)
    shutil.rmtree(gone)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
