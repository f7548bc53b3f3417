"""The user's terminal, kept apart from what libraries have to say."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import TracebackType

from rich.console import Console


class Terminal:
    """While open, file descriptors 1 and 2 lead into the log; ``console`` leads to the user.

    Redirected at the descriptors, so that output of C++ code, of threads and of child processes
    goes to the log as well.
    """

    def __init__(self, log: Path):
        self.log = log
        self.console = Console()

    def __enter__(self) -> Terminal:
        sys.stdout.flush()
        sys.stderr.flush()
        self._kept = (os.dup(1), os.dup(2))
        self._user = os.fdopen(os.dup(1), "w", buffering=1)
        self.console = Console(file=self._user)
        descriptor = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        os.close(descriptor)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        for kept, descriptor in zip(self._kept, (1, 2), strict=True):
            os.dup2(kept, descriptor)
            os.close(kept)
        self._user.close()
        self.console = Console()
