"""Log what libraries in C write to stderr, as JSON lines: gRPC's failed handshakes above all, with the address.

gRPC says why a handshake failed in one line and with whom in another, which it writes only while it traces
handshakes; so it does, and of each handshake that goes well nothing is written here.  What our own code writes goes to
the real stderr, and so does a crash (faulthandler): nothing of a process's last words depends on a thread of its own.
"""

from __future__ import annotations

import faulthandler
import fcntl
import logging
import os
import re
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from typing import TextIO

from mpc.text import shown
from parties import telemetry

_TRACE = "GRPC_TRACE"
_HANDSHAKES = "handshaker"
_LINE = re.compile(r"([IWEF])\d{4} [\d:.]+ +\d+ ([\w.]+):\d+\] (.*)")
_ENDED = re.compile(r"CallNextHandshakerLocked: error=(?!OK )(.*)")
_ADDRESS = re.compile(r"endpoint_peer_address=(?:ipv[46]:)?([^,}]+)")
_REST = re.compile(r"=== Source Location Trace|[\w./-]+\.(?:cc|h):\d+$| shutdown=")
"""Further lines of a record about a handshake."""
_OF_HANDSHAKES = frozenset({"handshaker.cc", "channel_trace.h"})
_TWICE = frozenset({"ssl_transport_security.cc"})
_LONGEST = 600
_PIPE_BYTES = 1 << 20
_CONTINUED = 8  # lines that a record may go on for


def trace_handshakes() -> None:
    """Have gRPC say with whom a handshake failed; to be called before gRPC is imported."""
    os.environ.setdefault(_TRACE, _HANDSHAKES)


def capture(stack: ExitStack) -> TextIO:
    """Take over this process's stderr until `stack` is closed; the stream that our own log goes to meanwhile."""
    kept = os.dup(2)
    reader, writer = os.pipe()
    with suppress(AttributeError, OSError):  # Linux; elsewhere, or beyond the user's limit, it is a smaller pipe
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    os.set_blocking(writer, False)  # a full pipe loses a line; it never holds up whoever writes
    os.dup2(writer, 2)
    os.close(writer)
    out = os.fdopen(kept, "w", buffering=1, encoding="utf-8", errors="backslashreplace")
    faulthandler.enable(out)
    stack.callback(_release, out)

    def read() -> None:
        with os.fdopen(reader, "r", encoding="utf-8", errors="backslashreplace") as lines:
            for level, event, fields in records(lines, traced=os.environ.get(_TRACE) == _HANDSHAKES):
                telemetry.rationed((event,), level, event, **fields)

    threading.Thread(target=read, name="stderr", daemon=True).start()
    return out


def _release(out: TextIO) -> None:
    """Make stderr what it was; whoever reads the pipe comes to its end."""
    out.flush()
    os.dup2(out.fileno(), 2)


def records(lines: Iterable[str], traced: bool) -> Iterator[tuple[int, str, dict[str, str]]]:
    """Yield the level, the event and its fields of each record that is worth a line.

    traced: handshakes are traced, so what `ssl_transport_security.cc` says of a failure comes again with its address.
    """
    failed, waited = "", 0
    for line in lines:
        found = _LINE.match(line)
        if found is None:
            if failed and (address := _ADDRESS.search(line)):
                yield _handshake(failed, address.group(1))
                failed = ""
            elif failed and waited < _CONTINUED:
                waited += 1
            elif line.strip() and not (traced and _REST.match(line)):
                yield logging.WARNING, "stderr", {"text": _short(line)}
            continue
        severity, place, text = found.groups()
        ended = _ENDED.search(text)
        if ended is not None:
            failed, waited = ended.group(1), 0
            if address := _ADDRESS.search(text):
                yield _handshake(failed, address.group(1))
                failed = ""
        elif not (place in _OF_HANDSHAKES or "gRPC Tracers" in text or (traced and place in _TWICE)):
            level = {"I": logging.INFO, "W": logging.WARNING}.get(severity, logging.ERROR)
            yield level, "grpc", {"place": place, "text": _short(text)}


def _handshake(failed: str, address: str) -> tuple[int, str, dict[str, str]]:
    why = failed.split(", args={", 1)[0].split(" shutdown=", 1)[0]
    return logging.WARNING, "a TLS handshake failed", {"address": shown(address), "why": _short(why)}


def _short(text: str) -> str:
    return shown(text.strip())[:_LONGEST]
