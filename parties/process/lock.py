"""One process at a time has a data folder."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from mpc.errors import ConfigError

LOCK, LEDGER = "lock", "ledger.lock"
"""The provider's file, and a party's."""


def take(folder: Path, name: str = LOCK) -> int:
    """Take a folder for this process, by a lock on its file `name`, until the descriptor that is returned is closed.

    The kernel lets go of it whatever way the process ends, which a pid file does not know.

    Raises:
        ConfigError: another process has it.
        OSError: the folder cannot be written.
    """
    descriptor = os.open(folder / name, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = os.read(descriptor, 32).decode("ascii", "replace").strip()
        os.close(descriptor)
        raise ConfigError(
            f"data_dir {folder} is in use by another process{f' (pid {holder})' if holder else ''}",
            cause="there is one daemon per data_dir",
            remedy="stop that one (of a local cluster: mpc down, with its --dir), or give this one its own data_dir",
            local=True,
        ) from None
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def holder(folder: Path) -> tuple[int, float] | None:
    """Return the pid of the daemon that has a folder, and when it wrote it, in seconds since 1970; None if none has.

    The lock itself is looked at, since a file says nothing of whether it was copied, or its process has ended.
    """
    for name in (LEDGER, LOCK):
        try:
            descriptor = os.open(folder / name, os.O_RDONLY)
        except OSError:
            continue
        try:
            pid, written = os.read(descriptor, 32).strip(), os.fstat(descriptor).st_mtime
            if pid.isdigit() and _is_alive(int(pid)) and _is_taken(descriptor):
                return int(pid), written
        finally:
            os.close(descriptor)
    return None


def _is_alive(pid: int) -> bool:
    """Say whether there is a process of that number; where none is, no lock is tried, which could be in the way."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return pid > 1


def _is_taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    return False
