"""A run on S3 and the local folder that it works in."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vmcmc_dist.config import Config
from vmcmc_dist.data.config import cache_dir
from vmcmc_dist.data.storage.paths import is_remote
from vmcmc_dist.engine.lease import Lease, acquire
from vmcmc_dist.engine.mirror import BROUGHT, OF_DRIVER, OF_WORKER, RunMirror, bring
from vmcmc_dist.engine.remote_checkpoints import FOLDER, RemoteCheckpoints
from vmcmc_dist.engine.run_folder import RunFolder
from vmcmc_dist.engine.run_store import RunStore
from vmcmc_dist.errors import CheckpointError, UserError


class RemoteRun:
    """A worker's view of its run on S3; only the first worker writes."""

    def __init__(self, config: Config, folder: RunFolder, store: RunStore, writes: bool):
        self.folder, self.store = folder, store
        lease = Lease(store, config.store.lease) if writes else None
        self.copies = RemoteCheckpoints(store, lease)
        self.mirror: RunMirror | None = None
        if lease is not None:
            self.mirror = RunMirror(
                folder.path, store, lease, OF_WORKER, config.store.sync_s, self.copies
            )
            self.copies.before_commit = self.mirror.sync

    @classmethod
    def of(cls, config: Config, folder: RunFolder, writes: bool) -> RemoteRun | None:
        """None for a run on a disk."""
        store = RunStore.of(config)
        return None if store is None else cls(config, folder, store, writes)

    @property
    def problem(self) -> UserError | None:
        """What must end the run, seen between checkpoints."""
        return None if self.mirror is None else self.mirror.problem

    def bring(self) -> None:
        """Make the local folder what S3 has (the first worker, at its start)."""
        bring(self.store, self.folder.path, BROUGHT)
        self.copies.match(self.folder.checkpoints)

    def fetch(self, images: int, parts: tuple[str, ...]) -> Path:
        """One checkpoint, complete on this node."""
        return self.copies.fetch(self.folder.checkpoints, images, parts)

    def close(self) -> None:
        """Put the rest; a failure of that is told, since the checkpoints are safe."""
        if self.mirror is None:
            return
        try:
            self.mirror.close()
        except UserError as error:
            print(f"the last files of the run are not on S3: {error}", flush=True)


@contextmanager
def held(config: Config, folder: RunFolder, say: Callable[[str], Any]) -> Iterator[Config]:
    """The run for this process alone, while it is open; on a disk there is nothing to do.

    On S3 it takes the lease, removes orphans, and fetches what the log and the list of
    checkpoints were; meanwhile the log and the config are put there. Yields the config with the
    number of the lease in it.

    Raises:
        ResourceError: another process trains the run.
        DataError: no such bucket, or no right to read or write it.
    """
    store = RunStore.of(config)
    if store is None:
        yield config
        return
    lease = acquire(store, config.store.lease_s, say)
    try:
        checkpoints = RemoteCheckpoints(store, lease)
        orphans = checkpoints.clean()
        if orphans:
            say(f"removed {orphans} files of a checkpoint that was never complete")
        bring(store, folder.path, ("log.txt",))
        checkpoints.match(folder.checkpoints)
        mirror = RunMirror(folder.path, store, lease, OF_DRIVER, config.store.sync_s)
        numbered = dataclasses.replace(config.store, lease=lease.number)
        try:
            yield dataclasses.replace(config, store=numbered)
        finally:
            try:
                mirror.close()
            except UserError as error:
                say(f"the log of the run is not on S3: {error}")
    finally:
        lease.release()


def local_copy(run: str | Path, *, everything: bool = False) -> Path:
    """A folder to read: the run folder itself, or a local copy of one on S3, made up to date.

    Checkpoints are listed; :func:`parts_of` fetches what is read of them.

    Args:
        everything: also grids and evaluations.

    Raises:
        CheckpointError: there is no run at that URL.
        DataError: no such bucket, or no right to read it.
    """
    if not is_remote(str(run)):
        return Path(run)
    store = RunStore(str(run))
    folder = _copy_of(store)
    names = [n for n in store.names() if not n.startswith((f"{FOLDER}/", ".", "tensorboard/"))]
    if not names:
        raise CheckpointError(
            f"{store.url} holds no run; give s3://bucket/prefix/NAME of a run that has started"
        )
    files = [n for n in names if everything or "/" not in n or n.startswith("evaluation/")]
    bring(store, folder, files)
    RemoteCheckpoints(store).match(folder / FOLDER)
    return folder


def parts_of(run: str | Path, path: Path, parts: tuple[str, ...]) -> None:
    """Make sure that these parts of the checkpoint ``path`` of :func:`local_copy` are here."""
    if is_remote(str(run)):
        RemoteCheckpoints(RunStore(str(run))).fetch(path.parent, int(path.name), parts)


def push(run: str | Path, folder: Path, below: str) -> None:
    """Put files of a :func:`local_copy` to the run on S3, unless they are there as they are."""
    if not is_remote(str(run)):
        return
    store = RunStore(str(run))
    there = store.names(below)
    for path in sorted((folder / below).rglob("*")):
        name = path.relative_to(folder).as_posix()
        inner = path.relative_to(folder / below).as_posix()
        if path.is_file() and not path.name.startswith("."):
            if there.get(inner) != path.stat().st_size or store.read(name) != path.read_bytes():
                store.write(name, path.read_bytes())


def _copy_of(store: RunStore) -> Path:
    digest = hashlib.sha256(store.url.encode()).hexdigest()[:16]
    return cache_dir() / "read" / digest / store.url.rsplit("/", 1)[-1]
