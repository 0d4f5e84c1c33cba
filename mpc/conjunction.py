"""ANDs of bits that are opened under masks, up to four a node, many nodes side by side.

With opened o_k = b_k xor mu_k the product of the b_k is the XOR, over all subsets S of the inputs,
of the monomial mu_S where every o_k outside S is one.  The provider deals the 15 monomials of a
node's masks as one word; which of them count is a table of 16 rows.  An input that is not there is
the constant one: its mask is 0 and its opened bit 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from mpc.planes import Plane

FAN_IN = 4
MONOMIALS = (1 << FAN_IN) - 1


@dataclass(frozen=True)
class Nodes:
    """Which rows of bits each node joins.

    Args:
        places: (nodes, 4) int64, rows of the bits; -1 for an input that is not there.
        flips: (nodes, 4) uint8, 1 where the bit's complement is meant.
    """

    places: np.ndarray
    flips: np.ndarray

    def planes(self, rows: int) -> tuple[Plane, ...]:
        """Return where the dealt products have bits that are none: those with an input that is not there."""
        return tuple(Plane(rows, 16, 0, (1 << present) - 1) for present in (self.places >= 0).sum(axis=1).tolist())

    @property
    def selection(self) -> np.ndarray:
        """(16,) uint16: the monomials that an opened word selects, s whose complement is all ones in it."""
        return _selection()


def tree_level(inputs: list[list[int]], flips: list[list[int]]) -> Nodes:
    """Return the nodes of candidates with as many inputs each, candidate by candidate, the last of each filled up."""
    groups = -(-len(inputs[0]) // FAN_IN)
    places = np.full((len(inputs), groups * FAN_IN), -1, dtype=np.int64)
    changed = np.zeros((len(inputs), groups * FAN_IN), dtype=np.uint8)
    places[:, : len(inputs[0])] = inputs
    changed[:, : len(inputs[0])] = flips
    return Nodes(places.reshape(-1, FAN_IN), changed.reshape(-1, FAN_IN))


@cache
def _selection() -> np.ndarray:
    words = range(1 << FAN_IN)
    full = (1 << FAN_IN) - 1
    return np.array([sum(((o | s) == full) << (s - 1) for s in words if s) for o in words], dtype=np.uint16)
