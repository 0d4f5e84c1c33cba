"""Decide how much freed memory stays with a daemon, and what is never garbage."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from parties.machine import container_memory

_ARENAS, _TRIM, _MMAP = -8, -1, -3
"""glibc's M_ARENA_MAX, M_TRIM_THRESHOLD and M_MMAP_THRESHOLD."""
_SMALLEST_MAPPED, _LARGEST_IN_HEAP = 128 << 10, 32 << 20
_MOST = (1 << 31) - 1
"""What mallopt takes: an int."""
_PART = 4
"""Of a container's limit a quarter may be kept: the rest is for what is in use."""


@contextmanager
def loading() -> Iterator[None]:
    """Look for no garbage among the modules and kernels that the block loads: they stay as long as the process.

    Python would look a dozen times meanwhile, and at all of them again whenever it looks, and at the end.
    """
    looks = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if looks:
            gc.enable()


def keep_memory(most: int) -> int:
    """Have up to `most` bytes of freed memory stay with this process, where the C library is glibc.

    A run's arrays are as large as the last one's: given back and taken again, every page of theirs would be
    cleared by the kernel first, which takes longer than the arithmetic on it.

    Returns:
        how many bytes may stay: never more than a quarter of the container's limit.
    """
    limit = container_memory()
    kept = min(most, _MOST) if limit is None else min(most, _MOST, limit // _PART)
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in ((_ARENAS, 1), (_TRIM, kept), (_MMAP, min(max(kept, _SMALLEST_MAPPED), _LARGEST_IN_HEAP))):
            mallopt(option, value)
    return kept
