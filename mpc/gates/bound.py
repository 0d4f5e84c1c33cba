"""Bound: a value's q bits above the lowest f, whatever the value is.

From the opened x^ = x + r, with c1 = x^ >> f and r1 = r >> f, both taken modulo 2^q:

    y = c1 - r1 + 2^q [r1 > c1]           = (c1 - r1) mod 2^q

lies in [0, 2^q) for *every* element of the field and every r: no range, no declared bound and no fitting mask is
needed for that.  Where 0 <= x < (2^q - 1) 2^f it is x / 2^f, rounded down or up by the coin x^, as in truncation.py.
The comparison's bit is opened as e = [r1 > c1] xor beta, beta the comparison's free bit; [bit] = e + beta - 2 e beta is
linear in the dealt beta.

Sources: those of comparison.py and truncation.py.  That the residue of a masked value is bounded by nothing but its
own width is ours: docs/protocols.md, "Bound".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from pydantic import Field

from mpc import field as fp
from mpc.at_once import shape
from mpc.comparison import Comparison
from mpc.gates.base import Correlation, Evaluation, Gate, Name, Opening, count, drawn_masks
from mpc.gates.compare import (
    Chunks,
    Comparing,
    compare,
    compared,
    comparison_correlations,
    deal_comparison,
    take_comparison,
    tell,
)
from mpc.gates.readings import ClearReading, DealReading, PartyReading
from mpc.shares import Share
from mpc.wires import Masking, Wires


@dataclass(frozen=True, repr=False)
class Prepared:
    """The output's mask less r1 (of a result that is left unopened: minus r1), beta, and the shares that compare."""

    masked: Share
    beta: Share
    comparing: Comparing

    __secret__ = True


class Bound(Gate):
    """y = x / 2^shift modulo 2^width, rounded by the public coin, always in [0, 2^width).

    Shapes:   x, out: S       Scale: out = x / 2^shift
    Deals:    r1, beta in F_p; K table words and the node's products
    Rounds:   3               Opens: leaf words, e, out (2, without out, if that is left unopened); at once no e, and a
              round less
    Error:    floor or floor + 1, unbiased, where 0 <= x < (2^width - 1) 2^shift (shift 0: exact, but for a wrap of
              probability x / 2^61, which adds one); outside it is some number of [0, 2^width)
    """

    kind: ClassVar[str] = "bound"
    later: ClassVar[tuple[str, ...]] = ("chunks", "at_once")
    x: Name
    out: Name
    width: int = Field(ge=1, le=48)
    shift: int = Field(ge=0, le=58)
    chunks: Chunks | None = None
    at_once: bool = False

    def check(self, wires: Wires) -> None:
        x, out = wires[self.x], wires[self.out]
        self.require_same_size(wires, self.x, self.out)
        if out.scale * (1 << self.shift) != x.scale:
            raise self.refuse("the output's scale is not the input's after the shift")
        if out.masking not in (Masking.DRAWN, Masking.UNOPENED):
            raise self.refuse("the output's mask is drawn, or it is not opened")
        if self.width + self.shift > fp.BITS or out.bits < self.width:
            raise self.refuse("the width does not fit the field above the shift, or the output's bound")
        _ = self.comparison  # refuses what cannot be

    @property
    def comparison(self) -> Comparison:
        """On `width` bits."""
        return shape(self.width, self.chunks, self.at_once)

    def openings(self, wires: Wires) -> tuple[tuple[Opening, ...], ...]:
        size, out = (count(wires[self.x]),), wires[self.out]
        leaf = Opening("leaf", size, width=self.comparison.leaf_width)
        rounds = compared(self.comparison, (leaf,), (Opening("e", size, width=1),))
        return rounds if self._is_unopened(wires) else (*rounds, (Opening("y", out.sizes),))

    def correlations(self, wires: Wires) -> tuple[Correlation, ...]:
        size = count(wires[self.x])
        dealt = [Correlation(name, (size,), dependent=True) for name in ("r1", "beta")]
        return (*drawn_masks(wires[self.out]), *dealt, *comparison_correlations(self.comparison, size))

    def reference(self, run: ClearReading) -> None:
        x, coin = run.value(self.x), run.coin(self.x).astype(np.int64)
        r = np.mod(coin - x, np.int64(fp.P))
        run.set(self.out, ((coin >> self.shift) - (r >> self.shift)) & np.int64((1 << self.width) - 1))

    def deal(self, run: DealReading) -> None:
        if not self._is_unopened(run.wires):
            run.draw_mask(self.out)
        r1 = self._residue(run.mask(self.x))
        run.dependent("r1", r1)
        (beta,) = deal_comparison(run, self.comparison, r1.reshape(1, -1))
        run.dependent("beta", beta.astype(np.uint64))

    def prepare(self, run: PartyReading) -> Prepared:
        size = (count(run.wire(self.out)),)
        mask = Share(fp.zeros(size)) if self._is_unopened(run.wires) else run.take_mask(self.out).reshape(size)
        return Prepared(mask - run.take("r1"), run.take("beta"), take_comparison(run, self.comparison))

    def evaluate(self, run: PartyReading, kept: Prepared) -> Evaluation:
        lane = run.lane
        c1 = self._residue(run.public(self.x))
        bits = yield from compare(lane, self.comparison, kept.comparing, (c1.reshape(1, -1),))
        (e,) = yield from tell(tuple(bits))
        over = lane.select_bit(e, kept.beta).times(1 << self.width)
        y = (lane.const(c1) + kept.masked + over).reshape(run.shape(self.out))
        if self._is_unopened(run.wires):
            run.set_share(self.out, y)
            return
        (opened,) = yield (y,)
        run.set(self.out, opened)

    def _residue(self, values: np.ndarray) -> np.ndarray:
        """The bits that are kept of field elements, in a row."""
        return (values.reshape(-1) >> np.uint64(self.shift)) & np.uint64((1 << self.width) - 1)

    def _is_unopened(self, wires: Wires) -> bool:
        return wires[self.out].masking is Masking.UNOPENED
