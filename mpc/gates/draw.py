"""Draw: noise that nobody knows, of a law that the plan fixes.

    N = sum_j 2^j (b_j - b'_j)            all bits independent, P[b_j = 1] = P[b'_j = 1] = T_j / 2^w

With T_j / 2^w = 1 / (1 + exp(eps 2^j / D)) the b_j are the binary digits of a geometric variable, and N, the difference
of two, has the discrete Laplace law P[N = k] ~ exp(-eps |k| / D).  A bit is [u < T] for a uniform word

    u = c - r mod 2^w       r dealt: nobody but the provider knows it;  c common: nobody but the parties knows it
    [u < T] = [r > (c - T) mod 2^w] xor [r > c] xor [c < T]

so u is uniform for the provider, which knows r, and for any n - 1 parties, which know c.  c and T are public among the
parties: both comparisons look up one dealt table of r, before inputs exist.  Each bit is opened as e = b xor beta, beta
the xor of both look-ups' free bits, and [b] = e + beta - 2 e beta is linear in the dealt beta.

Sources: the bits of a geometric variable are independent and are drawn like this by Dwork, Kenthapadi, McSherry,
Mironov and Naor 2006 (Our data, ourselves); the law is that of Ghosh, Roughgarden and Sundararajan 2009.  That u is the
difference of a dealt and a common word, so that a bit costs one table, is ours: docs/protocols.md, "Draw".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from mpc import field as fp
from mpc.comparison import Comparison
from mpc.gates.base import Correlation, Evaluation, Gate, Name, Opening, count
from mpc.gates.compare import Look, comparison_correlations, deal_comparison, resolved, take_comparison
from mpc.gates.readings import ClearReading, DealReading, PartyReading
from mpc.shares import BitShare, Share
from mpc.wires import Masking, Scale, Wire, Wires

WORD_BITS = 48
"""Bits that r and c have; thresholds are multiples of 2^-48 because of it."""
Threshold = Annotated[int, Field(ge=0, lt=1 << WORD_BITS)]
_LOOKS = ("moved:", "")
"""The look-ups at c - T and at c."""


@dataclass(frozen=True, repr=False)
class Prepared:
    """The leaf words of both look-ups, what resolves them, the betas, and the public [c < T]."""

    leaves: tuple[BitShare, ...]
    looks: tuple[Look, ...]
    beta: Share
    below: np.ndarray

    __secret__ = True


class Draw(Gate):
    """out = noise whose binary digits are one with probability thresholds[j] / 2^width; nothing is read.

    `epsilon` is what the plan's author claims to pay for one question; whoever guards data recomputes the thresholds
    from it (`mpc.privacy`), and nothing here depends on it.

    Shapes:   out: S, not opened              Scale: out: any, the noise is in its units
    Deals:    for each digit, of each sign: a table, two nodes, beta
    Rounds:   2               Opens: leaf words of both look-ups, e; nothing waits for inputs
    Error:    exact: a probability is a multiple of 2^-width
    """

    kind: ClassVar[str] = "draw"
    operands: ClassVar[tuple[str, ...]] = ()
    out: Name
    thresholds: tuple[Threshold, ...] = Field(min_length=1, max_length=58)
    epsilon: Scale
    width: int = Field(default=WORD_BITS, ge=1, le=WORD_BITS)

    def check(self, wires: Wires) -> None:
        out = wires[self.out]
        if out.masking is not Masking.UNOPENED:
            raise self.refuse("what it writes is not opened")
        if max(self.thresholds) >= 1 << self.width or out.bits < len(self.thresholds):
            raise self.refuse("a threshold does not fit its words, or the digits the output's bound")
        if self.epsilon <= 0:
            raise self.refuse("epsilon is not positive")

    @property
    def comparison(self) -> Comparison:
        """On whole words."""
        return Comparison(self.width)

    def digits(self, wire: Wire) -> int:
        """Count the bits that are drawn for a bound output: its elements' digits, of both signs."""
        return 2 * len(self.thresholds) * count(wire)

    def openings(self, wires: Wires) -> tuple[tuple[Opening, ...], ...]:
        shape, width = (self.digits(wires[self.out]),), self.comparison.leaf_width
        return (tuple(Opening(f"{look}leaf", shape, width=width) for look in _LOOKS), (Opening("e", shape, width=1),))

    def correlations(self, wires: Wires) -> tuple[Correlation, ...]:
        size = self.digits(wires[self.out])
        r, beta = Correlation("r", (size,), width=self.width, hidden=True), Correlation("beta", (size,), dependent=True)
        return (r, beta, *comparison_correlations(self.comparison, size, _LOOKS))

    def reference(self, run: ClearReading) -> None:
        size = (self.digits(run.wire(self.out)),)
        r, c = (run.words(self.name, name, size, self.width).astype(np.uint64) for name in ("r", "c"))
        bits = ((c - r) & self._low < self._levels(size[0])).reshape(2, len(self.thresholds), -1).astype(np.int64)
        noise = ((bits[0] - bits[1]) << np.arange(len(self.thresholds))[:, None]).sum(axis=0)
        run.set(self.out, noise.reshape(run.shape(self.out)))

    def deal(self, run: DealReading) -> None:
        r = run.uniform("r").astype(np.uint64).reshape(1, -1)
        moved, plain = deal_comparison(run, self.comparison, r, looks=_LOOKS)
        run.dependent("beta", (moved ^ plain).astype(np.uint64))

    def prepare(self, run: PartyReading) -> Prepared:
        size = self.digits(run.wire(self.out))
        c, levels = run.common("c", (size,), self.width).astype(np.uint64), self._levels(size)
        beta, dealt = run.take("beta"), take_comparison(run, self.comparison, _LOOKS)
        leaves = [
            run.lane.look_up(self.comparison, look.table, place.reshape(1, -1), look.mask)[0]
            for place, look in zip(((c - levels) & self._low, c), dealt.looks, strict=True)
        ]
        return Prepared(tuple(leaves), dealt.looks, beta, (c < levels).astype(np.uint8))

    def evaluate(self, run: PartyReading, kept: Prepared) -> Evaluation:
        lane, comparison = run.lane, self.comparison
        opened = yield kept.leaves
        moved, plain = (
            resolved(lane, comparison, leaf, look, public)
            for leaf, look, public in zip(opened, kept.looks, (kept.below, np.zeros_like(kept.below)), strict=True)
        )
        (e,) = yield (moved ^ plain,)
        bits = lane.select_bit(e, kept.beta).values.reshape(2, len(self.thresholds), -1)
        powers = np.uint64(1) << np.arange(len(self.thresholds), dtype=np.uint64)
        noise = fp.total(fp.mul(fp.sub(bits[0], bits[1]), powers[:, None]))
        run.set_share(self.out, Share(noise.reshape(run.shape(self.out))))

    @property
    def _low(self) -> np.uint64:
        return np.uint64((1 << self.width) - 1)

    def _levels(self, size: int) -> np.ndarray:
        """The threshold of each drawn bit, digit by digit, the second sign behind the first."""
        both = np.array(self.thresholds * 2, dtype=np.uint64)
        return np.repeat(both, size // both.size)
