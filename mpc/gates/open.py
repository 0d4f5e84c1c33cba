"""Open: an unopened wire becomes a masked one.

    x^ = [x] + [a]        opened, a drawn

What lies between a gate whose result is left unopened and this one is a public linear map of
shares; so of the two ends of a linear layer the smaller one is opened, and a last layer's
result, which needs a mask of its own, is opened instead of what it is made of.
"""

from __future__ import annotations

from typing import ClassVar

from mpc.gates.base import Correlation, Evaluation, Gate, Name, Opening, drawn_mask
from mpc.gates.readings import ClearReading, DealReading, PartyReading
from mpc.shares import Share
from mpc.wires import Masking, Wires


class Open(Gate):
    """out = x.

    Shapes:   x, out: S       Scale: unchanged
    Deals:    the mask, from seeds: 0 bytes
    Rounds:   1               Opens: out
    Error:    exact
    """

    kind: ClassVar[str] = "open"
    x: Name
    out: Name

    def takes_shares(self, wires: Wires) -> bool:
        return True

    def check(self, wires: Wires) -> None:
        x, out = wires[self.x], wires[self.out]
        self.require_same_size(wires, self.x, self.out)
        if (x.scale, x.bits) != (out.scale, out.bits):
            raise self.refuse("the output's scale and bound are the input's")
        if x.masking is not Masking.UNOPENED or out.masking is not Masking.DRAWN:
            raise self.refuse("its input is not opened yet, and its output's mask is drawn")

    def openings(self, wires: Wires) -> tuple[tuple[Opening, ...], ...]:
        return ((Opening("x", wires[self.out].sizes),),)

    def correlations(self, wires: Wires) -> tuple[Correlation, ...]:
        return (drawn_mask(wires[self.out]),)

    def reference(self, run: ClearReading) -> None:
        run.set(self.out, run.value(self.x))

    def deal(self, run: DealReading) -> None:
        run.draw_mask(self.out)

    def prepare(self, run: PartyReading) -> Share:
        return run.take_mask(self.out)

    def evaluate(self, run: PartyReading, kept: Share) -> Evaluation:
        (opened,) = yield (run.share(self.x) + kept,)
        run.set(self.out, opened)
