"""Multiply: two secret wires, element by element.

    [z] + [r] = x^ y^ [1] - x^ [ay] - [ax] y^ + [s]       r := s - ax ay     (derived)

or, where the parties need shares of r, drawn, with the product ax ay dealt; as in affine.py
(Beaver 1991 with the masks placed by the plan).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from mpc import field as fp
from mpc.gates.base import Correlation, Evaluation, Gate, Name, Opening, Wires, drawn_mask
from mpc.wires import Masking

if TYPE_CHECKING:
    from mpc.interpret.dealer import Dealer
    from mpc.interpret.party import Party
    from mpc.interpret.reference import Reference


class Multiply(Gate):
    """z = x y; y's last axis may be 1.

    Shapes:   x, out: S; y: S or (..., 1)         Scale: out = x y
    Deals:    derived mask: nothing; drawn mask: ax ay, 8 bytes an element
    Rounds:   1               Opens: out
    Error:    exact; needs |z| < 2^59
    """

    kind: ClassVar[str] = "multiply"
    needs_masks: ClassVar[bool] = True
    x: Name
    y: Name
    out: Name

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.x, self.y)

    @property
    def writes(self) -> tuple[str, ...]:
        return (self.out,)

    def check(self, wires: Wires) -> None:
        x, y, out = wires[self.x], wires[self.y], wires[self.out]
        self.require_same_size(wires, self.x, self.out)
        if y.shape != x.shape and (not x.shape or y.shape != (*x.shape[:-1], 1)):
            raise self.refuse(f"{y.shape} does not broadcast to {x.shape}")
        if out.scale != x.scale * y.scale:
            raise self.refuse("the output's scale is not the product of its operands'")
        if out.masking is Masking.INHERITED:
            raise self.refuse("the output's mask is derived or drawn")

    def openings(self, wires: Wires) -> tuple[tuple[Opening, ...], ...]:
        return ((Opening("z", wires[self.out].sizes),),)

    def correlations(self, wires: Wires) -> tuple[Correlation, ...]:
        out = wires[self.out]
        if out.masking is Masking.DERIVED:
            return (Correlation("s", out.sizes),)
        return (drawn_mask(out), Correlation("product", out.sizes, dependent=True))

    def reference(self, run: Reference) -> None:
        run.set(self.out, run.value(self.x) * run.value(self.y))

    def deal(self, run: Dealer) -> None:
        product = fp.mul(run.mask(self.x), run.mask(self.y))
        if run.wire(self.out).masking is Masking.DERIVED:
            run.derive_mask(self.out, fp.sub(run.uniform("s"), product))
        else:
            run.draw_mask(self.out)
            run.dependent("product", product)

    def prepare(self, run: Party) -> None:
        if run.wire(self.out).masking is Masking.DERIVED:
            run.kept["masked"] = run.take("s")
        else:
            run.kept["masked"] = run.take("product") + run.take_mask(self.out)

    def evaluate(self, run: Party) -> Evaluation:
        x, y = run.public(self.x), np.broadcast_to(run.public(self.y), run.shape(self.x))
        crossed = run.mask_share(self.y).broadcast_to(x.shape).times(x) + run.mask_share(self.x).times(y)
        (opened,) = yield (run.lane.const(fp.mul(x, y)) - crossed + run.kept["masked"],)
        run.set(self.out, opened)
