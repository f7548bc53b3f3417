"""Memory of batches that is used again: fresh memory is cleared by the system, page by page."""

from __future__ import annotations

import math
import weakref

import numpy as np


class Buffers:
    """Arrays whose memory comes back when the last of their users has let go of them.

    Users are the array itself, its views, and tensors over it. At most ``keep`` buffers that
    nobody uses are held, all of the size last asked for.
    """

    def __init__(self, keep: int) -> None:
        self.keep = keep
        self._free: list[bytearray] = []

    def empty(self, shape: tuple[int, ...], dtype: np.dtype | str) -> np.ndarray:
        """An array as ``np.empty`` gives it."""
        memory = self._taken(math.prod(shape) * np.dtype(dtype).itemsize)
        # not over an ndarray: views of the array would be views of that, and outlive the array
        array: np.ndarray = np.ndarray(shape, dtype, memory)
        weakref.finalize(array, self._give_back, memory).atexit = False
        return array

    def _taken(self, size: int) -> bytearray:
        while True:
            try:
                memory = self._free.pop()
            except IndexError:
                return bytearray(size)
            if len(memory) == size:
                return memory

    def _give_back(self, memory: bytearray) -> None:
        if len(self._free) < self.keep:
            self._free.append(memory)
