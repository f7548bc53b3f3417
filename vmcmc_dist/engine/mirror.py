"""The small files of a run, from its local folder to S3: metrics, grids, events, the log."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from vmcmc_dist.engine.lease import Lease
from vmcmc_dist.engine.remote_checkpoints import RemoteCheckpoints
from vmcmc_dist.engine.run_store import RunStore
from vmcmc_dist.errors import DataError, ResourceError, UserError

OF_DRIVER = ("config.yaml", "environment.json", "log.txt")
OF_WORKER = ("samples/*.png", "tensorboard/*", "evaluation/**/*", "metrics.jsonl")
BROUGHT = ("evaluation/records.jsonl", "metrics.jsonl")
"""What a run that goes on elsewhere needs of the earlier one, beside checkpoints and the log."""


class RunMirror:
    """Puts what has changed to S3, every ``every_s`` seconds and when it is asked to.

    Objects are written whole. A failure is told and made good the next time; a run that was
    taken over is a ``problem``, which must end it.
    """

    def __init__(
        self,
        folder: Path,
        store: RunStore,
        lease: Lease,
        patterns: Sequence[str],
        every_s: float,
        checkpoints: RemoteCheckpoints | None = None,
    ):
        self.folder, self.store, self.lease = folder, store, lease
        self.patterns, self.every_s, self.checkpoints = patterns, every_s, checkpoints
        self.problem: UserError | None = None
        self._put: dict[Path, tuple[int, int]] = {}
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="mirror", daemon=True)
        self._thread.start()

    def sync(self) -> None:
        """Put what has changed now.

        Raises:
            DataError: after the budget.
            ResourceError: the run was taken over.
        """
        with self._lock:
            changed = [(path, seen) for path, seen in self._files() if self._put.get(path) != seen]
            if changed:
                self.lease.check()
            for path, seen in changed:
                self.store.write(path.relative_to(self.folder).as_posix(), path.read_bytes())
                self._put[path] = seen
            if self.checkpoints is not None:
                self.checkpoints.flush()

    def close(self) -> None:
        """Stop, after a last sync; a failure of it is raised."""
        self._over.set()
        self._thread.join()
        if self.problem is None:
            self.sync()

    def abandon(self) -> None:
        """Stop without it."""
        self._over.set()

    def _files(self) -> list[tuple[Path, tuple[int, int]]]:
        found = []
        for pattern in self.patterns:
            for path in sorted(self.folder.glob(pattern)):
                if path.is_file() and not path.name.startswith("."):
                    about = path.stat()
                    found.append((path, (about.st_size, about.st_mtime_ns)))
        return found

    def _follow(self) -> None:
        while not self._over.wait(self.every_s):
            try:
                self.sync()
            except DataError as error:
                print(f"the run's files: {error}", flush=True)
            except ResourceError as error:
                self.problem = error
                return


def bring(store: RunStore, folder: Path, names: Sequence[str]) -> None:
    """Fetch files of the run that are there, where the local ones differ."""
    for name in names:
        content, path = store.read(name), folder / name
        if content is None:
            path.unlink(missing_ok=True)
        elif not path.exists() or path.read_bytes() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_name(f".{path.name}.partial")
            partial.write_bytes(content)
            partial.replace(path)
