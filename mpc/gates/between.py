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

from mpc import field as fp
from mpc import truncation
from mpc.comparison import Comparison
from mpc.gates.base import Correlation, Evaluation, Gate, Name, Opening, count
from mpc.gates.compare import Chunks, Comparing, comparison_correlations, deal_comparison, take_comparison
from mpc.gates.linear import Factor
from mpc.gates.readings import ClearReading, DealReading, PartyReading
from mpc.shares import Share
from mpc.wires import MAX_BITS, Masking, Wires


class Between(Gate):
    """bits[i] = [levels[i] <= x < levels[i + 1]], the last one [x >= levels[-1]], on values rounded by 2^shift.

    Shapes:   x, bits: S      Scale: bit = 1
    Deals:    one table; a node and beta for each level
    Rounds:   2               Opens: leaf words, e
    Error:    exact with shift 0; else a value less than 2^shift below a level may count as above it
    """

    kind: ClassVar[str] = "between"
    results: ClassVar[tuple[str, ...]] = ("bits",)
    later: ClassVar[tuple[str, ...]] = ("chunks",)
    x: Name
    bits: tuple[Name, ...] = Field(min_length=1, max_length=16)
    levels: tuple[Factor, ...]
    shift: int = Field(ge=0, le=57)
    chunks: Chunks | None = None

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
        if self._compared(wires) > MAX_BITS or max(map(abs, self.levels)) >= 1 << x.bits:
            raise self.refuse("a level lies outside the input's bound, or that leaves no room")
        if self.shift >= self._compared(wires):
            raise self.refuse("the shift leaves no bits")
        self.comparison(wires)

    def _compared(self, wires: Wires) -> int:
        """The bound of x - level, with room for its rounding."""
        return wires[self.x].bits + (2 if any(self.levels) else 1)

    def comparison(self, wires: Wires) -> Comparison:
        """Return the comparison on the bits that are left of x - level."""
        return Comparison(self._compared(wires) - self.shift, self.chunks)

    @property
    def _looks(self) -> tuple[str, ...]:
        return tuple(f"{i}:" for i in range(len(self.levels)))

    def openings(self, wires: Wires) -> tuple[tuple[Opening, ...], ...]:
        shape, width = (count(wires[self.x]),), self.comparison(wires).leaf_width
        leaves = tuple(Opening(f"{look}leaf", shape, width=width) for look in self._looks)
        return leaves, tuple(Opening(f"{look}e", shape, width=1) for look in self._looks)

    def correlations(self, wires: Wires) -> tuple[Correlation, ...]:
        size = count(wires[self.x])
        beta = Correlation("beta", (len(self.levels), size), dependent=True)
        return (beta, *comparison_correlations(self.comparison(wires), size, self._looks))

    def reference(self, run: ClearReading) -> None:
        x, coin, bits = run.value(self.x), run.coin(self.x), self._compared(run.wires)
        above = [
            (truncation.reference(x - level, truncation.moved(coin, -level), bits, self.shift) >= 0).astype(np.int64)
            for level in self.levels
        ]
        for name, found, beyond in zip(self.bits, above, [*above[1:], np.zeros_like(x)], strict=True):
            run.set(name, found - beyond)

    def deal(self, run: DealReading) -> None:
        r1, _ = truncation.mask_parts(run.mask(self.x).reshape(1, -1), self.shift)
        beta = deal_comparison(run, self.comparison(run.wires), r1, looks=self._looks)
        beta[:-1] ^= beta[1:]
        masks = beta.astype(np.uint64)
        run.dependent("beta", masks)
        for name, mask in zip(self.bits, masks, strict=True):
            run.derive_mask(name, mask.reshape(run.shape(name)))

    def prepare(self, run: PartyReading) -> Comparing:
        beta = run.take("beta").values
        for place, name in enumerate(self.bits):
            run.set_mask(name, Share(beta[place].reshape(run.shape(name))))
        return take_comparison(run, self._looks)

    def evaluate(self, run: PartyReading, kept: Comparing) -> Evaluation:
        lane, comparison = run.lane, self.comparison(run.wires)
        public = run.public(self.x).reshape(-1)
        leaves, signs = [], []
        for look, level in zip(kept.looks, self.levels, strict=True):
            rounded = truncation.offset(fp.add_int(public, -level), self._compared(run.wires)) >> np.uint64(self.shift)
            leaf, sign = lane.look_up(comparison, kept.table, rounded.reshape(1, -1), look.mask)
            leaves.append(leaf)
            signs.append(sign)
        opened = yield tuple(leaves)
        above = [
            lane.resolve(comparison, leaf, look.mask, look.node, sign)
            for look, leaf, sign in zip(kept.looks, opened, signs, strict=True)
        ]
        found = yield (*(bit ^ beyond for bit, beyond in zip(above, above[1:], strict=False)), above[-1])
        for name, e in zip(self.bits, found, strict=True):
            run.set(name, e.astype(np.uint64).reshape(run.shape(name)))
