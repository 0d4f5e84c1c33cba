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
from mpc import truncation
from mpc.comparison import Comparison
from mpc.gates.base import Correlation, Evaluation, Gate, Name, Opening, count, drawn_masks
from mpc.gates.compare import Chunks, Comparing, comparison_correlations, deal_comparison, take_comparison
from mpc.gates.linear import Factor
from mpc.gates.readings import ClearReading, DealReading, PartyReading
from mpc.shares import BitShare, Share
from mpc.wires import MAX_BITS, Masking, Wires


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
    Rounds:   3               Opens: leaf words, e, out (2, without out, if that is left unopened)
    Error:    exact with shift 0; else a value less than 2^shift below a level may count as above it
    """

    kind: ClassVar[str] = "step"
    later: ClassVar[tuple[str, ...]] = ("chunks",)
    x: Name
    out: Name
    levels: tuple[Factor, ...] = Field(min_length=1, max_length=64)
    shift: int = Field(ge=0, le=57)
    chunks: Chunks | None = None

    def check(self, wires: Wires) -> None:
        x, out = wires[self.x], wires[self.out]
        if out.shape != (*x.shape, len(self.levels)):
            raise self.refuse("the output has one more axis than the input, of the levels")
        if out.masking not in (Masking.DRAWN, Masking.UNOPENED):
            raise self.refuse("the output's mask is drawn, or it is not opened")
        if self._bits(wires) > MAX_BITS or max(map(abs, self.levels)) >= 1 << x.bits:
            raise self.refuse("a level lies outside the input's bound, or that leaves no room")
        if self.shift >= self._bits(wires):
            raise self.refuse("the shift leaves no bits")
        self.comparison(wires)

    def _bits(self, wires: Wires) -> int:
        """The bound of x - level, with room for its rounding."""
        return wires[self.x].bits + (2 if any(self.levels) else 1)

    def comparison(self, wires: Wires) -> Comparison:
        """Return the comparison on the bits that are left of x - level."""
        return Comparison(self._bits(wires) - self.shift, self.chunks)

    @property
    def _looks(self) -> tuple[str, ...]:
        return tuple(f"{i}:" for i in range(len(self.levels)))

    def openings(self, wires: Wires) -> tuple[tuple[Opening, ...], ...]:
        shape, width = (count(wires[self.x]),), self.comparison(wires).leaf_width
        leaves = tuple(Opening(f"{look}leaf", shape, width=width) for look in self._looks)
        bits = Opening("e", (len(self.levels), *shape), width=1)
        out = wires[self.out]
        return (leaves, (bits,)) if self._is_unopened(wires) else (leaves, (bits,), (Opening("z", out.sizes),))

    def correlations(self, wires: Wires) -> tuple[Correlation, ...]:
        size = count(wires[self.x])
        beta = Correlation("beta", (len(self.levels), size), dependent=True)
        tables = comparison_correlations(self.comparison(wires), size, self._looks)
        return (*drawn_masks(wires[self.out]), beta, *tables)

    def reference(self, run: ClearReading) -> None:
        x, coin, bits = run.value(self.x), run.coin(self.x), self._bits(run.wires)
        rounded = [
            truncation.reference(x - level, truncation.moved(coin, -level), bits, self.shift) for level in self.levels
        ]
        run.set(self.out, (np.stack(rounded, axis=-1) >= 0).astype(np.int64))

    def deal(self, run: DealReading) -> None:
        if not self._is_unopened(run.wires):
            run.draw_mask(self.out)
        r1, _ = truncation.mask_parts(run.mask(self.x).reshape(1, -1), self.shift)
        beta = deal_comparison(run, self.comparison(run.wires), r1, looks=self._looks)
        run.dependent("beta", beta.astype(np.uint64))

    def prepare(self, run: PartyReading) -> Prepared:
        unopened = self._is_unopened(run.wires)
        mask = Share(fp.zeros(run.shape(self.out))) if unopened else run.take_mask(self.out)
        return Prepared(mask, run.take("beta"), take_comparison(run, self._looks))

    def evaluate(self, run: PartyReading, kept: Prepared) -> Evaluation:
        lane, comparison = run.lane, self.comparison(run.wires)
        table, looks = kept.comparing.table, kept.comparing.looks
        public = run.public(self.x).reshape(-1)
        leaves, signs = [], []
        for look, level in zip(looks, self.levels, strict=True):
            rounded = truncation.offset(fp.add_int(public, -level), self._bits(run.wires)) >> np.uint64(self.shift)
            leaf, sign = lane.look_up(comparison, table, rounded.reshape(1, -1), look.mask)
            leaves.append(leaf)
            signs.append(sign)
        opened = yield tuple(leaves)
        bits = [
            lane.resolve(comparison, leaf, look.mask, look.node, sign)
            for look, leaf, sign in zip(looks, opened, signs, strict=True)
        ]
        (e,) = yield (BitShare.stack(bits),)
        number = lane.select_bit(e, kept.beta).values  # (levels, elements)
        out = np.ascontiguousarray(number.T).reshape(run.shape(self.out))
        if self._is_unopened(run.wires):
            run.set_share(self.out, Share(out))
            return
        (z,) = yield (Share(out) + kept.mask,)
        run.set(self.out, z)

    def _is_unopened(self, wires: Wires) -> bool:
        return wires[self.out].masking is Masking.UNOPENED
