"""ReLU fused with the truncation before it.

From the opened c = x + 2^k + r (see truncation.py; c1 = c >> f, r1 = r >> f, q = k - f) the
sign of the *rounded* y needs a comparison on q bits only:

    [y >= 0] = c1[q] xor r1[q] xor [r1 mod 2^q > c1 mod 2^q]

It is opened under a bit beta, e = [y >= 0] xor beta; beta is defined from the comparison's
free bit, sb = beta xor r1[q], so that neither costs a correction.  With C = c1 - 2^(k-f) and
W = pub 2^(61-f):

    relu(y) = e (C - r1 + W m) + (1 - 2e) (C beta - beta r1 + W beta m)

whose terms without C are folded offline with the next wire's mask.  m and beta m count only
where pub = 1, about one element in 2^(61-k-1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import Field

from mpc import kernels, truncation
from mpc.comparison import Comparison
from mpc.gates.base import Correlation, Evaluation, Gate, Name, Opening, Wires, count, drawn_mask
from mpc.gates.compare import comparison_correlations, deal_comparison, sign_bit
from mpc.shares import Share
from mpc.wires import Masking

if TYPE_CHECKING:
    from mpc.interpret.dealer import Dealer
    from mpc.interpret.party import Party
    from mpc.interpret.reference import Reference


class Relu(Gate):
    """y = max(0, trunc(x, shift)).

    Shapes:   x, out: S           Scale: out = x / 2^shift
    Deals:    r1, m, beta, beta r1, beta m in F_p; K table words and the node's products
    Rounds:   3               Opens: leaf words, e, out
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
        if out.masking is not Masking.DRAWN:
            raise self.refuse("the output's mask is drawn")
        if x.bits <= self.shift:
            raise self.refuse("the shift leaves no bits")
        self.comparison(wires)

    def comparison(self, wires: Wires) -> Comparison:
        """On q = k - shift bits."""
        return Comparison(wires[self.x].bits - self.shift)

    def openings(self, wires: Wires) -> tuple[tuple[Opening, ...], ...]:
        shape = (count(wires[self.x]),)
        leaf = Opening("leaf", shape, width=self.comparison(wires).leaf_width)
        return ((leaf,), (Opening("e", shape, width=1),), (Opening("y", wires[self.out].sizes),))

    def correlations(self, wires: Wires) -> tuple[Correlation, ...]:
        shape = (count(wires[self.x]),)
        values = [Correlation(name, shape, dependent=True) for name in ("r1", "m", "beta", "beta_r1", "beta_m")]
        return (drawn_mask(wires[self.out]), *comparison_correlations(self.comparison(wires), shape[0]), *values)

    def reference(self, run: Reference) -> None:
        run.require_room(self.x, self.shift)
        y = truncation.reference(run.value(self.x), run.coin(self.x), run.wire(self.x).bits, self.shift)
        run.set(self.out, np.maximum(y, 0))

    def deal(self, run: Dealer) -> None:
        run.draw_mask(self.out)
        r1, m = truncation.mask_parts(run.mask(self.x).reshape(-1), self.shift)
        comparison = self.comparison(run.wires)
        free = deal_comparison(run, comparison, r1)
        beta = (free ^ sign_bit(r1, comparison)).astype(np.uint64)
        run.dependent("r1", r1)
        run.dependent("m", m)
        run.dependent("beta", beta)
        run.dependent("beta_r1", beta * r1)
        run.dependent("beta_m", beta * m)

    def prepare(self, run: Party) -> None:
        mask = run.take_mask(self.out)
        r1, beta_r1 = run.take("r1").values, run.take("beta_r1").values
        when_negative, when_positive = np.empty_like(r1), np.empty_like(r1)
        kernels.relu_prepare(mask.values.reshape(-1), r1, beta_r1, when_negative, when_positive)
        run.kept.update(
            when_negative=when_negative,
            when_positive=when_positive,
            **{name: run.take_bits(name) for name in ("table", "leaf_mask", "node")},
            **{name: run.take(name).values for name in ("beta", "m", "beta_m")},
        )

    def evaluate(self, run: Party) -> Evaluation:
        kept, lane, bits = run.kept, run.lane, run.wire(self.x).bits
        comparison = self.comparison(run.wires)
        c = truncation.offset(run.public(self.x).reshape(-1), bits)
        c1 = c >> np.uint64(self.shift)
        (leaf,) = yield (lane.look_up(comparison, kept["table"], c1, kept["leaf_mask"]),)
        below = lane.resolve(comparison, leaf, kept["leaf_mask"], kept["node"])
        (e,) = yield (below ^ lane.const_bits(sign_bit(c1, comparison)),)
        y = np.empty_like(c)
        kernels.relu_mux(
            c,
            e,
            kept["beta"],
            kept["when_negative"],
            kept["when_positive"],
            kept["m"],
            kept["beta_m"],
            lane.one,
            bits,
            self.shift,
            y,
        )
        (opened,) = yield (Share(y.reshape(run.shape(self.out))),)
        run.set(self.out, opened)
