"""Select: a truncated value times a secret bit that a comparison before has opened; nothing is compared again.

A ReLU or a maximum leaves its decision d as a flipped wire: e = d xor beta is public, beta is shared.  So of another
value x, opened as c = x + 2^k + r (C = c1 - 2^(k-f), r1 = r >> f, W = pub 2^(61-f), see truncation.py),

    d y = e (C - r1 + W m) + (1 - 2e) (C beta - beta r1 + W beta m)        y = x / 2^f, rounded

with the beta that is there.  That is how derivatives pass a ReLU and a maximum, and it takes the truncation that stands
there anyway.  One bit may serve several selections: e is opened once, and each result has a mask of its own.

Sources: the selection is that of relu.py; reading the bit a second time is ours: docs/protocols.md, "Select".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from pydantic import Field

from mpc import truncation
from mpc.gates.base import Correlation, Evaluation, Gate, Name, Opening, count, drawn_mask
from mpc.gates.readings import ClearReading, DealReading, PartyReading
from mpc.shares import Selected, Share
from mpc.wires import Masking, Wires


@dataclass(frozen=True, repr=False)
class Prepared:
    """The output's mask and the shares that choose, all of the output's size."""

    mask: Share
    selected: Selected

    __secret__ = True


class Select(Gate):
    """out = bit trunc(x, shift).

    Shapes:   bit, out: S; x: S, or S with 1 for the last axis      Scale: out = x / 2^shift
    Deals:    r1, m of x; beta r1, beta m of each bit: 32 bytes an element
    Rounds:   1               Opens: out
    Error:    the truncation's: floor or floor + 1 (shift 0: exact); needs |x| < 2^k
    """

    kind: ClassVar[str] = "select"
    operands: ClassVar[tuple[str, ...]] = ("x", "bit")
    x: Name
    bit: Name
    out: Name
    shift: int = Field(ge=0, le=58)

    @property
    def chooses_by(self) -> tuple[str, ...]:
        return (self.bit,)

    def check(self, wires: Wires) -> None:
        x, out = wires[self.x], wires[self.out]
        self.require_same_size(wires, self.bit, self.out)
        if self.x == self.bit:
            raise self.refuse("it chooses by a bit, and the bit itself is no number")
        if x.shape != out.shape and (not out.shape or x.shape != (*out.shape[:-1], 1)):
            raise self.refuse(f"{x.shape} is not the shape of {out.shape}, and no column of it")
        if out.scale * (1 << self.shift) != x.scale or x.bits <= self.shift:
            raise self.refuse("the output's scale is not the input's after the shift")
        if out.masking is not Masking.DRAWN:
            raise self.refuse("the output's mask is drawn")

    def openings(self, wires: Wires) -> tuple[tuple[Opening, ...], ...]:
        return ((Opening("y", wires[self.out].sizes),),)

    def correlations(self, wires: Wires) -> tuple[Correlation, ...]:
        sizes = {"r1": count(wires[self.x]), "m": count(wires[self.x])}
        sizes |= {"beta_r1": count(wires[self.out]), "beta_m": count(wires[self.out])}
        dealt = [Correlation(name, (size,), dependent=True) for name, size in sizes.items()]
        return (drawn_mask(wires[self.out]), *dealt)

    def _times(self, wires: Wires) -> int:
        """Return how often each element of x is chosen or not."""
        return count(wires[self.out]) // count(wires[self.x])

    def reference(self, run: ClearReading) -> None:
        y = truncation.reference(run.value(self.x), run.coin(self.x), run.wire(self.x).bits, self.shift)
        run.set(self.out, run.value(self.bit) * (y if self.shift else run.value(self.x)))

    def deal(self, run: DealReading) -> None:
        run.draw_mask(self.out)
        r1, m = truncation.mask_parts(run.mask(self.x).reshape(-1), self.shift)
        m = m if self.shift else np.zeros_like(m)
        beta, times = run.mask(self.bit).reshape(-1), self._times(run.wires)
        run.dependent("r1", r1)
        run.dependent("m", m)
        run.dependent("beta_r1", beta * np.repeat(r1, times))
        run.dependent("beta_m", beta * np.repeat(m, times))

    def prepare(self, run: PartyReading) -> Prepared:
        times = self._times(run.wires)
        beta = run.mask_share(self.bit).values.reshape(1, -1)
        r1, m = (np.repeat(run.take(name).values, times).reshape(1, -1) for name in ("r1", "m"))
        beta_r1, beta_m = (run.take(name).values.reshape(1, -1) for name in ("beta_r1", "beta_m"))
        return Prepared(run.take_mask(self.out), Selected(beta, r1, m, beta_r1, beta_m))

    def evaluate(self, run: PartyReading, kept: Prepared) -> Evaluation:
        bits = run.wire(self.x).bits
        c, _ = truncation.opened(run.public(self.x).reshape(-1, 1), bits, self.shift)
        e = run.public(self.bit).astype(np.uint8).reshape(1, -1)
        chosen = np.repeat(c, self._times(run.wires), axis=1)
        y = run.lane.select(chosen, e, kept.selected, bits, self.shift, kept.mask)
        (opened,) = yield (y.reshape(run.shape(self.out)),)
        run.set(self.out, opened)
