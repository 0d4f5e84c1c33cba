"""Pieces: a function that is one thing here and another there, as a sum of truncated values times opened bits.

    y = sum_i d_i trunc(x_i, f_i)

Each d_i is a flipped wire, e_i = d_i xor beta_i (between.py, relu.py), and each term the selection of select.py, with
r1 and m of that x_i's own mask.  The sum is opened once.  Where a bit says that x lies where a series holds, and
another that it lies where the function is a line, that is the function, rounded to the scale that the next gate
multiplies at: no truncation follows, and a series needs to be dealt for once, not once more beneath each bit.

Sources: the selection is that of relu.py; docs/protocols.md, "Pieces".
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

_DEALT = ("r1", "m", "beta_r1", "beta_m")


@dataclass(frozen=True, repr=False)
class Prepared:
    """The output's mask, and of each term the shares that choose."""

    mask: Share
    selected: tuple[Selected, ...]

    __secret__ = True


class Pieces(Gate):
    """out = the sum of bits[i] trunc(xs[i], shifts[i]).

    Shapes:   xs, bits, out: S      Scale: out = xs[i] / 2^shifts[i]
    Deals:    r1, m, beta r1, beta m of each term: 32 bytes an element
    Rounds:   1               Opens: out
    Error:    the truncations': floor or floor + 1; needs |xs[i]| < 2^k
    """

    kind: ClassVar[str] = "pieces"
    operands: ClassVar[tuple[str, ...]] = ("xs", "bits")
    xs: tuple[Name, ...] = Field(min_length=1, max_length=16)
    bits: tuple[Name, ...]
    shifts: tuple[int, ...]
    out: Name

    @property
    def chooses_by(self) -> tuple[str, ...]:
        return self.bits

    def check(self, wires: Wires) -> None:
        out = wires[self.out]
        self.require_same_size(wires, *self.xs, *self.bits, self.out)
        if not len(self.xs) == len(self.bits) == len(self.shifts):
            raise self.refuse("a bit and a shift for each value")
        if set(self.xs) & set(self.bits):
            raise self.refuse("it chooses by a bit, and the bit itself is no number")
        for name, shift in zip(self.xs, self.shifts, strict=True):
            x = wires[name]
            if not 1 <= shift < x.bits or out.scale * (1 << shift) != x.scale:
                raise self.refuse("the output's scale is not each value's after its shift")
        if out.masking is not Masking.DRAWN:
            raise self.refuse("the output's mask is drawn")

    def openings(self, wires: Wires) -> tuple[tuple[Opening, ...], ...]:
        return ((Opening("y", wires[self.out].sizes),),)

    def correlations(self, wires: Wires) -> tuple[Correlation, ...]:
        shape = (len(self.xs), count(wires[self.out]))
        return (drawn_mask(wires[self.out]), *(Correlation(name, shape, dependent=True) for name in _DEALT))

    def reference(self, run: ClearReading) -> None:
        total = np.zeros(run.shape(self.out), dtype=np.int64)
        for name, bit, shift in zip(self.xs, self.bits, self.shifts, strict=True):
            y = truncation.reference(run.value(name), run.coin(name), run.wire(name).bits, shift)
            total += run.value(bit) * y
        run.set(self.out, total)

    def deal(self, run: DealReading) -> None:
        run.draw_mask(self.out)
        parts = [
            truncation.mask_parts(run.mask(name).reshape(-1), shift)
            for name, shift in zip(self.xs, self.shifts, strict=True)
        ]
        r1, m = (np.stack(part) for part in zip(*parts, strict=True))
        beta = np.stack([run.mask(bit).reshape(-1) for bit in self.bits])
        for name, plain in zip(_DEALT, (r1, m, beta * r1, beta * m), strict=True):
            run.dependent(name, plain)

    def prepare(self, run: PartyReading) -> Prepared:
        dealt = [run.take(name).values for name in _DEALT]
        selected = []
        for place, bit in enumerate(self.bits):
            r1, m, beta_r1, beta_m = (values[place : place + 1] for values in dealt)
            beta = run.mask_share(bit).values.reshape(1, -1)
            selected.append(Selected(beta, r1, m, beta_r1, beta_m))
        return Prepared(run.take_mask(self.out), tuple(selected))

    def evaluate(self, run: PartyReading, kept: Prepared) -> Evaluation:
        y = kept.mask
        for name, bit, shift, selected in zip(self.xs, self.bits, self.shifts, kept.selected, strict=True):
            bits = run.wire(name).bits
            c, _ = truncation.opened(run.public(name).reshape(-1, 1), bits, shift)
            e = run.public(bit).astype(np.uint8).reshape(1, -1)
            y = run.lane.select(c, e, selected, bits, shift, y)
        (opened,) = yield (y.reshape(run.shape(self.out)),)
        run.set(self.out, opened)
