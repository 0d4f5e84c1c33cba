"""Long values travel in pieces of at most 1 MiB."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

import numpy as np

from mpc.errors import PeerError
from parties.wire.transport import FRAME_BYTES

Reply = TypeVar("Reply")
SLOWEST = 1 << 20
"""Bytes a second at which long values are waited for at least."""


def time_for(seconds: float, size: int) -> float:
    """Return the seconds that so many bytes may take to come, where a short value may take `seconds`."""
    return seconds + size / SLOWEST


def slices(data: bytes | memoryview) -> Iterator[memoryview]:
    """Split data, a flat sequence of bytes, into views of at most 1 MiB."""
    view = memoryview(data)
    return (view[start : start + FRAME_BYTES] for start in range(0, len(view), FRAME_BYTES))


def pieces(data: bytes | memoryview) -> Iterator[bytes]:
    """Split data into pieces of at most 1 MiB, each an owned `bytes`."""
    return map(bytes, slices(data))


def collect(parts: Iterable[bytes | memoryview], size: int, what: str, peer: str) -> memoryview:
    """Collect exactly `size` bytes from pieces; raise PeerError if fewer or more come, before more is held."""
    out, filled = room(size), 0
    for part in parts:
        if filled + len(part) > size:
            raise PeerError(f"{what}: more than the {size} bytes it should have", peer=peer)
        out[filled : filled + len(part)] = part
        filled += len(part)
    if filled != size:
        raise PeerError(f"{what}: {filled} of {size} bytes arrived", peer=peer)
    return out.toreadonly()


def room(size: int) -> memoryview:
    """Allocate so many bytes to be written, as an array's, since that comes in large pages."""
    return np.empty(size, dtype=np.uint8).data
