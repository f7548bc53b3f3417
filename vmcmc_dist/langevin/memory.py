"""The C library's habit of giving memory back, which costs a chain on the CPU up to a quarter."""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_LARGEST_MMAP_THRESHOLD = 32 * 2**20


def keep_freed_memory() -> bool:
    """Let this process keep what it frees, for the next step; ``True`` where that is possible.

    A chain frees and allocates the same activations at every step. glibc gives blocks of megabytes
    back to the kernel, which then has to clear and map them anew. Call it once, early, in a
    process that trains on the CPU; it then keeps its peak memory until it ends. Only glibc
    (Linux) is known to have the dial; elsewhere nothing happens.
    Source: mallopt(3), M_MMAP_THRESHOLD and M_TRIM_THRESHOLD.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
        and mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    )
