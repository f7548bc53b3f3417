"""Who may write into a run folder: the group of workers that was started last.

A lock holds on one machine. Workers that were cut off, or whose driver died, may live on a while
on another one, see the same folder, and know nothing of their successors. So each start of a group
leaves its name in the folder, and a worker looks before it writes: one that finds another name
there ends. (What such a worker wrote a moment before is no harm: a checkpoint is a function of the
images it counts, and the records of metrics past the checkpoint are dropped at every start.)
"""

from __future__ import annotations

import os
import uuid

from vmcmc_dist.engine.run_folder import RunFolder
from vmcmc_dist.engine.run_store import RunStore
from vmcmc_dist.errors import ResourceError

NAME = ".group"


class Fence:
    """The name of the group that may write into a run folder: beside its files, on a disk or on S3
    (a run on S3 has a local folder on each machine, which the others do not see).
    """

    def __init__(self, folder: RunFolder):
        self.folder, self.path = folder, folder.path / NAME
        self.store = None if folder.url is None else RunStore(folder.url)

    def pass_on(self) -> str:
        """A new name, the only one that may write from now on."""
        name = uuid.uuid4().hex
        if self.store is not None:
            self.store.write(NAME, name.encode())
            return name
        partial = self.path.with_name(f"{NAME}-{name}")
        partial.write_text(name)
        os.replace(partial, self.path)
        return name

    def check(self, name: str) -> None:
        """:class:`ResourceError` if ``name`` may not write any more ("" always may)."""
        if name and self._now() != name:
            raise ResourceError(
                f"other workers have gone on with {self.folder.place} since these were started; "
                "these end and write nothing more"
            )

    def _now(self) -> str:
        return (
            self.path.read_text() if self.store is None else (self.store.read(NAME) or b"").decode()
        )
