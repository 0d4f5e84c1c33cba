"""Truncate: fewer fractional bits, or (shift 0) exactly the same value under a fresh mask.

    [y] = c1 - [r1] + pub 2^(61-f) [m] - 2^(k-f)       local once c is public; see truncation.py

opened again under a drawn mask, or left unopened for public linear maps.  With f = 0 nothing is rounded and
c - r = x modulo p needs no wrap: m is not dealt.

Sources: opening x + 2^k + r and taking off a dealt r >> f is the probabilistic truncation of Catrina and Saxena 2010
(Secure computation with fixed-point numbers), which hides x with spare bits.  Here r is uniform over the whole field;
that m and pub give the wrap exactly is ours: docs/protocols.md, "Truncation", has the proof.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from pydantic import Field

from mpc import field as fp
from mpc import truncation
from mpc.gates.base import Correlation, Evaluation, Gate, Name, Opening, drawn_masks
from mpc.gates.readings import ClearReading, DealReading, PartyReading
from mpc.shares import Share
from mpc.wires import Masking, Wires


@dataclass(frozen=True, repr=False)
class Prepared:
    """[a] - [r1] (of a result that is left unopened: minus [r1]), and [m], dealt only if something is rounded off."""

    masked: Share
    m: Share | None

    __secret__ = True


class Truncate(Gate):
    """y = x / 2^shift, rounded down or up by the public coin.

    Shapes:   x, out: S       Scale: out = x / 2^shift
    Deals:    r1, m: 16 bytes an element (shift 0: 8)
    Rounds:   1               Opens: out (0, nothing, if that is left unopened)
    Error:    floor or floor + 1, unbiased (shift 0: exact); needs |x| < 2^k
    """

    kind: ClassVar[str] = "truncate"
    x: Name
    out: Name
    shift: int = Field(ge=0, le=58)

    def check(self, wires: Wires) -> None:
        x, out = wires[self.x], wires[self.out]
        self.require_same_size(wires, self.x, self.out)
        if out.scale * (1 << self.shift) != x.scale or x.bits <= self.shift:
            raise self.refuse("the output's scale is not the input's after the shift")
        if out.masking not in (Masking.DRAWN, Masking.UNOPENED):
            raise self.refuse("the output's mask is drawn, or it is not opened")

    def openings(self, wires: Wires) -> tuple[tuple[Opening, ...], ...]:
        out = wires[self.out]
        return () if self._is_unopened(wires) else ((Opening("y", out.sizes),),)

    def correlations(self, wires: Wires) -> tuple[Correlation, ...]:
        shape = wires[self.out].sizes
        dealt = [Correlation(name, shape, dependent=True) for name in self._dealt]
        return (*drawn_masks(wires[self.out]), *dealt)

    @property
    def _dealt(self) -> tuple[str, ...]:
        return ("r1", "m") if self.shift else ("r1",)

    def reference(self, run: ClearReading) -> None:
        x = run.value(self.x)
        rounded = truncation.reference(x, run.coin(self.x), run.wire(self.x).bits, self.shift)
        run.set(self.out, rounded if self.shift else x)

    def deal(self, run: DealReading) -> None:
        if not self._is_unopened(run.wires):
            run.draw_mask(self.out)
        r1, m = truncation.mask_parts(run.mask(self.x), self.shift)
        run.dependent("r1", r1)
        if self.shift:
            run.dependent("m", m)

    def prepare(self, run: PartyReading) -> Prepared:
        mask = Share(fp.zeros(run.shape(self.out))) if self._is_unopened(run.wires) else run.take_mask(self.out)
        masked = mask - run.take("r1")
        return Prepared(masked, run.take("m") if self.shift else None)

    def evaluate(self, run: PartyReading, kept: Prepared) -> Evaluation:
        bits = run.wire(self.x).bits
        c = truncation.offset(run.public(self.x), bits)
        centred = fp.add_int(c >> np.uint64(self.shift), -(1 << (bits - self.shift)))
        y = run.lane.const(centred) + kept.masked
        if kept.m is not None:
            pub = (c < np.uint64(1 << (bits + 1))).astype(np.uint64)
            y = y + kept.m.times(pub).times(1 << (fp.BITS - self.shift))
        if self._is_unopened(run.wires):
            run.set_share(self.out, y)
            return
        (opened,) = yield (y,)
        run.set(self.out, opened)

    def _is_unopened(self, wires: Wires) -> bool:
        return wires[self.out].masking is Masking.UNOPENED
