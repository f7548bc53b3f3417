"""A process group that writes down every collective: what, how many bytes, and who stood still.

    watch = join_measured(store, rank, world_size)   # in place of init_process_group("gloo")
    watch.enter("energy")                            # what is going on, for the calls that follow
    ...
    calls = watch.take()

It is a backend of torch.distributed like any other, over gloo: whatever communicates, be it this
package, DeepSpeed or torch, goes through it. A collective that it does not know is an error of
torch's, so none passes unseen.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch.distributed as dist
from torch import Tensor

BACKEND = "measured"
COLLECTIVES = {
    "allreduce": "allreduce",
    "allreduce_coalesced": "allreduce_coalesced",
    "reduce": "reduce",
    "broadcast": "broadcast",
    "allgather": "allgather",
    "allgather_coalesced": "allgather_coalesced",
    "_allgather_base": "_allgather_base",
    "all_gather_single": "_allgather_base",
    "reduce_scatter": "reduce_scatter",
    "_reduce_scatter_base": "_reduce_scatter_base",
    "reduce_scatter_single": "_reduce_scatter_base",
    "alltoall": "alltoall",
    "alltoall_base": "alltoall_base",
    "gather": "gather",
    "scatter": "scatter",
    "send": "send",
    "recv": "recv",
    "barrier": "barrier",
}
"""A process group's method → gloo's."""


@dataclass
class Call:
    """One collective of one worker. Times are of the machine's monotonic clock, in seconds.

    Attributes:
        bytes: of the whole tensor that all workers hold, or hold a share of, before or after.
        issued: when the call that starts it came back.
        waited: when the worker began to wait for its end; ``ended``: when it had ended waiting.
    """

    name: str
    phase: str
    bytes: int
    start: float
    issued: float
    waited: float
    ended: float

    def blocked(self) -> float:
        """Seconds that the worker stood still for it."""
        return (self.issued - self.start) + (self.ended - self.waited)

    def waiting(self, last: float) -> float:
        """Of them, those before ``last``, when the last worker came to it."""
        spans = ((self.start, self.issued), (self.waited, self.ended))
        return sum(max(0.0, min(end, last) - start) for start, end in spans)


class Watch:
    """Seconds by phase, and the collectives of each."""

    def __init__(self) -> None:
        self.phase, self.since = "", time.monotonic()
        self.seconds: dict[str, float] = {}
        self.calls: list[Call] = []

    def enter(self, phase: str) -> None:
        """From now on it is ``phase`` that goes on."""
        now = time.monotonic()
        self.seconds[self.phase] = self.seconds.get(self.phase, 0.0) + now - self.since
        self.phase, self.since = phase, now

    def take(self) -> tuple[dict[str, float], list[Call]]:
        """What has been written down since the last time."""
        self.enter(self.phase)
        taken = self.seconds, self.calls
        self.seconds, self.calls = {}, []
        return taken


class MeasuredWork:
    """A collective under way; ``wait`` is timed."""

    def __init__(self, work: Any, call: Call):
        self.work, self.call = work, call

    def wait(self, *timeout: Any) -> bool:
        self.call.waited = time.monotonic()
        done = self.work.wait(*timeout)
        self.call.ended = time.monotonic()
        return done

    def __getattr__(self, name: str) -> Any:
        return getattr(self.work, name)


class MeasuredGroup(dist.ProcessGroup):
    """gloo, with every call in ``watch``."""

    watch: Watch

    def __init__(self, inner: dist.ProcessGroupGloo, rank: int, size: int):
        super().__init__(rank, size)  # type: ignore[call-arg]
        self.inner = inner

    def getBackendName(self) -> str:
        return BACKEND


def _method(name: str, inner_name: str) -> Callable[..., MeasuredWork]:
    def method(self: MeasuredGroup, *tensors: Any, **options: Any) -> MeasuredWork:
        size = max((_bytes(t) for t in (*tensors, *options.values())), default=0)
        start = time.monotonic()
        work = getattr(self.inner, inner_name)(*tensors, **options)
        now = time.monotonic()
        call = Call(name.strip("_"), self.watch.phase, size, start, now, now, now)
        if self.size() > 1:  # one worker alone talks to nobody
            self.watch.calls.append(call)
        return MeasuredWork(work, call)

    return method


for _name, _inner in COLLECTIVES.items():
    setattr(MeasuredGroup, _name, _method(_name, _inner))


def _bytes(tensors: Any) -> int:
    if isinstance(tensors, Tensor):
        return tensors.numel() * tensors.element_size()
    if isinstance(tensors, (list, tuple)):
        return sum(_bytes(t) for t in tensors)
    return 0


def join_measured(store: dist.Store, rank: int, world_size: int) -> Watch:
    """The default process group of this process becomes a measured one; once in a process."""
    watch = MeasuredGroup.watch = Watch()

    def create(store: Any, rank: int, size: int, timeout: Any) -> MeasuredGroup:
        return MeasuredGroup(dist.ProcessGroupGloo(store, rank, size, timeout), rank, size)

    dist.Backend.register_backend(BACKEND, create, devices=["cpu"])
    dist.init_process_group(BACKEND, store=store, rank=rank, world_size=world_size)
    return watch
