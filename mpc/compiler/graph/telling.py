"""A last look at what a split tells, which asks nothing of how it was made: secrets that change must change none of it.

A model whose secret constants are a little different is imported once more.  What the parties would be told of it,
public weights and the constants of sums and comparisons, has to be equal, byte for byte.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from hashlib import sha256

import numpy as np

from mpc.compiler.graph.attributes import Constant, Step, Sum, Weighted
from mpc.compiler.graph.graph import Graph, simple_factor
from mpc.errors import ModelError

Change = Callable[[np.ndarray], np.ndarray]
"""Makes other numbers of a secret constant's, of its type and shape."""
_UP, _DOWN = 1 + 2.0**-10, 1 - 2.0**-11


def _nudged(values: np.ndarray) -> np.ndarray:
    """Return numbers that differ by about a thousandth; zeros stay, and so do whole numbers but those of 8 bits."""
    if values.dtype.kind == "f":
        factors = np.where(np.arange(values.size) % 2, _DOWN, _UP).reshape(values.shape)
        return np.asarray(values * factors).astype(values.dtype)
    if values.dtype in (np.int8, np.uint8):
        return np.asarray(np.where(np.abs(values.astype(np.int16)) > 1, values ^ 1, values)).astype(values.dtype)
    return values


def _doubled(values: np.ndarray) -> np.ndarray:
    """Return twice the numbers: what is whole, or a power of two, is that again."""
    return values * values.dtype.type(2) if values.dtype.kind == "f" else _nudged(values)


def _besides_simple(values: np.ndarray) -> np.ndarray:
    """Nudge all but lone simple numbers: a plan tells these of any model, since how it is computed hangs on them."""
    lone = values.size == 1 and values.dtype.kind == "f" and simple_factor(values.astype(np.float64)) is not None
    return values if lone else _nudged(values)


_CHANGES: tuple[Change, ...] = (_besides_simple, _nudged, _doubled)
"""Change secrets in several ways: what is equal after one of them hangs on none."""


def require_untold(graph: Graph, made: Callable[[Change], Graph]) -> None:
    """Check that what is told of a graph hangs on no secret.

    Args:
        made: imports the model again, its secret constants changed so.

    Raises:
        ModelError: whatever the change, something else would be told.
    """
    told = _told(graph)
    for change in _CHANGES:
        try:
            other = made(change)
        except ModelError:  # with such numbers it is no model that can be computed
            continue
        if _told(other) == told:
            return
    raise ModelError(
        "parties would be told numbers that hang on weights which are to stay secret",
        cause="a secret constant decides what becomes of public ones beside it",
        remedy="keep all weights secret (without --weights public), or name those beside it as secret too",
    )


def _told(graph: Graph) -> Counter[bytes]:
    """Digests of all that is told of a graph's numbers, however its nodes are named and ordered."""
    return Counter(sha256(part).digest() for part in _parts(graph))


def _parts(graph: Graph) -> Iterator[bytes]:
    for node in graph.nodes:
        match node.attributes:
            case Weighted(public=True, weight=weight, bias=bias):
                yield _bytes(weight)
                yield b"" if bias is None else _bytes(bias)
            case Constant(public=True, weight=weight):
                yield _bytes(weight)
            case Sum(constant=constant):
                yield repr(float(constant)).encode()
            case Step(levels=levels):
                yield repr(tuple(map(float, levels))).encode()
            case _:
                pass


def _bytes(values: np.ndarray) -> bytes:
    return repr(values.shape).encode() + np.ascontiguousarray(values, dtype=np.float64).tobytes()
