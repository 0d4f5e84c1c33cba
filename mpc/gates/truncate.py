"""Truncate: fewer fractional bits, or (shift 0) only a fresh mask.

    [y] = c1 - [r1] + pub 2^(61-f) [m] - 2^(k-f)       local once c is public; see truncation.py

opened again under a drawn mask.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import Field

from mpc import field as fp
from mpc import truncation
from mpc.gates.base import Correlation, Evaluation, Gate, Name, Opening, Wires, drawn_mask
from mpc.wires import Masking

if TYPE_CHECKING:
    from mpc.interpret.dealer import Dealer
    from mpc.interpret.party import Party
    from mpc.interpret.reference import Reference


class Truncate(Gate):
    """y = x / 2^shift, rounded down or up by the public coin.

    Shapes:   x, out: S       Scale: out = x / 2^shift
    Deals:    r1, m: 16 bytes an element
    Rounds:   1               Opens: out
    Error:    floor or floor + 1, unbiased; needs |x| < 2^k
    """

    kind: ClassVar[str] = "truncate"
    x: Name
    out: Name
    shift: int = Field(ge=0, le=58)

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.x,)

    @property
    def writes(self) -> tuple[str, ...]:
        return (self.out,)

    def check(self, wires: Wires) -> None:
        x, out = wires[self.x], wires[self.out]
        self.require_same_size(wires, self.x, self.out)
        if out.scale * (1 << self.shift) != x.scale or x.bits <= self.shift:
            raise self.refuse("the output's scale is not the input's after the shift")
        if out.masking is not Masking.DRAWN:
            raise self.refuse("the output's mask is drawn")

    def openings(self, wires: Wires) -> tuple[tuple[Opening, ...], ...]:
        return ((Opening("y", wires[self.out].sizes),),)

    def correlations(self, wires: Wires) -> tuple[Correlation, ...]:
        shape = wires[self.out].sizes
        dealt = [Correlation(name, shape, dependent=True) for name in ("r1", "m")]
        return (drawn_mask(wires[self.out]), *dealt)

    def reference(self, run: Reference) -> None:
        run.set(self.out, truncation.reference(run.value(self.x), run.coin(self.x), run.wire(self.x).bits, self.shift))

    def deal(self, run: Dealer) -> None:
        run.draw_mask(self.out)
        r1, m = truncation.mask_parts(run.mask(self.x), self.shift)
        run.dependent("r1", r1)
        run.dependent("m", m)

    def prepare(self, run: Party) -> None:
        run.kept.update(masked=run.take_mask(self.out) - run.take("r1"), m=run.take("m"))

    def evaluate(self, run: Party) -> Evaluation:
        bits = run.wire(self.x).bits
        c = truncation.offset(run.public(self.x), bits)
        centred = fp.add_int(c >> np.uint64(self.shift), -(1 << (bits - self.shift)))
        pub = (c < np.uint64(1 << (bits + 1))).astype(np.uint64)
        wrap = run.kept["m"].times(pub).times(1 << (fp.BITS - self.shift))
        (opened,) = yield (run.lane.const(centred) + run.kept["masked"] + wrap,)
        run.set(self.out, opened)
