"""Choosing by an opened bit: what a mux over truncated values deals, and takes.

From an opened e = d xor beta, d a secret bit, and the opened c = x + 2^k + r of a truncation
(C = c1 - 2^(k-f), r1 = r >> f, W = pub 2^(61-f), see truncation.py),

    d y = e (C - r1 + W m) + (1 - 2e) (C beta - beta r1 + W beta m)

is linear in the dealt beta, r1, m, beta r1 and beta m.  m and beta m count only where pub = 1,
about one element in 2^(61-k-1).
"""

from __future__ import annotations

import numpy as np

from mpc import kernels
from mpc.gates.base import Correlation
from mpc.gates.readings import DealReading, PartyReading
from mpc.shares import Selected


def _names(bit: str) -> tuple[str, ...]:
    return (bit, "r1", "m", f"{bit}_r1", f"{bit}_m")


def selection_correlations(bit: str, shape: tuple[int, int]) -> list[Correlation]:
    """Declare what is dealt for a choice; shape (n, rows)."""
    return [Correlation(name, shape, dependent=True) for name in _names(bit)]


def deal_selection(run: DealReading, bit: str, plain: np.ndarray, r: np.ndarray, shift: int) -> None:
    """Deal for plain bits (n, rows) uint8 and plain masks r (rows, n)."""
    kernels.deal_selected(r, plain, shift, *(run.others(name) for name in _names(bit)))


def take_selection(run: PartyReading, bit: str) -> Selected:
    """Return this party's shares, once."""
    return Selected(*(run.take(name).values for name in _names(bit)))
