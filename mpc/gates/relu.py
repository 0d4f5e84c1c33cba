"""ReLU fused with the truncation before it.

From the opened c = x + 2^k + r (see truncation.py; c1 = c >> f, r1 = r >> f, q = k - f) the
sign of the *rounded* y needs a comparison on q bits only:

    [y >= 0] = c1[q] xor r1[q] xor [r1 mod 2^q > c1 mod 2^q]

It is opened under a bit beta, e = [y >= 0] xor beta; beta is defined from the comparison's
free bit, sb = beta xor r1[q], so that neither costs a correction.  What remains is a selection
by an opened bit, see selection.py.

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
from mpc.comparison import Comparison
from mpc.gates.base import Correlation, Evaluation, Gate, Name, Opening, count, drawn_masks
from mpc.gates.compare import Comparing, comparison_correlations, deal_comparison, take_comparison
from mpc.gates.readings import ClearReading, DealReading, PartyReading
from mpc.gates.selection import deal_selection, selection_correlations, take_selection
from mpc.shares import Selected, Share
from mpc.wires import Masking, Wires


@dataclass(frozen=True, repr=False)
class Prepared:
    """The output's mask (zeros, of a result that is left unopened), and the shares that compare and choose."""

    mask: Share
    selected: Selected
    comparing: Comparing

    __secret__ = True


class Relu(Gate):
    """y = max(0, trunc(x, shift)).

    Shapes:   x, out: S           Scale: out = x / 2^shift
    Deals:    r1, m, beta, beta r1, beta m in F_p; K table words and the node's products
    Rounds:   3               Opens: leaf words, e, out (2, without out, if that is left unopened)
    Error:    the truncation's: floor or floor + 1; needs |x| < 2^k - 2^shift
    """

    kind: ClassVar[str] = "relu"
    x: Name
    out: Name
    shift: int = Field(ge=0, le=58)

    def check(self, wires: Wires) -> None:
        x, out = wires[self.x], wires[self.out]
        self.require_same_size(wires, self.x, self.out)
        if out.scale * (1 << self.shift) != x.scale:
            raise self.refuse("the output's scale is not the input's after the shift")
        if out.masking not in (Masking.DRAWN, Masking.UNOPENED):
            raise self.refuse("the output's mask is drawn, or it is not opened")
        if x.bits <= self.shift:
            raise self.refuse("the shift leaves no bits")
        self.comparison(wires)

    def comparison(self, wires: Wires) -> Comparison:
        """Return the comparison on q = k - shift bits."""
        return Comparison(wires[self.x].bits - self.shift)

    def openings(self, wires: Wires) -> tuple[tuple[Opening, ...], ...]:
        shape = (count(wires[self.x]),)
        leaf = Opening("leaf", shape, width=self.comparison(wires).leaf_width)
        compared: tuple[tuple[Opening, ...], ...] = ((leaf,), (Opening("e", shape, width=1),))
        out = wires[self.out]
        return compared if out.masking is Masking.UNOPENED else (*compared, (Opening("y", out.sizes),))

    def correlations(self, wires: Wires) -> tuple[Correlation, ...]:
        size = count(wires[self.x])
        compared = comparison_correlations(self.comparison(wires), size)
        return (*drawn_masks(wires[self.out]), *compared, *selection_correlations("beta", (1, size)))

    def reference(self, run: ClearReading) -> None:
        run.require_room(self.x, self.shift)
        y = truncation.reference(run.value(self.x), run.coin(self.x), run.wire(self.x).bits, self.shift)
        run.set(self.out, np.maximum(y, 0))

    def deal(self, run: DealReading) -> None:
        if not self._is_unopened(run.wires):
            run.draw_mask(self.out)
        r = run.mask(self.x).reshape(-1, 1)
        r1, _ = truncation.mask_parts(r.T, self.shift)
        beta = deal_comparison(run, self.comparison(run.wires), r1)
        deal_selection(run, "beta", beta, r, self.shift)

    def prepare(self, run: PartyReading) -> Prepared:
        size = count(run.wire(self.out))
        mask = Share(fp.zeros((size,))) if self._is_unopened(run.wires) else run.take_mask(self.out)
        return Prepared(mask, take_selection(run, "beta"), take_comparison(run))

    def evaluate(self, run: PartyReading, kept: Prepared) -> Evaluation:
        lane, bits, comparison = run.lane, run.wire(self.x).bits, self.comparison(run.wires)
        table, (look,) = kept.comparing.table, kept.comparing.looks
        c, c1 = truncation.opened(run.public(self.x).reshape(-1, 1), bits, self.shift)
        looked_up, sign = lane.look_up(comparison, table, c1, look.mask)
        (leaf,) = yield (looked_up,)
        (e,) = yield (lane.resolve(comparison, leaf, look.mask, look.node, sign),)
        y = lane.select(c, e.reshape(1, -1), kept.selected, bits, self.shift, kept.mask)
        y = y.reshape(run.shape(self.out))
        if self._is_unopened(run.wires):
            run.set_share(self.out, y)
            return
        (opened,) = yield (y,)
        run.set(self.out, opened)

    def _is_unopened(self, wires: Wires) -> bool:
        return wires[self.out].masking is Masking.UNOPENED
