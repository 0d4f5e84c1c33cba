"""Decide how much freed memory stays with a daemon, how much its container has, and what is never garbage."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_ARENAS, _TRIM, _MMAP = -8, -1, -3
"""glibc's M_ARENA_MAX, M_TRIM_THRESHOLD and M_MMAP_THRESHOLD."""
_SMALLEST_MAPPED, _LARGEST_IN_HEAP = 128 << 10, 32 << 20
_MOST = (1 << 31) - 1
"""What mallopt takes: an int."""
_PART = 4
"""Of a container's limit a quarter may be kept: the rest is for what is in use."""
_GROUPS, _MOUNTED = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


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


def container_memory(groups: Path = _GROUPS, mounted: Path = _MOUNTED) -> int | None:
    """Return the bytes that this process's control group may use, by cgroup v2 or v1; None if nothing limits it.

    A group is limited by those that it lies in, too.
    """
    limits = [_read(file) for folder, name in _folders(groups, mounted) for file in _upwards(folder, mounted, name)]
    return min((limit for limit in limits if limit is not None), default=None)


def _folders(groups: Path, mounted: Path) -> list[tuple[Path, str]]:
    """Yield where the memory controllers of this process's groups are, and what their limit's file is called."""
    found = []
    with suppress(OSError, ValueError):
        for line in groups.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                found.append((mounted / path.lstrip("/"), "memory.max"))
            elif "memory" in controllers.split(","):
                found.append((mounted / "memory" / path.lstrip("/"), "memory.limit_in_bytes"))
    return found


def _upwards(folder: Path, mounted: Path, name: str) -> list[Path]:
    """Yield the file in a folder and in all above it, up to where the groups are mounted."""
    inside = [each for each in (folder, *folder.parents) if each == mounted or mounted in each.parents]
    return [each / name for each in inside]


def _read(file: Path) -> int | None:
    try:
        limit = int(file.read_text())
    except (OSError, ValueError):  # there is none of that name, or it is "max"
        return None
    return limit if 0 < limit < 1 << 60 else None  # v1 says a number near 2^63 for none
