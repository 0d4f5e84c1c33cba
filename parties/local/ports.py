"""Ports of this machine for a local cluster's processes: chosen, and kept free until those listen.

Between choosing a port and listening to it a process is started, which takes seconds; meanwhile the system would hand
the port to whoever asks for any.  On Linux a socket that is bound and does not listen keeps others off, and lets in who
binds to that very port with SO_REUSEADDR, as servers do.  Elsewhere it would keep out the server, too: there, ports
are let go at once.
"""

from __future__ import annotations

import socket
import sys
import weakref
from contextlib import ExitStack, suppress

from mpc.errors import ConfigError

_HOLDS = sys.platform == "linux"


class Ports:
    """Free ports, kept so until `release`, or until nobody knows this object.

    numbers: the ports.
    """

    def __init__(self, count: int, base: int | None = None) -> None:
        """Choose `count` ports: from `base` on, or any.

        Raises:
            ConfigError: those from `base` on cannot be had.
        """
        if base is not None and not 1024 <= base <= 65536 - count:
            raise ConfigError(
                f"ports {base} to {base + count - 1} cannot be used", remedy=f"--port 1024 to {65536 - count}"
            )
        with ExitStack() as held:  # all at once, or the system could hand out one port twice
            bound = [_bind(held, 0 if base is None else base + index) for index in range(count)]
            self.numbers = [one.getsockname()[1] for one in bound]
            self.release = weakref.finalize(self, (held.pop_all() if _HOLDS else ExitStack()).close)


def _bind(held: ExitStack, port: int) -> socket.socket:
    candidate = held.enter_context(socket.socket())
    candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        candidate.bind(("127.0.0.1", port))
    except OSError as error:
        raise ConfigError(
            f"port {port} is taken ({error.strerror})",
            cause=_holder(port) or f"another cluster or program: lsof -nP -iTCP:{port} -sTCP:LISTEN",
            remedy="stop it (mpc down, with its --dir), choose another --port, or leave --port out",
        ) from None
    return candidate


def _holder(port: int) -> str | None:
    """Name the process that listens on a port, as `name (pid n)`; None if this user may not look at it."""
    import psutil  # only for this error

    for process in psutil.process_iter(["name"]):
        with suppress(psutil.Error):
            sockets = process.net_connections(kind="tcp")
            if any(one.status == psutil.CONN_LISTEN and one.laddr.port == port for one in sockets):
                return f"{process.info['name']} (pid {process.pid})"
    return None
