"""Step: is a value at least a public level?  The bit, as a number.

On rounded values (y = rounded x - level, as in truncation.py; C = c1 - 2^(k-f)):

    [y >= 0] = c1[q] xor r1[q] xor [r1 mod 2^q > c1 mod 2^q]

is opened under a bit beta as in relu.py; [bit] = e + beta - 2 e beta is linear in the dealt
beta, and is opened under the next wire's mask, or left unopened where only linear maps read it.
Several levels look up several positions of one dealt table; each opened bit has a mask of its own.

Sources: those of comparison.py.  That several levels share one table is ours: docs/protocols.md, "Step".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from pydantic import Field

from mpc import field as fp
from mpc.at_once import shape
from mpc.comparison import Comparison
from mpc.gates.base import Correlation, Evaluation, Gate, Name, Opening, count, drawn_masks
from mpc.gates.compare import Bits, Chunks, Comparing, compared, comparison_correlations, take_comparison, tell
from mpc.gates.levels import above, above_in_the_clear, compared_bits, deal_levels, looks_of, require_levels
from mpc.gates.linear import Factor
from mpc.gates.readings import ClearReading, DealReading, PartyReading
from mpc.shares import BitShare, Share
from mpc.wires import Masking, Wires


@dataclass(frozen=True, repr=False)
class Prepared:
    """The output's mask (zeros, of a result that is left unopened), the betas (levels, elements), what compares."""

    mask: Share
    beta: Share
    comparing: Comparing

    __secret__ = True


class Step(Gate):
    """out[.., i] = [trunc(x - levels[i], shift) >= 0], 0 or 1.

    Shapes:   x: S, out: S + (levels)      Scale: out: any (a bit divided by it)
    Deals:    one table; a node and beta for each level
    Rounds:   3               Opens: leaf words, e, out (2, without out, if that is left unopened); at once no e, and a
              round less
    Error:    exact with shift 0; else a value less than 2^shift below a level may count as above it
    """

    kind: ClassVar[str] = "step"
    later: ClassVar[tuple[str, ...]] = ("chunks", "at_once")
    x: Name
    out: Name
    levels: tuple[Factor, ...] = Field(min_length=1, max_length=64)
    shift: int = Field(ge=0, le=57)
    chunks: Chunks | None = None
    at_once: bool = False

    def check(self, wires: Wires) -> None:
        x, out = wires[self.x], wires[self.out]
        if out.shape != (*x.shape, len(self.levels)):
            raise self.refuse("the output has one more axis than the input, of the levels")
        if out.masking not in (Masking.DRAWN, Masking.UNOPENED):
            raise self.refuse("the output's mask is drawn, or it is not opened")
        require_levels(self, x, self.levels, self.shift)
        self.comparison(wires)

    def comparison(self, wires: Wires) -> Comparison:
        """Return the comparison on the bits that are left of x - level."""
        return shape(compared_bits(wires[self.x], self.levels) - self.shift, self.chunks, self.at_once)

    @property
    def _looks(self) -> tuple[str, ...]:
        return looks_of(self.levels)

    def openings(self, wires: Wires) -> tuple[tuple[Opening, ...], ...]:
        size, comparison = (count(wires[self.x]),), self.comparison(wires)
        leaves = tuple(Opening(f"{look}leaf", size, width=comparison.leaf_width) for look in self._looks)
        rounds = compared(comparison, leaves, (Opening("e", (len(self.levels), *size), width=1),))
        return rounds if self._is_unopened(wires) else (*rounds, (Opening("z", wires[self.out].sizes),))

    def correlations(self, wires: Wires) -> tuple[Correlation, ...]:
        size = count(wires[self.x])
        beta = Correlation("beta", (len(self.levels), size), dependent=True)
        tables = comparison_correlations(self.comparison(wires), size, self._looks)
        return (*drawn_masks(wires[self.out]), beta, *tables)

    def reference(self, run: ClearReading) -> None:
        run.set(self.out, np.stack(above_in_the_clear(run, self.x, self.levels, self.shift), axis=-1))

    def deal(self, run: DealReading) -> None:
        if not self._is_unopened(run.wires):
            run.draw_mask(self.out)
        beta = deal_levels(run, self.x, self.comparison(run.wires), self.levels, self.shift)
        run.dependent("beta", beta.astype(np.uint64))

    def prepare(self, run: PartyReading) -> Prepared:
        unopened = self._is_unopened(run.wires)
        mask = Share(fp.zeros(run.shape(self.out))) if unopened else run.take_mask(self.out)
        return Prepared(mask, run.take("beta"), take_comparison(run, self.comparison(run.wires), self._looks))

    def evaluate(self, run: PartyReading, kept: Prepared) -> Evaluation:
        comparison = self.comparison(run.wires)
        bits = yield from above(run, self.x, comparison, self.levels, self.shift, kept.comparing)
        (e,) = yield from tell((self._stacked(bits),))
        number = run.lane.select_bit(e, kept.beta).values  # (levels, elements)
        out = np.ascontiguousarray(number.T).reshape(run.shape(self.out))
        if self._is_unopened(run.wires):
            run.set_share(self.out, Share(out))
            return
        (z,) = yield (Share(out) + kept.mask,)
        run.set(self.out, z)

    def _stacked(self, bits: list[Bits]) -> Bits:
        return BitShare.stack(bits) if isinstance(bits[0], BitShare) else np.stack(bits)

    def _is_unopened(self, wires: Wires) -> bool:
        return wires[self.out].masking is Masking.UNOPENED
