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
from pathlib import Path

from vmcmc_dist.errors import ResourceError


class Fence:
    """The name of the group that may write into the run folder ``path``."""

    def __init__(self, path: Path):
        self.folder, self.path = path, path / ".group"

    def pass_on(self) -> str:
        """A new name, the only one that may write from now on."""
        name = uuid.uuid4().hex
        partial = self.path.with_name(f".group-{name}")
        partial.write_text(name)
        os.replace(partial, self.path)
        return name

    def check(self, name: str) -> None:
        """:class:`ResourceError` if ``name`` may not write any more ("" always may)."""
        if name and self.path.read_text() != name:
            raise ResourceError(
                f"other workers have gone on with {self.folder} since these were started; these "
                "end and write nothing more"
            )
