"""Describe the machine that measured, and a process's memory; what only Linux tells is None elsewhere."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from parties.machine import cores

_RESET_PEAK = "5"  # to clear_refs: from now on VmHWM counts from here (Linux 4.0)


def describe_machine(threads: int) -> dict[str, Any]:
    """Describe this machine, for readers who have to judge seconds.

    Args:
        threads: of each daemon.
    """
    return {
        "cpu": _cpu_model(),
        "cores": cores(),
        "threads": threads,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 2),
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def peak_memory(pid: int) -> int | None:
    """Return the most resident memory that a process had at once, in bytes."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:")), None)


def reset_peak_memory(pid: int) -> None:
    """Count peak memory from now; where that is not possible, it counts from the process's start."""
    try:
        Path(f"/proc/{pid}/clear_refs").write_text(_RESET_PEAK)
    except OSError:
        return
