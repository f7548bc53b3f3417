"""Checkpoints on S3: complete or invisible.

    checkpoints/000012800/000003/energy.safetensors …   parts, below the number of the lease
    checkpoints/000012800/state.json                    last: its bytes and sha256 of each part

A checkpoint without state.json does not exist; what lies there is an orphan, removed when the
next process takes the run, or with its place. state.json goes first when one is removed. Parts of
different processes have different names, so that a late write of a process that has lost the run
changes nothing that is read.
"""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vmcmc_dist.data.file_lock import locked
from vmcmc_dist.engine.checkpoint import remove_folder
from vmcmc_dist.engine.lease import Lease
from vmcmc_dist.engine.run_store import RunStore
from vmcmc_dist.errors import CheckpointError, DataError

FOLDER = "checkpoints"


class RemoteCheckpoints:
    """The :class:`~vmcmc_dist.engine.checkpoint.Copies` of a run's checkpoints on S3.

    Without a lease it only reads.
    """

    def __init__(self, store: RunStore, lease: Lease | None = None):
        self.store, self.lease = store, lease
        self.before_commit: Callable[[], None] = lambda: None
        """Puts the metrics that belong to the checkpoint."""
        self._committed: set[str] = set()
        self._changed: dict[str, Path] = {}
        self._lock = threading.Lock()

    # -- what a CheckpointFolder tells -----------------------------------------------------------

    def commit(self, path: Path) -> None:
        """Upload a whole local checkpoint: its parts, then its state.json.

        Raises:
            DataError: after the budget; it is not there then.
            ResourceError: the run was taken over.
        """
        assert self.lease is not None
        if path.name not in self._committed:
            self.lease.check()
            for entry in self._entries(path).values():
                self.store.upload(path / Path(entry["file"]).name, self._place(path, entry))
            self.before_commit()
            self._write_state(path)
            self._committed.add(path.name)
        self.flush()

    def put_state(self, path: Path) -> None:
        """Its state.json has changed; written by :meth:`flush`, which may wait for the store."""
        with self._lock:
            self._changed[path.name] = path

    def flush(self) -> None:
        """Write the state.json that changed since."""
        with self._lock:
            changed, self._changed = self._changed, {}
        for name, path in changed.items():
            if name in self._committed and path.is_dir():
                self._write_state(path)

    def remove(self, images: int) -> None:
        """Remove a checkpoint, or what there is of it; state.json first."""
        assert self.lease is not None
        self.lease.check()
        name = f"{images:09d}"
        self._committed.discard(name)
        self.store.delete(f"{FOLDER}/{name}/state.json")
        for left in self.store.names(f"{FOLDER}/{name}"):
            self.store.delete(f"{FOLDER}/{name}/{left}")

    def _write_state(self, path: Path) -> None:
        assert self.lease is not None
        state = json.loads((path / "state.json").read_text())
        for entry in state["files"].values():
            entry["file"] = self._place(path, entry).removeprefix(f"{FOLDER}/{path.name}/")
        self.lease.check()
        content = json.dumps(state, indent=1, allow_nan=False).encode()
        self.store.write(f"{FOLDER}/{path.name}/state.json", content)

    def _place(self, path: Path, entry: dict[str, Any]) -> str:
        """Below this lease's number, or where an earlier one has put it."""
        assert self.lease is not None
        name = entry["file"]
        return f"{FOLDER}/{path.name}/{name if '/' in name else f'{self.lease.number:06d}/{name}'}"

    @staticmethod
    def _entries(path: Path) -> dict[str, dict[str, Any]]:
        return json.loads((path / "state.json").read_text())["files"]

    # -- what readers and a start ask for ---------------------------------------------------------

    def states(self) -> dict[str, dict[str, Any]]:
        """state.json of each complete checkpoint by its name, oldest first."""
        found = {}
        for name in self.store.names(FOLDER):
            folder, _, file = name.partition("/")
            if file == "state.json" and folder.isdigit():
                content = self.store.read(f"{FOLDER}/{name}")
                if content is not None:
                    found[folder] = json.loads(content)
        return dict(sorted(found.items(), key=lambda item: int(item[0])))

    def match(self, folder: Path) -> None:
        """Make the local folder list the checkpoints that S3 has, and no other; parts are
        fetched when they are needed (:meth:`fetch`).
        """
        folder.mkdir(parents=True, exist_ok=True)
        states = self.states()
        with locked(folder / ".fetching", wait=True, what=""):
            for path in folder.iterdir():
                if path.name.isdigit() and path.name not in states:
                    remove_folder(path)
            for name, state in states.items():
                _put_state(folder / name, state)
        self._committed = set(states)

    def fetch(self, folder: Path, images: int, parts: tuple[str, ...]) -> Path:
        """The parts of one checkpoint, each whole and checked, once per node; returns its path.

        Raises:
            CheckpointError: it is not on S3, or damaged there.
        """
        name = f"{images:09d}"
        content = self.store.read(f"{FOLDER}/{name}/state.json")
        if content is None:
            raise CheckpointError(f"{self.store.url} has no checkpoint at {images:,} images")
        state = json.loads(content)
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / ".fetching", wait=True, what=""):
            path = _put_state(folder / name, state)
            mine = self._entries(path)
            for part in parts:
                theirs, file = state["files"][part], path / mine[part]["file"]
                if not file.exists():
                    try:
                        self.store.fetch(
                            f"{FOLDER}/{name}/{theirs['file']}", file, theirs["sha256"]
                        )
                    except DataError as error:
                        raise CheckpointError(
                            f"the checkpoint at {images:,} images could not be read: {error}"
                        ) from None
        return path

    def clean(self) -> int:
        """Remove orphans of processes that are gone; returns how many objects and uploads."""
        assert self.lease is not None
        self.lease.check()
        states = self.states()
        orphans = []
        for name in self.store.names(FOLDER):
            folder, _, file = name.partition("/")
            listed = {e["file"] for e in states.get(folder, {}).get("files", {}).values()}
            if folder not in states or (file != "state.json" and file not in listed):
                orphans.append(name)
        for name in orphans:
            self.store.delete(f"{FOLDER}/{name}")
        return len(orphans) + self.store.abort_uploads()


def _put_state(path: Path, state: dict[str, Any]) -> Path:
    """A checkpoint's state.json, with its parts if they are the same ones."""
    local = path / "state.json"
    if path.is_dir():
        try:
            mine = json.loads(local.read_text())["files"]
        except (OSError, ValueError, KeyError):
            mine = None
        if mine is not None and _sums(mine) == _sums(state["files"]):
            return path
        shutil.rmtree(path)
    partial = path.with_name(f".partial-{path.name}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    (partial / "state.json").write_text(json.dumps(state, indent=1, allow_nan=False))
    partial.rename(path)
    return path


def _sums(files: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {part: entry["sha256"] for part, entry in files.items()}
