"""ReLU fused with the truncation before it.

From the opened c = x + 2^k + r (see truncation.py; c1 = c >> f, r1 = r >> f, q = k - f) the
sign of the *rounded* y needs a comparison on q bits only:

    [y >= 0] = c1[q] xor r1[q] xor [r1 mod 2^q > c1 mod 2^q]

It is opened under a bit beta, e = [y >= 0] xor beta; beta is defined from the comparison's
free bit, sb = beta xor r1[q], so that neither costs a correction.  What remains is a selection
by an opened bit, see selection.py.

With a ceiling C the result is min(C, ..): a second look into the table, at c1 - C, gives over = [y >= C] under a bit
of its own, and of inside = [y >= 0] xor over and over

    result = inside y + over C

Both need |x| < 2^k - (1 + C) 2^f, or over would wrap.  The bit - [y >= 0], or inside - can be a wire, flipped: what
chooses by it again, as the derivative does, compares nothing (select.py).

A *coarse* ReLU reads the sign off fewer bits, those of x / 2^(f+g) rounded by the coin: its result is y or 0, and
another one than max(0, y) only where |y| < 2^g.

Sources: masked wires as in Beaver 1991 (Efficient multiparty protocols using circuit randomization), ABY2.0 (Patra,
Schneider, Suresh, Yalame 2021); the look-up in dealt tables is that of TinyTable (Damgard, Nielsen, Nielsen,
Ranellucci 2017), see comparison.py.  How both are fused with the truncation is ours: docs/protocols.md, "ReLU, fused
with truncation", has the argument.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from pydantic import Field

from mpc import field as fp
from mpc import truncation
from mpc.at_once import shape
from mpc.comparison import Comparison
from mpc.gates.base import Correlation, Evaluation, Gate, Name, Opening, count, drawn_masks
from mpc.gates.compare import (
    Chunks,
    Coarse,
    Comparing,
    compare,
    compared,
    comparison_correlations,
    deal_comparison,
    take_comparison,
    tell,
)
from mpc.gates.readings import ClearReading, DealReading, PartyReading
from mpc.gates.selection import deal_selection, selection_correlations, take_selection
from mpc.shares import Selected, Share
from mpc.wires import Masking, Wires


@dataclass(frozen=True, repr=False)
class Prepared:
    """The output's mask (zeros, of a result that is left unopened), and the shares that compare and choose.

    Args:
        over: the bit under which it is opened whether the ceiling is reached, as numbers.
    """

    mask: Share
    selected: Selected
    comparing: Comparing
    over: Share | None

    __secret__ = True


class Relu(Gate):
    """y = max(0, trunc(x, shift)), or min(ceiling, that); coarse: trunc(x, shift) where trunc(x, shift + coarse) >= 0.

    Shapes:   x, out, bit: S      Scale: out = x / 2^shift, bit = 1
    Deals:    r1, m, beta, beta r1, beta m in F_p; K table words and the node's products; for a ceiling one more element
              and node
    Rounds:   3               Opens: leaf words, e, out (2, without out, if that is left unopened); a ceiling's too;
              at once there is no e, and a round less
    Error:    the truncation's: floor or floor + 1, and up to 2^coarse; needs |x| < 2^k - (1 + ceiling) 2^(shift +
              coarse)
    """

    kind: ClassVar[str] = "relu"
    results: ClassVar[tuple[str, ...]] = ("out", "bit")
    later: ClassVar[tuple[str, ...]] = ("bit", "ceiling", "chunks", "coarse", "at_once")
    x: Name
    out: Name
    shift: int = Field(ge=0, le=58)
    bit: Name | None = None
    ceiling: int | None = Field(default=None, gt=0, lt=1 << 58)
    chunks: Chunks | None = None
    coarse: Coarse = 0
    at_once: bool = False

    def check(self, wires: Wires) -> None:
        x, out = wires[self.x], wires[self.out]
        self.require_same_size(wires, self.x, self.out)
        if out.scale * (1 << self.shift) != x.scale:
            raise self.refuse("the output's scale is not the input's after the shift")
        if out.masking not in (Masking.DRAWN, Masking.UNOPENED):
            raise self.refuse("the output's mask is drawn, or it is not opened")
        if x.bits <= self.shift:
            raise self.refuse("the shift leaves no bits")
        if self.ceiling is not None and self.ceiling >= (1 << (x.bits - self.shift)) - 1:
            raise self.refuse("the ceiling lies outside the input's bound")
        if self.coarse and (self.ceiling is not None or self._dropped >= x.bits):
            raise self.refuse("its comparison is coarse beside a ceiling, or compares no bit")
        if self.bit is not None:
            bit = wires[self.bit]
            if bit.masking is not Masking.FLIPPED or bit.shape != x.shape or bit.scale != 1 or bit.holders:
                raise self.refuse("the bit is flipped, one of each element, and nobody's")
        self.comparison(wires)

    @property
    def _looks(self) -> tuple[str, ...]:
        return ("",) if self.ceiling is None else ("", "over_")

    def comparison(self, wires: Wires) -> Comparison:
        """Return the comparison on q = k - shift bits, less those that it passes over."""
        return shape(wires[self.x].bits - self._dropped, self.chunks, self.at_once)

    @property
    def _dropped(self) -> int:
        """Bits of x that are not compared."""
        return self.shift + self.coarse

    def openings(self, wires: Wires) -> tuple[tuple[Opening, ...], ...]:
        size, comparison = (count(wires[self.x]),), self.comparison(wires)
        rounds = compared(
            comparison,
            tuple(Opening(f"{look}leaf", size, width=comparison.leaf_width) for look in self._looks),
            tuple(Opening(f"{look}e", size, width=1) for look in self._looks),
        )
        out = wires[self.out]
        return rounds if out.masking is Masking.UNOPENED else (*rounds, (Opening("y", out.sizes),))

    def correlations(self, wires: Wires) -> tuple[Correlation, ...]:
        size = count(wires[self.x])
        tables = comparison_correlations(self.comparison(wires), size, self._looks)
        over = () if self.ceiling is None else (Correlation("over", (size,), dependent=True),)
        return (*drawn_masks(wires[self.out]), *tables, *selection_correlations("beta", (1, size)), *over)

    def reference(self, run: ClearReading) -> None:
        run.require_room(self.x, self._dropped, 1 + (self.ceiling or 0))
        x, coin, bits = run.value(self.x), run.coin(self.x), run.wire(self.x).bits
        y, judged = (truncation.reference(x, coin, bits, shift) for shift in (self.shift, self._dropped))
        above = judged >= 0
        run.set(self.out, np.where(above, y if self.ceiling is None else np.minimum(y, self.ceiling), 0))
        if self.bit is not None:
            inside = above if self.ceiling is None else above & (y < self.ceiling)
            run.set(self.bit, inside.astype(np.int64))

    def deal(self, run: DealReading) -> None:
        if not self._is_unopened(run.wires):
            run.draw_mask(self.out)
        r = run.mask(self.x).reshape(-1, 1)
        r1, _ = truncation.mask_parts(r.T, self._dropped)
        betas = deal_comparison(run, self.comparison(run.wires), r1, looks=self._looks)
        beta = np.bitwise_xor.reduce(betas, axis=0, keepdims=True)
        deal_selection(run, "beta", beta, r, self.shift)
        if self.ceiling is not None:
            run.dependent("over", betas[1].astype(np.uint64))
        if self.bit is not None:
            run.derive_mask(self.bit, beta.astype(np.uint64).reshape(run.shape(self.bit)))

    def prepare(self, run: PartyReading) -> Prepared:
        size = count(run.wire(self.out))
        mask = Share(fp.zeros((size,))) if self._is_unopened(run.wires) else run.take_mask(self.out)
        selected = take_selection(run, "beta")
        if self.bit is not None:
            run.set_mask(self.bit, Share(selected.bit.reshape(run.shape(self.bit))))
        comparing = take_comparison(run, self.comparison(run.wires), self._looks)
        return Prepared(mask, selected, comparing, None if self.ceiling is None else run.take("over"))

    def evaluate(self, run: PartyReading, kept: Prepared) -> Evaluation:
        lane, bits, comparison = run.lane, run.wire(self.x).bits, self.comparison(run.wires)
        c, c1 = truncation.opened(run.public(self.x).reshape(-1, 1), bits, self.shift)
        levels = (0,) if self.ceiling is None else (0, self.ceiling)  # taken off modulo 2^64, so modulo 2^(q+1) as well
        places = [(c1 - np.uint64(level)) >> np.uint64(self.coarse) for level in levels]
        bit, *over = yield from compare(lane, comparison, kept.comparing, places)
        e, *above = yield from tell((bit ^ over[0], over[0]) if over else (bit,))
        if self.bit is not None:
            run.set(self.bit, e.astype(np.uint64).reshape(run.shape(self.bit)))
        mask = kept.mask.reshape((e.size,))
        if kept.over is not None and self.ceiling is not None:
            mask = mask + lane.select_bit(above[0], kept.over).times(self.ceiling)
        y = lane.select(c, e.reshape(1, -1), kept.selected, bits, self.shift, mask).reshape(run.shape(self.out))
        if self._is_unopened(run.wires):
            run.set_share(self.out, y)
            return
        (opened,) = yield (y,)
        run.set(self.out, opened)

    def _is_unopened(self, wires: Wires) -> bool:
        return wires[self.out].masking is Masking.UNOPENED
