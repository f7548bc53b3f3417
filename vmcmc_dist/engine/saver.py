"""Checkpoints without standing still: copied in the step, written behind it.

saver = Saver(folder)
saver.settle()                                   # at most one is under way
keep = saver.keeper()
tensors = {"vae": {name: keep(t) for name, t in weights.items()}}
saver.start(Checkpoint(images, config, state, tensors))
...                                              # training goes on
for images in saver.finished(): ...              # whole on the disk, and on S3 if it is there
if saver.problem is not None: raise saver.problem
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vmcmc_dist.engine.checkpoint import Checkpoint, CheckpointFolder
from vmcmc_dist.errors import CheckpointError, DataError, UserError

Keep = Callable[[Tensor], Tensor]


@dataclass
class Copied:
    """The copies of one checkpoint: complete once the device has come to ``end``."""

    begin: Any = None
    end: Any = None

    def wait(self) -> float:
        """Until the copies are complete; seconds that the device spent on them."""
        if self.end is None:
            return 0.0
        self.end.synchronize()
        return self.begin.elapsed_time(self.end) / 1000


class Saver:
    """Writes checkpoints in a thread of its own, one at a time.

    A failure of the disk is a ``problem``, which ends the run. A failing copy to S3 is told
    (:meth:`news`) and the run goes on, until ``failures`` of them failed in a row: the checkpoint
    before is whole, and that of the next time may get through.

    Attributes:
        problem: what must end the run; set by the thread.
        waited: seconds that the steps waited so far; whoever makes a checkpoint adds to it.
        copying: seconds that a GPU spent on copies so far.
        failed: checkpoints so far that did not get to S3.
        took: seconds until the last one was whole (or had failed).
    """

    def __init__(self, folder: CheckpointFolder, device: torch.device, failures: int = 1):
        self.folder, self.device, self.failures = folder, device, failures
        self.problem: UserError | None = None
        self.waited, self.copying, self.failed, self.took = 0.0, 0.0, 0, 0.0
        self._in_a_row = 0
        self._copied = Copied()
        self._thread: threading.Thread | None = None
        self._finished: deque[int] = deque()
        self._news: deque[dict[str, Any]] = deque()

    def keeper(self) -> Keep:
        """A function that copies a tensor as it is now into memory of the CPU, in fp32 if it
        is of floating point; on a GPU without waiting for it.

        A GPU copies in the stream of the training: the next step changes the weights (and a
        forward pass the vectors of spectral norms), so it could not start before in any stream.
        """
        if self.device.type == "cpu":
            self._copied = Copied()
            return _clone
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        self._copied = Copied(begin, end)
        return _to_pinned

    def start(self, checkpoint: Checkpoint) -> None:
        """Write what the keeper copied; :meth:`settle` must have been called."""
        assert self._thread is None
        if self._copied.end is not None:
            self._copied.end.record()
        self._thread = threading.Thread(
            target=self._write, args=(checkpoint, self._copied), name="checkpoint", daemon=True
        )
        self._thread.start()

    def settle(self) -> None:
        """Wait for the one under way; a problem of it is in ``problem``, not raised."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def abandon(self) -> None:
        """Do not wait for it: it is not there until it is whole."""
        self._thread = None

    @property
    def writing(self) -> bool:
        """Whether one is under way."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def stalled(self) -> float:
        """Seconds that training stood still for checkpoints so far."""
        return self.waited + self.copying

    def finished(self) -> list[int]:
        """Images of the checkpoints completed since the last call."""
        return [self._finished.popleft() for _ in range(len(self._finished))]

    def news(self) -> list[dict[str, Any]]:
        """Lines for the metrics since the last call: copies that failed."""
        return [self._news.popleft() for _ in range(len(self._news))]

    def _write(self, checkpoint: Checkpoint, copied: Copied) -> None:
        began = time.monotonic()
        try:
            self.copying += copied.wait()
            self.folder.save(checkpoint)
            self._in_a_row = 0
            self._finished.append(checkpoint.images)
        except DataError as error:
            self._copy_failed(checkpoint.images, error, time.monotonic() - began)
        except UserError as error:
            self.problem = error
        except Exception as error:  # handed to the training thread, which raises it
            self.problem = CheckpointError(
                f"the checkpoint at {checkpoint.images:,} images could not be written "
                f"({type(error).__name__}: {error})"
            )
        self.took = time.monotonic() - began

    def _copy_failed(self, images: int, error: DataError, seconds: float) -> None:
        self.failed += 1
        self._in_a_row += 1
        print(f"the checkpoint at {images:,} images is not on S3: {error}", flush=True)
        self._news.append(
            {
                "kind": "upload",
                "images": images,
                "failed": str(error),
                "in_a_row": self._in_a_row,
                "seconds": seconds,
            }
        )
        if self._in_a_row >= self.failures:
            self.problem = CheckpointError(
                f"{self._in_a_row} checkpoints in a row could not be copied to S3, the last at "
                f"{images:,} images: {error}. The run is safe up to the checkpoint before them; "
                "mend that and run the same command again."
            )


def _clone(tensor: Tensor) -> Tensor:
    return tensor.detach().to(_dtype(tensor), copy=True)


def _to_pinned(tensor: Tensor) -> Tensor:
    """Pinned memory is taken again by the next checkpoint: torch keeps it."""
    kept = torch.empty(tensor.shape, dtype=_dtype(tensor), pin_memory=True)
    return kept.copy_(tensor.detach(), non_blocking=True)


def _dtype(tensor: Tensor) -> torch.dtype:
    return torch.float32 if tensor.is_floating_point() else tensor.dtype
