"""A function as a Fourier series, evaluated on the opened masked wire: no extra round.

With the wire at a scale where one period is exactly 2^n units, c = x + r gives x = c - r
modulo 2^n up to one unit (p = -1 mod 2^n), and

    cos j(c - r) = cos jc cos jr + sin jc sin jr      sin j(c - r) = sin jc cos jr - cos jc sin jr

so F(x) = a0 + sum_j A_j cos jx + B_j sin jx is a linear combination, with coefficients that
are public once c is, of 2J dealt values cos jr, sin jr.

Outside [low, high) the series means nothing; where the compiler cannot exclude that, the
function is clamped to `below` and `above`:  with the bits  over = [x >= high],
out = over xor [x < low], compared on rounded values by two look-ups in one dealt table (by one, and without the other
bit, where no value lies beyond the other end),

    z = (1 - out) F(x) + over `above` + (out - over) `below`

and [(1 - out) cos jr] is a choice, by the opened bit out xor beta, between dealt shares of
beta cos jr and of the rest.  All public factors are integers from a table whose digest is in
the plan; the dealt waves, functions of masks, are computed without one (kernels/series.py).

A rounded coefficient is off by as much for every x, which is a bias, and a small one is lost.  With `fine`,
coefficients have so many bits more, rounded off after turning by c, up or down by a dither that is a hash of c: then
what is off has mean zero, however small the coefficient is.

Sources: the construction is ours, from the addition theorems above; docs/protocols.md, "Series", has the error and how
series are fitted.  The comparisons of the clamp are those of comparison.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from mpc import field as fp
from mpc import kernels, tables, truncation
from mpc.at_once import shape
from mpc.comparison import Comparison
from mpc.gates.base import Correlation, Evaluation, Gate, Name, Opening, count, drawn_mask, drawn_masks
from mpc.gates.compare import (
    Chunks,
    Comparing,
    compare,
    compared,
    comparison_correlations,
    deal_comparison,
    take_comparison,
    tell,
)
from mpc.gates.readings import ClearReading, DealReading, PartyReading
from mpc.kernels import waves as plain_waves
from mpc.shares import Share
from mpc.wires import MAX_BITS, Frozen, Masking, Wires

_OVER, _UNDER = "over_", "under_"
_AT_ONCE = 1 << 13
"""Elements of which numpy computes a series in the clear at one time: their words stay in a core's cache."""
COMPILED_FROM, COMPILED_AT_ONCE = 1 << 20, 1 << 16
"""Elements times terms from which on compiled loops are worth loading, and elements that they take at one time."""
Coefficient = Annotated[int, Field(gt=-(1 << 31), lt=1 << 31)]
Level = Annotated[int, Field(gt=-(1 << 58), lt=1 << 58)]


class Clamp(Frozen):
    """Where the series holds, in units of the input wire, and what stands outside it.

    Args:
        low, high: the interval [low, high); None, of one of them, where no value lies beyond it.
        below, above: the values outside, in units of the output wire.
        shift: bits that the comparisons drop.
    """

    low: Level | None
    high: Level | None
    below: Level
    above: Level
    shift: int = Field(ge=0, le=57)

    @property
    def levels(self) -> dict[str, int]:
        """The level of each look-up, by its name."""
        ends = {_OVER: self.high, _UNDER: self.low}
        return {look: level for look, level in ends.items() if level is not None}

    @property
    def looks(self) -> tuple[str, ...]:
        """The names of its look-ups."""
        return tuple(self.levels)


@dataclass(frozen=True, repr=False)
class Clamped:
    """Shares for a clamp: the waves times beta, the betas of its bits (of one, if it has one end), the tables."""

    beta_waves: Share
    beta_over: Share | None
    beta_out: Share
    comparing: Comparing

    __secret__ = True


@dataclass(frozen=True, repr=False)
class Prepared:
    """The output's mask (zeros, of a result that is left unopened), the dealt waves (2J, elements), and what a clamp
    needs."""

    mask: Share
    waves: Share
    clamped: Clamped | None

    __secret__ = True


class Fourier(Gate):
    """z = constant + sum_j (cosines[j] cos(2 pi j x / 2^window) + sines[j] sin(...)) / 2^fine.

    Shapes:   x, out: S           Scale: x: 2^window units a period; out: any
    Deals:    2J elements; clamped: 4J + 2 elements, one table, two nodes (at one end: 4J + 1, one node)
    Rounds:   1 (3 if clamped)    Opens: (leaf words, bits: one an end,) out (0 and nothing, if that is left unopened:
              no clamp); at once no bits, and a round less
    Error:    that of the series, plus J units of its integer tables
    """

    kind: ClassVar[str] = "fourier"
    later: ClassVar[tuple[str, ...]] = ("fine", "chunks", "at_once")
    x: Name
    out: Name
    window: int = Field(ge=8, le=tables.MOST_WINDOW)
    constant: Level
    cosines: tuple[Coefficient, ...] = Field(min_length=1, max_length=256)
    sines: tuple[Coefficient, ...]
    dealt_bits: int = Field(ge=4, le=tables.UNIT_BITS)
    table: str
    clamp: Clamp | None = None
    fine: int = Field(default=0, ge=0, le=20)
    chunks: Chunks | None = None
    at_once: bool = False

    @property
    def terms(self) -> int:
        """J."""
        return len(self.cosines)

    def check(self, wires: Wires) -> None:
        self.require_same_size(wires, self.x, self.out)
        if len(self.sines) != self.terms:
            raise self.refuse("as many sines as cosines")
        if self.table != tables.sincos_digest():
            raise self.refuse(
                "the plan was made with another table of sines than this process has",
                remedy="run the same version of mpc everywhere",
            )
        if wires[self.out].masking is not Masking.DRAWN and not self._is_unopened(wires):
            raise self.refuse("the output's mask is drawn, or, of a series without clamp, it is not opened")
        coefficients = (sum(map(abs, self.cosines + self.sines)) >> self.fine) + 2 * self.terms * bool(self.fine)
        size = abs(self.constant) + (coefficients * 2 << self.dealt_bits)
        if size >= 1 << (MAX_BITS + 1):
            raise self.refuse("the coefficients do not fit the field")
        if self.clamp is None and self.chunks is not None:
            raise self.refuse("without a clamp it compares nothing")
        if self.clamp is not None:
            ends = [end for end in (self.clamp.low, self.clamp.high) if end is not None]
            if not ends or ends != sorted({*ends}) or wires[self.x].bits + 2 > MAX_BITS:
                raise self.refuse("the clamp does not fit the input's bound")
            if max(map(abs, ends)) >= 1 << wires[self.x].bits:
                raise self.refuse("the clamp lies outside the input's bound")
            if self.clamp.shift > wires[self.x].bits + 1:
                raise self.refuse("the clamp's shift leaves no bits")
            self.comparison(wires)

    def comparison(self, wires: Wires) -> Comparison:
        """Return the comparison of x - threshold, whose bound is two bits above x's."""
        if self.clamp is None:
            raise self.refuse("not clamped")
        return shape(wires[self.x].bits + 2 - self.clamp.shift, self.chunks, self.at_once)

    def openings(self, wires: Wires) -> tuple[tuple[Opening, ...], ...]:
        if self._is_unopened(wires):
            return ()
        out = (Opening("z", wires[self.out].sizes),)
        if self.clamp is None:
            return (out,)
        size, comparison = (count(wires[self.x]),), self.comparison(wires)
        looks = self.clamp.looks
        leaves = tuple(Opening(f"{look}leaf", size, width=comparison.leaf_width) for look in looks)
        bits = tuple(Opening(name, size, width=1) for name in ("over", "out")[-len(looks) :])
        return (*compared(comparison, leaves, bits), out)

    def correlations(self, wires: Wires) -> tuple[Correlation, ...]:
        size = count(wires[self.x])
        waves = Correlation("waves", (2 * self.terms, size), dependent=True)
        if self.clamp is None:
            return (*drawn_masks(wires[self.out]), waves)
        mask = drawn_mask(wires[self.out])
        masked_waves = Correlation("beta_waves", waves.shape, dependent=True)
        looks = self.clamp.looks
        betas = [Correlation(name, (size,), dependent=True) for name in ("beta_over", "beta_out")[-len(looks) :]]
        return (mask, waves, masked_waves, *betas, *comparison_correlations(self.comparison(wires), size, looks))

    def _coefficients(self) -> tuple[np.ndarray, np.ndarray]:
        return np.array(self.cosines, dtype=np.int64), np.array(self.sines, dtype=np.int64)

    def reference(self, run: ClearReading) -> None:
        x, coin, shape = run.value(self.x).reshape(-1), run.coin(self.x).reshape(-1), run.shape(self.out)
        z = np.empty(x.shape, dtype=np.int64)
        compiled = x.size * self.terms >= COMPILED_FROM
        series, at_once = (self._compiled, COMPILED_AT_ONCE) if compiled else (self._series, _AT_ONCE)
        for start in range(0, x.size, at_once):
            part = slice(start, start + at_once)
            z[part] = series(x[part], coin[part])
        if self.clamp is not None:
            bits = run.wire(self.x).bits + 2
            reached = {
                look: truncation.reference(x - level, truncation.moved(coin, -level), bits, self.clamp.shift) >= 0
                for look, level in self.clamp.levels.items()
            }
            z = np.where(reached.get(_UNDER, True), z, self.clamp.below)
            z = np.where(reached.get(_OVER, False), self.clamp.above, z)
        run.set(self.out, z.reshape(shape))

    def _series(self, x: np.ndarray, coin: np.ndarray) -> np.ndarray:
        """Return the series, without its clamp, of values that are opened as `coin`."""
        drop = tables.UNIT_BITS - self.dealt_bits
        dealt = plain_waves.harmonics(truncation.moved(coin, -x), self.window, self.terms, drop)
        factors = plain_waves.turned_coefficients(coin, self.window, *self._coefficients(), self.fine, tables.sincos())
        return np.asarray(np.int64(self.constant) + (factors * dealt).sum(axis=0))

    def _compiled(self, x: np.ndarray, coin: np.ndarray) -> np.ndarray:
        """Return the same, by the loops of provider and parties."""
        r, drop = truncation.moved(coin, -x), tables.UNIT_BITS - self.dealt_bits
        waves, none = np.zeros((2 * self.terms, r.size), dtype=np.uint64), np.empty((0, r.size), dtype=np.uint64)
        z, flips = np.full(r.shape, self.constant % fp.P, dtype=np.uint64), np.zeros(r.shape, dtype=np.uint8)
        kernels.deal_waves(r, self.window, self.terms, drop, np.zeros_like(r), waves, none)
        coefficients = (*self._coefficients(), self.fine, tables.sincos())
        kernels.add_series(np.ascontiguousarray(coin), self.window, *coefficients, flips, waves, none, z)
        return fp.to_signed(z)

    def deal(self, run: DealReading) -> None:
        if not self._is_unopened(run.wires):
            run.draw_mask(self.out)
        r = np.ascontiguousarray(run.mask(self.x)).reshape(-1)
        if self.clamp is None:
            self._deal_waves(run, r, np.zeros_like(r), np.empty((0, r.size), dtype=np.uint64))
            return
        r1, _ = truncation.mask_parts(r.reshape(1, -1), self.clamp.shift)
        found = deal_comparison(run, self.comparison(run.wires), r1, looks=self.clamp.looks)
        beta_out = np.bitwise_xor.reduce(found, axis=0).astype(np.uint64)
        if len(found) > 1:
            run.dependent("beta_over", found[0].astype(np.uint64))
        run.dependent("beta_out", beta_out)
        self._deal_waves(run, r, beta_out, run.others("beta_waves"))

    def _deal_waves(self, run: DealReading, r: np.ndarray, beta: np.ndarray, chosen: np.ndarray) -> None:
        drop = tables.UNIT_BITS - self.dealt_bits
        kernels.deal_waves(r, self.window, self.terms, drop, beta, run.others("waves"), chosen)

    def prepare(self, run: PartyReading) -> Prepared:
        unopened = self._is_unopened(run.wires)
        mask = Share(fp.zeros(run.shape(self.out))) if unopened else run.take_mask(self.out)
        waves = run.take("waves")
        if self.clamp is None:
            return Prepared(mask, waves, None)
        masked = run.take("beta_waves")
        looks = self.clamp.looks
        betas = run.take("beta_over") if len(looks) > 1 else None, run.take("beta_out")
        return Prepared(mask, waves, Clamped(masked, *betas, take_comparison(run, self.comparison(run.wires), looks)))

    def evaluate(self, run: PartyReading, kept: Prepared) -> Evaluation:
        lane, clamped = run.lane, kept.clamped
        c = run.public(self.x).reshape(-1)
        if clamped is None or self.clamp is None:
            inside, rest = lane.const(np.ones_like(c)), None
            flipped, chosen = np.zeros(c.shape, dtype=np.uint8), np.empty((0, c.size), dtype=np.uint64)
        else:
            places, comparison = self._places(run, self.clamp, c), self.comparison(run.wires)
            flips = [int(look == _UNDER) for look in self.clamp.looks]
            found = yield from compare(lane, comparison, clamped.comparing, places, flips=flips)
            *over, out = yield from tell((found[0], found[0] ^ found[1]) if len(found) > 1 else tuple(found))
            beyond = lane.select_bit(out, clamped.beta_out)
            inside = lane.const(np.ones_like(c)) - beyond
            flipped, chosen = out, clamped.beta_waves.values
            if clamped.beta_over is None:
                rest = beyond.times(self.clamp.below if self.clamp.high is None else self.clamp.above)
            else:
                above = lane.select_bit(over[0], clamped.beta_over)
                rest = above.times(self.clamp.above) + (beyond - above).times(self.clamp.below)
        z = inside.times(self.constant).values
        coefficients = (*self._coefficients(), self.fine, tables.sincos())
        kernels.add_series(c, self.window, *coefficients, flipped, kept.waves.values, chosen, z)
        total = Share(z) if rest is None else Share(z) + rest
        if self._is_unopened(run.wires):
            run.set_share(self.out, total.reshape(run.shape(self.out)))
            return
        (public,) = yield ((total.reshape(run.shape(self.out)) + kept.mask),)
        run.set(self.out, public)

    def _is_unopened(self, wires: Wires) -> bool:
        return self.clamp is None and wires[self.out].masking is Masking.UNOPENED

    def _places(self, run: PartyReading, clamp: Clamp, c: np.ndarray) -> list[np.ndarray]:
        """Return where to look up whether x is above the interval, and whether it is not below, if it can be."""
        bits = run.wire(self.x).bits + 2
        rounded = (truncation.offset(fp.add_int(c, -level), bits) for level in clamp.levels.values())
        return [(each >> np.uint64(clamp.shift)).reshape(1, -1) for each in rounded]
