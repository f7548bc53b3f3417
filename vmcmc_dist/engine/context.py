"""What a worker is told as it starts: who it is, and what came before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass
class WorkerContext:
    """Who this worker is, and what its surroundings tell it. Nothing of Ray in it.

    Attributes:
        group: name of the group of workers it was started in (see :class:`Fence`); "" if no
            other group can be about.
        notice: whether this worker must soon go (its machine is taken away, or there is room for
            more workers): all save, and leave to be started again.
        beat: called at every sign of life, by the thread that trains.
    """

    rank: int
    world_size: int
    device: torch.device
    group: str = ""
    notice: Callable[[], bool] = lambda: False
    beat: Callable[[], None] = lambda: None


@dataclass
class Restart:
    """How a run goes on after a guard stopped it: other noise, lower learning rates."""

    rollbacks: int = 0
    lr_scale: float = 1.0
