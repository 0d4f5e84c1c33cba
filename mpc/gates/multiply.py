"""Multiply: two secret wires, element by element; see bilinear.py for the masks."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from mpc import field as fp
from mpc.gates.base import Evaluation, Name, Wires
from mpc.gates.bilinear import Bilinear

if TYPE_CHECKING:
    from mpc.interpret.dealer import Dealer
    from mpc.interpret.party import Party
    from mpc.interpret.reference import Reference


class Multiply(Bilinear):
    """z = x y; y's last axis may be 1.

    Shapes:   x, out: S; y: S or (..., 1)         Scale: out = x y
    Deals:    derived mask: nothing; drawn mask: ax ay, 8 bytes an element
    Rounds:   1               Opens: out
    Error:    exact; needs |z| < 2^59
    """

    kind: ClassVar[str] = "multiply"
    operands: ClassVar[tuple[str, ...]] = ("x", "y")
    x: Name
    y: Name

    def check(self, wires: Wires) -> None:
        super().check(wires)
        x, y = wires[self.x], wires[self.y]
        self.require_same_size(wires, self.x, self.out)
        if y.shape != x.shape and (not x.shape or y.shape != (*x.shape[:-1], 1)):
            raise self.refuse(f"{y.shape} does not broadcast to {x.shape}")

    def reference(self, run: Reference) -> None:
        run.set(self.out, run.value(self.x) * run.value(self.y))

    def deal(self, run: Dealer) -> None:
        self.deal_product(run, fp.mul(run.mask(self.x), run.mask(self.y)))

    def prepare(self, run: Party) -> None:
        run.kept["masked"] = self.take_masked(run)

    def evaluate(self, run: Party) -> Evaluation:
        x, y = run.public(self.x), np.broadcast_to(run.public(self.y), run.shape(self.x))
        crossed = run.mask_share(self.y).broadcast_to(x.shape).times(x) + run.mask_share(self.x).times(y)
        (opened,) = yield (run.lane.const(fp.mul(x, y)) - crossed + run.kept["masked"],)
        run.set(self.out, opened)
