"""Which process is which: a pid alone could by now be somebody else's."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from mpc.errors import ConfigError

children: dict[int, subprocess.Popen[bytes]] = {}
"""Processes that this one started, so that they are reaped."""


@dataclass(frozen=True)
class Record:
    """A started daemon: `birth` tells its process from later ones with its pid; started in seconds since 1970."""

    pid: int
    birth: str
    started: float


def pid_file(folder: Path) -> Path:
    """Where a daemon's record is kept."""
    return folder / "pid"


def record_of(folder: Path) -> Record | None:
    """Read the record of a daemon that was started here; None if there was none, or it was stopped."""
    try:
        fields = json.loads(pid_file(folder).read_bytes())
        return Record(int(fields["pid"]), str(fields["birth"]), float(fields["started"]))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        return Record(0, "", 0)  # damaged: someone was started here, and we must not guess whom to kill


def running(folder: Path) -> int | None:
    """The daemon's pid, only if that is still the process we started and not a later one of that number."""
    record = record_of(folder)
    if record is None or record.pid <= 1:
        return None
    birth = birth_of(record.pid)
    if birth is None and (child := children.pop(record.pid, None)):
        child.wait()  # it is dead already; this takes the zombie away
    return record.pid if birth == record.birth else None


def birth_of(pid: int) -> str | None:
    """Return a mark that tells this process from others that had or will have its pid; None if it is dead."""
    if not sys.platform.startswith("linux"):
        fields = ["ps", "-o", "stat=,lstart=", "-p", str(pid)]
        shown = subprocess.run(fields, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"}, check=False)
        state, _, birth = shown.stdout.strip().partition(" ")
        return None if not birth or state.startswith("Z") else birth.strip()
    try:
        # The command's name is in parentheses and may contain anything, so count from the last one.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return None if fields[0] in "ZX" else f"{boot}:{fields[19]}"


def signal_group(pid: int, number: signal.Signals) -> None:
    """Signal a daemon and all that it started; that it is gone is no error.  Raises ConfigError."""
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        pass
    except PermissionError:
        raise ConfigError(
            f"process {pid} belongs to another user", remedy="stop the cluster as the user who started it"
        ) from None
