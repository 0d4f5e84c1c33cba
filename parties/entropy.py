"""The only door to randomness: `os.urandom`, checked; when it fails, the process stops.

The checks catch a source that is broken (short, stuck, replayed), not one that is merely
weak: no test of an output can.  There is no fallback, because a mask from a weaker source
looks exactly like a good one.
"""

from __future__ import annotations

import hashlib
import os
import threading

from mpc.errors import EntropyError, LocalProtocolError

SHORTEST = 16  # bytes; 128 bits, so that a false alarm has probability below 2^-100
LONGEST = 1 << 16

_lock = threading.Lock()
_previous: bytes | None = None


def token(n: int = 32) -> bytes:
    """n fresh secret bytes from the operating system, SHORTEST <= n <= LONGEST.

    Raises EntropyError when the source fails, is short, is constant or repeats itself.
    """
    if not SHORTEST <= n <= LONGEST:
        raise LocalProtocolError(f"a token has {SHORTEST} to {LONGEST} bytes, not {n}")
    try:
        drawn: object = os.urandom(n)  # not yet believed
    except (OSError, NotImplementedError) as error:
        raise _failure("cannot be read") from error
    if not isinstance(drawn, bytes) or len(drawn) != n:
        raise _failure("gave the wrong number of bytes")
    if drawn.count(drawn[0]) == n:
        raise _failure("gave a constant")
    _refuse_repetition(drawn)
    return drawn


def _refuse_repetition(drawn: bytes) -> None:
    # A digest is remembered, not the output: a seed must not outlive its owner in a global.
    # Its first bytes only, so that a replayed source is seen whatever lengths are asked for.
    global _previous
    mark = hashlib.sha256(drawn[:SHORTEST]).digest()
    with _lock:
        repeated, _previous = mark == _previous, mark
    if repeated:
        raise _failure("repeated its last output")


def _failure(how: str) -> EntropyError:
    return EntropyError(
        f"the system's random source {how}",
        cause="a broken kernel source, sandbox or virtual machine snapshot; nothing weaker is used instead",
        remedy="stop this process and check /dev/urandom on this machine",
    )
