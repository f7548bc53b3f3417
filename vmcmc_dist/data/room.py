"""Memory that batches are decoded into, used again when nobody reads the batch any more."""

from __future__ import annotations

import math
import weakref
from collections import deque
from typing import Any

import numpy as np

LINE, BESIDE = 32, 16


class Room:
    """Gives arrays of one shape, and takes their memory back when they are gone.

        room = Room((64, 256, 256, 3), np.uint8)
        x = room.array()         # what it holds is anything

    A batch's memory from the C library comes, in a thread, from the kernel again and again, which
    clears every page of it: a tenth of the time that decoding into it takes.

    Each array begins ``BESIDE`` bytes past a multiple of ``LINE``. libjpeg-turbo writes rows that
    begin at such a multiple past the processor's caches (AVX2's streaming stores), which takes a
    sixth longer over images of 64x64; rows of any other place go through the caches.
    """

    def __init__(self, shape: tuple[int, ...], dtype: Any) -> None:
        self.shape, self.dtype = shape, np.dtype(dtype)
        self.bytes = math.prod(shape) * self.dtype.itemsize
        self._free: deque[tuple[np.ndarray, int]] = deque()

    def array(self) -> np.ndarray:
        """An array of that shape, its content what it may be."""
        try:
            memory, start = self._free.pop()
        except IndexError:
            memory = np.empty(self.bytes + LINE, dtype=np.uint8)
            start = (BESIDE - memory.ctypes.data) % LINE
        # a buffer of its own, which lives as long as any view or tensor of it
        lent = np.frombuffer(memory.data, self.dtype, self.bytes // self.dtype.itemsize, start)
        weakref.finalize(lent, self._free.append, (memory, start)).atexit = False
        return lent.reshape(self.shape)
