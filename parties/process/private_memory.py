"""Keep what this process holds in this process: no core dump, no look at its memory by others of the same user.

The kernel then gives /proc/PID to root.  What anybody may read there (stat, status, limits) stays readable, so that
`mpc ps` and the launcher see their daemons; signals and cores are bound to the user, not to that folder.
"""

from __future__ import annotations

import ctypes
import resource
import sys
from contextlib import suppress

_SET_DUMPABLE = 4
"""prctl's PR_SET_DUMPABLE."""


def keep_private() -> None:
    """Forbid core dumps of this process and of those it starts; on Linux also that others attach to it.

    A limit of 0 alone is not enough: where dumps are handed to a program (systemd-coredump, apport), the kernel
    does not ask for it.
    """
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform.startswith("linux"):
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_SET_DUMPABLE, 0, 0, 0, 0)
