"""Say how much memory this machine has, or the container that a process is in."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

_GROUPS, _MOUNTED = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def memory() -> int:
    """Return the bytes that this process may use at most: the machine's, or less in a container."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = container_memory()
    return physical if limit is None else min(physical, limit)


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
