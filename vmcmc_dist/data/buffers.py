"""Memory that batches are decoded into, used again when nobody reads the batch any more."""

from __future__ import annotations

import math
import weakref
from collections import deque
from typing import Any

import numpy as np

ALIGNMENT, OFFSET = 32, 16


class BufferPool:
    """Arrays of one shape, C-contiguous, whose memory is used again once they are gone.

        pool = BufferPool((64, 256, 256, 3), np.uint8)
        x = pool.array()         # what it holds is anything

    An array is gone when no view and no tensor of it is left. The pool holds as much memory as was
    ever in use at once; a batch's memory from the C library would, in a thread, be taken from the
    kernel for each, which clears every page of it. Safe to use from several threads.

    Each array begins ``offset`` bytes past a multiple of ``ALIGNMENT``. libjpeg-turbo writes rows
    that begin at such a multiple past the processor's caches (AVX2's streaming stores), which takes
    longer over small images (``vmcmc data bench decode`` says how much).
    """

    def __init__(self, shape: tuple[int, ...], dtype: Any, offset: int = OFFSET) -> None:
        self.shape, self.dtype, self.offset = shape, np.dtype(dtype), offset
        self.bytes = math.prod(shape) * self.dtype.itemsize
        self._free: deque[tuple[np.ndarray, int]] = deque()

    def array(self) -> np.ndarray:
        """An array of that shape, its content what it may be."""
        try:
            memory, start = self._free.pop()
        except IndexError:
            memory = np.empty(self.bytes + ALIGNMENT, dtype=np.uint8)
            start = (self.offset - memory.ctypes.data) % ALIGNMENT
        # a buffer of its own, which lives as long as any view or tensor of it
        lent = np.frombuffer(memory.data, self.dtype, self.bytes // self.dtype.itemsize, start)
        weakref.finalize(lent, self._free.append, (memory, start)).atexit = False
        return lent.reshape(self.shape)
