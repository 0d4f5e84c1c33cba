"""Choosing by an opened bit: what a mux over truncated values deals, and takes.

From an opened e = d xor beta, d a secret bit, and the opened c = x + 2^k + r of a truncation
(C = c1 - 2^(k-f), r1 = r >> f, W = pub 2^(61-f), see truncation.py),

    d y = e (C - r1 + W m) + (1 - 2e) (C beta - beta r1 + W beta m)

is linear in the dealt beta, r1, m, beta r1 and beta m.  m and beta m count only where pub = 1,
about one element in 2^(61-k-1).

Where d is the AND of two such bits, d = [v = 1 xor beta] of both opened bits v: for each of the four v there are, dealt
shares of [v = 1 xor beta], and of it times r1 and m, are read at the public v.
"""

from __future__ import annotations

import numpy as np

from mpc import kernels
from mpc.encoding import view_words
from mpc.gates.base import Correlation
from mpc.gates.readings import DealReading, PartyReading
from mpc.shares import Selected, Share
from mpc.truncation import mask_parts

_CHOICES = ("chosen", "chosen_r1", "chosen_m")


def _names(bit: str) -> tuple[str, ...]:
    return (bit, "r1", "m", f"{bit}_r1", f"{bit}_m")


def selection_correlations(bit: str, shape: tuple[int, int]) -> list[Correlation]:
    """Declare what is dealt for a choice; shape (n, rows)."""
    return [Correlation(name, shape, dependent=True) for name in _names(bit)]


def deal_selection(run: DealReading, bit: str, plain: np.ndarray, r: np.ndarray, shift: int) -> None:
    """Deal for plain bits (n, rows) uint8 and plain masks r (rows, n)."""
    kernels.deal_selected(r, plain, shift, *(run.others(name) for name in _names(bit)))


def deal_choices(run: DealReading, plain: np.ndarray, r: np.ndarray, shift: int) -> None:
    """Deal for plain masks of two bits each (2, n, rows) uint8, whose AND chooses, and plain masks r (rows, n)."""
    r1, m = mask_parts(np.ascontiguousarray(r.T), shift)
    missing = (np.uint8(1) ^ plain[0]) | ((np.uint8(1) ^ plain[1]) << np.uint8(1))
    chosen = (missing == np.arange(4, dtype=np.uint8)[:, None, None]).astype(np.uint64)
    for name, values in zip(_CHOICES, (chosen, chosen * r1, chosen * m), strict=True):
        run.dependent(name, values)


def choice_correlations(shape: tuple[int, int]) -> list[Correlation]:
    """Declare what is dealt for choices by two bits; shape (n, rows)."""
    return [Correlation(name, (4, *shape), dependent=True) for name in _CHOICES]


def take_choices(run: PartyReading) -> tuple[Share, Share, Share]:
    """Return this party's shares for choices by two bits, once: of each of the four words that may be opened."""
    chosen, r1, m = (run.take(name) for name in _CHOICES)
    return chosen, r1, m


def chosen_by(opened: np.ndarray, choices: tuple[Share, Share, Share]) -> Selected:
    """Return what `Lane.select` needs, with zeros for its opened bits; opened (2, n, rows) uint8."""
    bits, shape = np.ascontiguousarray(opened).reshape(2, -1), opened.shape[1:]
    found = np.empty((3, bits.shape[1]), dtype=np.uint64)
    for each, out in zip(choices, found, strict=True):
        kernels.choose(bits, view_words(each.values.reshape(4, -1)), out)
    chosen, r1, m = found.reshape(3, *shape)
    return Selected(chosen, r1, m, r1, m)


def take_selection(run: PartyReading, bit: str) -> Selected:
    """Return this party's shares, once."""
    return Selected(*(run.take(name).values for name in _names(bit)))
