"""What the bilinear gates share: where their output's mask comes from.

    [x y] + [r] = x^ y^ [1] - x^ [ay] - [ax] y^ + [s]      with   r := s - ax ay

(Beaver 1991 with the masks placed by the plan.)  s is uniform, expanded from seeds; the
provider knows the *derived* mask r and deals whatever the next gate needs of it; no product is
dealt.  Where the parties themselves must hold shares of the output's mask - it feeds another
bilinear gate, or its sub-seeds go to a recipient - r is *drawn* instead and the product ax ay
is dealt, 8 bytes an element.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from mpc import field as fp
from mpc.gates.base import Correlation, Gate, Name, Opening, Wires, drawn_mask
from mpc.shares import Share
from mpc.wires import Masking

if TYPE_CHECKING:
    from mpc.interpret.dealer import Dealer
    from mpc.interpret.party import Party


class Bilinear(Gate):
    """Base: one round, which opens `out`."""

    needs_masks: ClassVar[bool] = True
    out: Name

    def check(self, wires: Wires) -> None:
        x, y = (wires[name] for name in self.reads[:2])
        if wires[self.out].scale != x.scale * y.scale:
            raise self.refuse("the output's scale is not the product of its operands'")
        if wires[self.out].masking is Masking.INHERITED:
            raise self.refuse("the output's mask is derived or drawn")

    def openings(self, wires: Wires) -> tuple[tuple[Opening, ...], ...]:
        return ((Opening("z", wires[self.out].sizes),),)

    def correlations(self, wires: Wires) -> tuple[Correlation, ...]:
        out = wires[self.out]
        if out.masking is Masking.DERIVED:
            return (Correlation("s", out.sizes),)
        return (drawn_mask(out), Correlation("product", out.sizes, dependent=True))

    def deal_product(self, run: Dealer, product: np.ndarray) -> None:
        """Given ax ay in the clear: define the output's mask, or draw it and deal the product."""
        if run.wire(self.out).masking is Masking.DERIVED:
            run.derive_mask(self.out, fp.sub(run.uniform("s"), product))
        else:
            run.draw_mask(self.out)
            run.dependent("product", product)

    def take_masked(self, run: Party) -> Share:
        """[s], or [ax ay] + [r]: what a party adds to its share before it opens."""
        if run.wire(self.out).masking is Masking.DERIVED:
            return run.take("s")
        return run.take("product") + run.take_mask(self.out)
