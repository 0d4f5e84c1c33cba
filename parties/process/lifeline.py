"""A daemon's ties to whoever started it: say that it is ready, end when the launcher does."""

from __future__ import annotations

import os
import signal
import stat
import threading
import time
from pathlib import Path

from mpc.errors import ConfigError
from parties.disk import write_atomic

PARENT_PIPE = "MPC_PARENT_PIPE"
READY = "ready"


def announce_ready(data_dir: Path) -> None:
    """Tell the launcher, if there is one, that this daemon serves."""
    write_atomic(data_dir / READY, f"{os.getpid()}\n".encode())


def watch_parent(grace: float = 10) -> threading.Thread | None:
    """Watch the launcher from a daemon's start: when it is gone, send this process SIGTERM, and after `grace` seconds
    exit.

    None if nobody asked for it (a detached or real daemon).
    """
    number = os.environ.pop(PARENT_PIPE, None)
    if number is None:
        return None
    try:
        descriptor = int(number)
        if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            raise ValueError
    except (ValueError, OSError):
        raise ConfigError(
            f"{PARENT_PIPE} is not a pipe", remedy=f"unset {PARENT_PIPE}; only the launcher sets it"
        ) from None
    os.set_inheritable(descriptor, False)

    def wait() -> None:
        while os.read(descriptor, 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(grace)
        os._exit(1)  # the main thread is stuck in a kernel or ignores SIGTERM

    watcher = threading.Thread(target=wait, name="parent-watch", daemon=True)
    watcher.start()
    return watcher
