"""One-hot: which of a few whole numbers a value is, as that many bits, of a value whose mask the provider knows.

From x^ = x + r, both taken modulo 2^q,

    [x = i] = T[(x^ - i) mod 2^q]          T[j] = [r mod 2^q = j], dealt as shares

so each party reads its share of a bit where the public x^ says, and nothing is opened.  For every element of the field
the bits are 0 or 1, and at most one of them is 1.

Source: the reading of a shared table that is turned by the mask is that of comparison.py, of one bit in place of a
thermometer; docs/protocols.md, "One-hot".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from pydantic import Field

from mpc import field as fp
from mpc.gates.base import Correlation, Evaluation, Gate, Name, Opening, count, drawn_masks
from mpc.gates.readings import ClearReading, DealReading, PartyReading
from mpc.shares import Share
from mpc.wires import Masking, Wires

MOST_CLASSES = 256


@dataclass(frozen=True, repr=False)
class Prepared:
    """The output's mask (zeros, of a result that is left unopened), and the table (elements, 2^q)."""

    mask: Share
    table: Share

    __secret__ = True


class OneHot(Gate):
    """out[.., i] = [x = i] for i below `number`.

    Shapes:   x: S, out: S + (number)      Scale: out: any (a bit divided by it)
    Deals:    a table of 2^q elements for each of x, 2^q the power of two at or above `number`
    Rounds:   1               Opens: out (0 and nothing, if that is left unopened)
    Error:    exact for 0 <= x < 2^q, but for a wrap of probability x / 2^61, which reads the place of x + 1
    """

    kind: ClassVar[str] = "onehot"
    x: Name
    out: Name
    number: int = Field(ge=2, le=MOST_CLASSES)

    def check(self, wires: Wires) -> None:
        x, out = wires[self.x], wires[self.out]
        if out.shape != (*x.shape, self.number):
            raise self.refuse("the output has one more axis than the input, of the numbers that it can be")
        if x.scale != 1:
            raise self.refuse("its input holds whole numbers")
        if out.masking not in (Masking.DRAWN, Masking.UNOPENED):
            raise self.refuse("the output's mask is drawn, or it is not opened")

    @property
    def width(self) -> int:
        """Bits of x that are read, q."""
        return (self.number - 1).bit_length()

    def openings(self, wires: Wires) -> tuple[tuple[Opening, ...], ...]:
        return () if self._is_unopened(wires) else ((Opening("y", wires[self.out].sizes),),)

    def correlations(self, wires: Wires) -> tuple[Correlation, ...]:
        table = Correlation("table", (count(wires[self.x]), 1 << self.width), dependent=True)
        return (*drawn_masks(wires[self.out]), table)

    def reference(self, run: ClearReading) -> None:
        x, coin = run.value(self.x), run.coin(self.x).astype(np.int64)
        low = self._low(coin - np.mod(coin - x, np.int64(fp.P)))
        run.set(self.out, (low[..., None] == np.arange(self.number)).astype(np.int64))

    def deal(self, run: DealReading) -> None:
        if not self._is_unopened(run.wires):
            run.draw_mask(self.out)
        low = self._low(run.mask(self.x).reshape(-1).astype(np.int64))
        run.dependent("table", (low[:, None] == np.arange(1 << self.width)).astype(np.uint64))

    def prepare(self, run: PartyReading) -> Prepared:
        unopened = self._is_unopened(run.wires)
        mask = Share(fp.zeros(run.shape(self.out))) if unopened else run.take_mask(self.out)
        return Prepared(mask, run.take("table"))

    def evaluate(self, run: PartyReading, kept: Prepared) -> Evaluation:
        public = run.public(self.x).reshape(-1).astype(np.int64)
        places = self._low(public[:, None] - np.arange(self.number))
        found = np.take_along_axis(kept.table.values, places, axis=1)
        y = Share(found.reshape(run.shape(self.out)))
        if self._is_unopened(run.wires):
            run.set_share(self.out, y)
            return
        (opened,) = yield (y + kept.mask,)
        run.set(self.out, opened)

    def _low(self, values: np.ndarray) -> np.ndarray:
        return values & np.int64((1 << self.width) - 1)

    def _is_unopened(self, wires: Wires) -> bool:
        return wires[self.out].masking is Masking.UNOPENED
