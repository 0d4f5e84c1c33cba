"""Decide how much freed memory stays with a daemon, and what is never garbage."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import ClassVar

from parties.machine import container_memory

_ARENAS, _MAPPED, _MMAP, _TRIM = -8, -4, -3, -1
"""glibc's M_ARENA_MAX, M_MMAP_MAX, M_MMAP_THRESHOLD and M_TRIM_THRESHOLD."""
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


def kept_bytes(most: int) -> int:
    """Return how many bytes of freed memory may stay: `most`, or a quarter of a container's limit if that is less."""
    limit = container_memory()
    return min(most, _MOST) if limit is None else min(most, _MOST, limit // _PART)


def keep_memory(kept: int) -> None:
    """Have up to `kept` bytes of freed memory stay with this process, where the C library is glibc.

    A run's arrays are as large as the last one's: given back and taken again, every page of theirs would be
    cleared by the kernel first, which takes longer than the arithmetic on it.  That holds for the largest arrays, too,
    which glibc would map one by one; but what is freed below something in use is given back by `Freed` only.
    """
    with suppress(OSError, AttributeError):
        mallopt = _library().mallopt
        mallopt(_ARENAS, 1)
        mallopt(_TRIM, kept)
        mallopt(_MMAP, min(max(kept, _SMALLEST_MAPPED), _LARGEST_IN_HEAP))
        if kept >= _LARGEST_IN_HEAP and Freed(kept).gives_back:
            mallopt(_MAPPED, 0)


class Freed:
    """Memory that is free and still with this process, also between what is in use: give it back if it is too much.

    One thread calls `tick`, every second or so: some 10 us, and some 10 ms for a gigabyte that is given back.

    Args:
        kept: bytes that may stay.
    """

    def __init__(self, kept: int) -> None:
        self._kept = kept
        library = _library()
        try:
            self._info, self._trim = library.mallinfo2, library.malloc_trim
        except AttributeError:  # not glibc, or one before 2.33
            self.gives_back = False
            return
        self._info.restype, self._trim.argtypes = _Info, (ctypes.c_size_t,)
        self.gives_back = True

    def tick(self) -> None:
        """Give all of it back if more is free than may stay.

        What was given back between things in use still counts as free.  Where that is more than may stay, nothing does.
        """
        if self.gives_back and self._info().fordblks > self._kept:
            self._trim(0)


class _Info(ctypes.Structure):
    """glibc's struct mallinfo2."""

    _fields_: ClassVar = [
        (name, ctypes.c_size_t)
        for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
    ]


def _library() -> ctypes.CDLL:
    return ctypes.CDLL(None)
