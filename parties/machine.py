"""Say how much memory and how many cores this machine has, or the container that a process is in."""

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
    limits = [
        _read(folder / ("memory.max" if unified else "memory.limit_in_bytes"))
        for folder, unified in _folders("memory", groups, mounted)
    ]
    return min((limit for limit in limits if limit is not None), default=None)


def cores() -> int:
    """Return how many cores this process may keep busy: those that it may run on, or fewer in a container."""
    mine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = container_cores()
    return mine if share is None else max(1, min(mine, int(share)))


def cores_each(processes: int) -> int:
    """Return how many of these cores each of so many processes is to keep busy, at least one."""
    return max(1, cores() // processes)


def container_cores(groups: Path = _GROUPS, mounted: Path = _MOUNTED) -> float | None:
    """Return the share of cores that this process's control group may use; None if nothing limits it."""
    shares = [_share(folder, unified) for folder, unified in _folders("cpu", groups, mounted)]
    return min((share for share in shares if share is not None), default=None)


def _folders(controller: str, groups: Path, mounted: Path) -> list[tuple[Path, bool]]:
    """Return a controller's folders of this process's groups, from the bottom up, and whether each is of cgroup v2."""
    found = []
    with suppress(OSError, ValueError):
        for line in groups.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                found.append((mounted / path.lstrip("/"), True))
            elif controller in controllers.split(","):
                found.append((mounted / controller / path.lstrip("/"), False))
    return [
        (each, unified)
        for folder, unified in found
        for each in (folder, *folder.parents)
        if each == mounted or mounted in each.parents
    ]


def _share(folder: Path, unified: bool) -> float | None:
    if not unified:
        quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
        return None if quota is None or period is None else quota / period
    try:
        allowed, every = map(int, (folder / "cpu.max").read_text().split())
    except (OSError, ValueError):  # there is none of that name, or it begins with "max"
        return None
    return allowed / every if allowed > 0 and every > 0 else None


def _read(file: Path) -> int | None:
    try:
        limit = int(file.read_text())
    except (OSError, ValueError):  # there is none of that name, or it is "max"
        return None
    return limit if 0 < limit < 1 << 60 else None  # v1 says a number near 2^63, or -1, for none
