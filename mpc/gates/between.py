"""Between: in which of the intervals that public levels bound does a value lie?  The bits, left flipped.

On rounded values, as in step.py: [x >= t_i] for rising levels t_1 < .. < t_n by n look-ups in one dealt table, each
under a free bit of its own, sb_i.  What is opened is

    e_i = [x >= t_i] xor [x >= t_(i+1)] xor sb_i xor sb_(i+1) = [t_i <= x < t_(i+1)] xor beta_i

and e_n = [x >= t_n] xor sb_n; [beta_i] is dealt as a number.  Whoever chooses by the bits reads e_i and [beta_i]
(pieces.py), so nothing else is opened.

Sources: those of step.py and select.py.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field

from mpc.at_once import shape
from mpc.comparison import Comparison
from mpc.gates.base import Correlation, Evaluation, Gate, Name, Opening, count
from mpc.gates.compare import Chunks, Comparing, compared, comparison_correlations, take_comparison, tell
from mpc.gates.levels import above, above_in_the_clear, compared_bits, deal_levels, looks_of, require_levels
from mpc.gates.linear import Factor
from mpc.gates.readings import ClearReading, DealReading, PartyReading
from mpc.shares import Share
from mpc.wires import Masking, Wires


class Between(Gate):
    """bits[i] = [levels[i] <= x < levels[i + 1]], the last one [x >= levels[-1]], on values rounded by 2^shift.

    Shapes:   x, bits: S      Scale: bit = 1
    Deals:    one table; a node and beta for each level
    Rounds:   2               Opens: leaf words, e; at once no e, and a round less
    Error:    exact with shift 0; else a value less than 2^shift below a level may count as above it
    """

    kind: ClassVar[str] = "between"
    results: ClassVar[tuple[str, ...]] = ("bits",)
    later: ClassVar[tuple[str, ...]] = ("chunks", "at_once")
    x: Name
    bits: tuple[Name, ...] = Field(min_length=1, max_length=16)
    levels: tuple[Factor, ...]
    shift: int = Field(ge=0, le=57)
    chunks: Chunks | None = None
    at_once: bool = False

    def check(self, wires: Wires) -> None:
        x = wires[self.x]
        self.require_same_size(wires, self.x, *self.bits)
        if len(self.levels) != len(self.bits):
            raise self.refuse("a level for each bit")
        if any(low >= high for low, high in zip(self.levels, self.levels[1:], strict=False)):
            raise self.refuse("its levels rise")
        for name in self.bits:
            bit = wires[name]
            if bit.masking is not Masking.FLIPPED or bit.scale != 1 or bit.holders:
                raise self.refuse("its bits are flipped, and nobody's")
        require_levels(self, x, self.levels, self.shift)
        self.comparison(wires)

    def comparison(self, wires: Wires) -> Comparison:
        """Return the comparison on the bits that are left of x - level."""
        return shape(compared_bits(wires[self.x], self.levels) - self.shift, self.chunks, self.at_once)

    @property
    def _looks(self) -> tuple[str, ...]:
        return looks_of(self.levels)

    def openings(self, wires: Wires) -> tuple[tuple[Opening, ...], ...]:
        size, comparison = (count(wires[self.x]),), self.comparison(wires)
        leaves = tuple(Opening(f"{look}leaf", size, width=comparison.leaf_width) for look in self._looks)
        return compared(comparison, leaves, tuple(Opening(f"{look}e", size, width=1) for look in self._looks))

    def correlations(self, wires: Wires) -> tuple[Correlation, ...]:
        size = count(wires[self.x])
        beta = Correlation("beta", (len(self.levels), size), dependent=True)
        return (beta, *comparison_correlations(self.comparison(wires), size, self._looks))

    def reference(self, run: ClearReading) -> None:
        bits = above_in_the_clear(run, self.x, self.levels, self.shift)
        for name, found, beyond in zip(self.bits, bits, [*bits[1:], np.zeros_like(bits[0])], strict=True):
            run.set(name, found - beyond)

    def deal(self, run: DealReading) -> None:
        beta = deal_levels(run, self.x, self.comparison(run.wires), self.levels, self.shift)
        beta[:-1] ^= beta[1:]
        masks = beta.astype(np.uint64)
        run.dependent("beta", masks)
        for name, mask in zip(self.bits, masks, strict=True):
            run.derive_mask(name, mask.reshape(run.shape(name)))

    def prepare(self, run: PartyReading) -> Comparing:
        beta = run.take("beta").values
        for place, name in enumerate(self.bits):
            run.set_mask(name, Share(beta[place].reshape(run.shape(name))))
        return take_comparison(run, self.comparison(run.wires), self._looks)

    def evaluate(self, run: PartyReading, kept: Comparing) -> Evaluation:
        bits = yield from above(run, self.x, self.comparison(run.wires), self.levels, self.shift, kept)
        found = yield from tell((*(bit ^ beyond for bit, beyond in zip(bits, bits[1:], strict=False)), bits[-1]))
        for name, e in zip(self.bits, found, strict=True):
            run.set(name, e.astype(np.uint64).reshape(run.shape(name)))
