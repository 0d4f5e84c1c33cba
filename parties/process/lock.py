"""One process at a time has a data folder."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from mpc.errors import ConfigError

LOCK = "lock"


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
