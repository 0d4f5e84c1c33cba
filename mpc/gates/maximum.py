"""Maximum along the last axis: its value, its index, or both.

All pairs of the *rounded* values are compared at once, on the difference of two masks that
the provider knows (y = rounded x, as in truncation.py; modulo 2^(q+2) the wraps vanish):

    y_a - y_b = (c1_a - c1_b) - (r1_a - r1_b) mod 2^(q+2)         its top bit is the sign

so d_ij = [y_i wins against y_j], ties by index, is one table comparison on q + 1 bits, opened
under its beta.  Comparing rounded values, not rounded differences, keeps the order transitive:
exactly one i has  sel_i = AND_{j != i} d_ij.  The ANDs are trees of nodes of at most four
inputs (conjunction.py), one round a level.  The last level's bits are opened under gamma_i,
e_i = sel_i xor gamma_i, and

    max   = sum_i sel_i y_i            a selection by an opened bit, see selection.py, for every i
    index = sum_i i (e_i xor gamma_i)

Rounding is random, to one of two neighbours, so equal values may round apart.  Where a place is asked for and
something is rounded off, candidate i therefore counts as y_i - i (or y_i + i, where the last of equals wins): of
equal values the first wins for certain, and one that is larger by as many units as they are apart loses to nobody
before it.

Fused with a ReLU, zero is one more candidate (c1 - 2^(k-f) = r1 = 0), which every other has to
beat and which is never selected: max(0, y_1 .. y_n), in the same rounds.

Of two candidates and zero the AND may be left to the selection, which then reads dealt shares at the two opened bits
(*direct*): a round less, for more that is dealt.

Which was selected can be a wire, flipped: e_i and gamma_i, by which the derivative chooses again (select.py).

Sources: AND nodes of several inputs under masks as the multiplication gates of ABY2.0 (Patra, Schneider, Suresh,
Yalame 2021); the tables are those of comparison.py.  Comparing differences of rounded values, and the places of equal
ones, is ours: docs/protocols.md, "Maximum and pooling".
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations
from typing import ClassVar

import numpy as np
from pydantic import Field

from mpc import field as fp
from mpc import kernels, truncation
from mpc.at_once import shape
from mpc.comparison import Comparison
from mpc.conjunction import MONOMIALS, Nodes, tree_level
from mpc.gates.base import Correlation, Evaluation, Gate, Name, Opening, count, drawn_masks
from mpc.gates.compare import (
    Chunks,
    Coarse,
    Comparing,
    compare,
    compared,
    comparison_correlations,
    deal_comparison,
    take_comparison,
    tell,
)
from mpc.gates.readings import ClearReading, DealReading, PartyReading
from mpc.gates.selection import (
    choice_correlations,
    chosen_by,
    deal_choices,
    deal_selection,
    selection_correlations,
    take_choices,
    take_selection,
)
from mpc.shares import BitShare, Pairs, Selected, Share
from mpc.wires import Masking, Wires

MOST = 128


@dataclass(frozen=True, repr=False)
class Prepared:
    """One party's shares for a maximum.

    Args:
        masks: of each output; zeros of a value that is left unopened.
        levels: of each level of the AND trees the products of its nodes, and the bits under which their results are
            opened.
        gamma: under which the last bits are opened, (elements, rows); zeros if there are none such.
        selected: to choose the value by them, if it is asked for.
        choices: to choose it by two bits each, in place of all three.
    """

    masks: dict[str, Share]
    comparing: Comparing
    levels: tuple[tuple[BitShare, BitShare], ...]
    gamma: Share
    selected: Selected | None
    choices: tuple[Share, Share, Share] | None = None

    __secret__ = True


class Maximum(Gate):
    """value = max(trunc(x, shift)), or max(0, that) if `rectify`; index = its place; over the last axis.

    Coarse: the value is trunc(x, shift) of the first of those whose trunc(x, shift + coarse) is the largest.

    Shapes:   x (..., n); value, index (..., 1); bit (..., n)    Scale: value = x / 2^shift; index, bit = 1
    Deals:    a comparison a pair; an AND tree, gamma (and r1, m, gamma r1, gamma m) an element; direct: 12 for each
              candidate in place of those
    Rounds:   3 + levels of the tree  Opens: leaf words, pairs, the tree's bits, outputs (but a value left unopened);
              at once there are no pairs, and a round less
    Error:    the truncation's; ties go to the first index, or the last; needs |x| < 2^k - 2^shift, or n times as
              much room where there is an index and something is rounded off: up to n units decide nothing there;
              coarse: the value may be up to 2^(coarse + 1) below the largest, and room is of 2^(shift + coarse)
    """

    kind: ClassVar[str] = "maximum"
    results: ClassVar[tuple[str, ...]] = ("value", "index", "bit")
    later: ClassVar[tuple[str, ...]] = ("bit", "chunks", "coarse", "direct", "at_once")
    x: Name
    value: Name | None = None
    index: Name | None = None
    shift: int = Field(ge=0, le=58)
    last: bool = False
    rectify: bool = False
    bit: Name | None = None
    chunks: Chunks | None = None
    coarse: Coarse = 0
    direct: bool = False
    at_once: bool = False

    def check(self, wires: Wires) -> None:
        x = wires[self.x]
        if not self._results:
            raise self.refuse("it writes nothing")
        if self.bit is not None:
            bit = wires[self.bit]
            if bit.masking is not Masking.FLIPPED or bit.shape != x.shape or bit.scale != 1 or bit.holders or self.last:
                raise self.refuse("its bits are flipped, one of each candidate, nobody's, and of the first of equals")
        if not x.shape or not isinstance(x.shape[-1], int) or not 2 <= x.shape[-1] <= MOST:
            raise self.refuse(f"the last axis has to have 2 to {MOST} elements", remedy="a smaller last axis")
        if x.bits <= self.shift:
            raise self.refuse("the shift leaves no bits")
        if self.direct and (x.shape[-1] != 2 or not self.rectify or self.value is None or self.bit is not None):
            raise self.refuse("only a value of two candidates and zero is chosen directly")
        if self.coarse and (self.index is not None or self._dropped >= x.bits):
            raise self.refuse("its comparisons are coarse beside an index, or compare no bit")
        if self._apart and 1 << (x.bits - self.shift) <= x.shape[-1]:
            raise self.refuse("the shift leaves too few bits to tell so many candidates apart")
        for name in self._results:
            allowed = {Masking.DRAWN, Masking.UNOPENED} if name == self.value else {Masking.DRAWN}
            if wires[name].masking not in allowed or wires[name].shape != (*x.shape[:-1], 1):
                raise self.refuse(f"{name} is drawn, and has one element a row; only a value may be left unopened")
        if self.value is not None and wires[self.value].scale * (1 << self.shift) != x.scale:
            raise self.refuse("the value's scale is not the input's after the shift")
        if self.index is not None and (wires[self.index].scale != 1 or self.rectify):
            raise self.refuse("the index has scale 1, and there is none beside a ReLU")
        self.comparison(wires)

    def comparison(self, wires: Wires) -> Comparison:
        """Return the comparison on q + 1 bits, q = k - shift, less those that it passes over."""
        return shape(wires[self.x].bits - self._dropped + 1, self.chunks, self.at_once)

    @property
    def _dropped(self) -> int:
        """Bits of x that are not compared."""
        return self.shift + self.coarse

    @property
    def _results(self) -> tuple[str, ...]:
        """The wires that it writes and that have masks of their own."""
        return self._named(("value", "index"))

    @property
    def _apart(self) -> int:
        """Return how much more a candidate counts than the one before, in rounded units."""
        if self.index is None or not self.shift:
            return 0
        return 1 if self.last else -1

    def _sizes(self, wires: Wires) -> tuple[int, int]:
        """(elements a row, rows)."""
        n = wires[self.x].sizes[-1]
        return n, count(wires[self.x]) // n

    def _pairs(self, n: int) -> Pairs:
        return _pairs(n, self.rectify, self.last)

    def _levels(self, n: int) -> tuple[Nodes, ...]:
        return () if self.direct else _levels(n, self.rectify)

    def _twos(self, bits: np.ndarray, flipped: bool) -> np.ndarray:
        """Return the two bits by which each of two candidates wins, (2, 2, rows), of those of the pairs (3, rows)."""
        (nodes,) = _levels(2, True)
        flips = nodes.flips.T[:2, :, None] if flipped else np.uint8(0)
        return np.asarray(bits[nodes.places.T[:2]] ^ flips)

    def openings(self, wires: Wires) -> tuple[tuple[Opening, ...], ...]:
        n, rows = self._sizes(wires)
        pairs = (len(self._pairs(n)[0]) * rows,)
        comparison = self.comparison(wires)
        leaves = (Opening("leaf", pairs, width=comparison.leaf_width),)
        rounds = list(compared(comparison, leaves, (Opening("pairs", pairs, width=1),)))
        for level, nodes in enumerate(self._levels(n)):
            rounds.append((Opening(f"and{level}", (len(nodes.places), rows), width=1),))
        if opened := self._opened(wires):
            rounds.append(tuple(Opening(name, wires[name].sizes) for name in opened))
        return tuple(rounds)

    def _opened(self, wires: Wires) -> tuple[str, ...]:
        return tuple(name for name in self._results if wires[name].masking is not Masking.UNOPENED)

    def correlations(self, wires: Wires) -> tuple[Correlation, ...]:
        n, rows = self._sizes(wires)
        pairs = len(self._pairs(n)[0]) * rows
        specs = list(drawn_masks(*(wires[name] for name in self._results)))
        specs += comparison_correlations(self.comparison(wires), pairs)
        for level, nodes in enumerate(self._levels(n)):
            sizes = (len(nodes.places), rows)
            planes = nodes.planes(rows)
            specs.append(Correlation(f"node{level}", sizes, width=MONOMIALS, dependent=True, planes=planes))
            specs.append(Correlation(f"fresh{level}", sizes, width=1))
        if self.direct:
            return (*specs, *choice_correlations((n, rows)))
        if self.value is None:
            return (*specs, Correlation("gamma", (n, rows), dependent=True))
        return (*specs, *selection_correlations("gamma", (n, rows)))

    def reference(self, run: ClearReading) -> None:
        bits, n = run.wire(self.x).bits, run.shape(self.x)[-1]
        run.require_room(self.x, self._dropped, n if self._apart else 1)
        x, coin = run.value(self.x), run.coin(self.x)
        y, judged = (truncation.reference(x, coin, bits, shift) for shift in (self.shift, self._dropped))
        counted = judged + self._apart * np.arange(n)
        best = n - 1 - counted[..., ::-1].argmax(axis=-1) if self.last else counted.argmax(axis=-1)
        if self.value is not None:
            top, found = (np.take_along_axis(each, best[..., None], axis=-1) for each in (y, judged))
            wins = found > 0 if self.last else found >= 0  # zero is the last candidate
            run.set(self.value, np.where(wins, top, 0) if self.rectify else top)
        if self.index is not None:
            run.set(self.index, best[..., None])
        if self.bit is not None:
            chosen = (np.arange(n) == best[..., None]) & ((judged >= 0) | (not self.rectify))
            run.set(self.bit, chosen.astype(np.int64))

    def deal(self, run: DealReading) -> None:
        for name in self._opened(run.wires):
            run.draw_mask(name)
        n, rows = self._sizes(run.wires)
        r = np.ascontiguousarray(run.mask(self.x)).reshape(rows, n)
        r1 = np.ascontiguousarray(r.T) >> np.uint64(self._dropped)
        beta = deal_comparison(run, self.comparison(run.wires), r1, self._pairs(n))
        bits = beta.reshape(-1, rows)
        if self.direct:
            deal_choices(run, self._twos(bits, flipped=False), r, self.shift)
            return
        for level, nodes in enumerate(self._levels(n)):
            kernels.deal_and_nodes(bits, nodes.places, run.others(f"node{level}"))
            bits = run.uniform(f"fresh{level}")
        if not self._levels(n):  # one pair is all there is
            bits = np.repeat(bits, n, axis=0)
        if self.bit is not None:
            run.derive_mask(self.bit, bits.T.astype(np.uint64).reshape(run.shape(self.bit)))
        if self.value is None:
            run.dependent("gamma", bits.astype(np.uint64))
        else:
            deal_selection(run, "gamma", bits, r, self.shift)

    def prepare(self, run: PartyReading) -> Prepared:
        n, _ = self._sizes(run.wires)
        opened = self._opened(run.wires)
        masks = {
            name: run.take_mask(name) if name in opened else Share(fp.zeros(run.shape(name))) for name in self._results
        }
        comparing = take_comparison(run, self.comparison(run.wires))
        if self.direct:
            return Prepared(masks, comparing, (), Share(fp.zeros((n, 1))), None, take_choices(run))
        levels = tuple(
            (run.take_bits(f"node{level}"), run.take_bits(f"fresh{level}")) for level in range(len(self._levels(n)))
        )
        selected = None if self.value is None else take_selection(run, "gamma")
        gamma = run.take("gamma") if selected is None else Share(selected.bit)
        if self.bit is not None:
            run.set_mask(self.bit, gamma.transpose((1, 0)).reshape(run.shape(self.bit)))
        return Prepared(masks, comparing, levels, gamma, selected)

    def evaluate(self, run: PartyReading, kept: Prepared) -> Evaluation:
        lane, comparison = run.lane, self.comparison(run.wires)
        n, rows = self._sizes(run.wires)
        bits = run.wire(self.x).bits
        zero = 1 << (bits - self._dropped)  # taken off, so that zero's is 0; modulo 2^64 is modulo 2^(q+2) as well
        c, c1 = truncation.opened(run.public(self.x).reshape(rows, n), bits, self._dropped, zero)
        if self._apart:
            c1 += (self._apart * np.arange(n)).astype(np.uint64)[:, None]
        wins = yield from compare(lane, comparison, kept.comparing, (c1,), self._pairs(n), (int(not self.last),))
        (opened,) = yield from tell(tuple(wins))
        for nodes, (node, fresh) in zip(self._levels(n), kept.levels, strict=True):
            won = opened.reshape(-1, rows)
            (opened,) = yield (lane.conjunction(nodes, won, node, fresh),)
        e = self._bits(kept, opened, n, rows)
        if self.bit is not None:
            run.set(self.bit, np.ascontiguousarray(e.T).astype(np.uint64).reshape(run.shape(self.bit)))
        if kept.choices is not None:
            kept = replace(kept, selected=chosen_by(self._twos(opened.reshape(-1, rows), flipped=True), kept.choices))
        shares = {name: self._output(run, kept, name, c, e) for name in self._results}
        names = self._opened(run.wires)
        for name in shares.keys() - set(names):
            run.set_share(name, shares[name])
        if names:
            results = yield tuple(shares[name] for name in names)
            for name, value in zip(names, results, strict=True):
                run.set(name, value)

    def _bits(self, kept: Prepared, opened: np.ndarray, n: int, rows: int) -> np.ndarray:
        """Return each candidate's opened bit, (n, rows); zeros if two bits each choose."""
        if kept.choices is not None:
            return np.zeros((n, rows), dtype=np.uint8)
        return opened.reshape(n, rows) if self._levels(n) else np.stack([opened, opened ^ np.uint8(1)])

    def _output(self, run: PartyReading, kept: Prepared, name: str, c: np.ndarray, e: np.ndarray) -> Share:
        """The share of one output, under its mask."""
        mask = kept.masks[name]
        if name == self.index or kept.selected is None:
            places = np.arange(len(e), dtype=np.uint64)[:, None]
            terms = run.lane.select_bit(e, kept.gamma).times(np.broadcast_to(places, e.shape))
            return terms.sum_first().reshape(run.shape(name)) + mask
        value = run.lane.select(c, e, kept.selected, run.wire(self.x).bits, self.shift, mask)
        return value.reshape(run.shape(name))


@cache
def _pairs(n: int, rectify: bool, last: bool) -> Pairs:
    """(a, b) of every pair i < j: i wins unless y_a - y_b is negative; for `last`, if it is.  -1 is zero."""
    i, j = np.triu_indices(n + rectify, 1)
    j[j == n] = -1
    return (j, i) if last else (i, j)


@cache
def _levels(n: int, rectify: bool) -> tuple[Nodes, ...]:
    """The AND trees of all candidates side by side: first over the pairs, then over the nodes before.

    A pair's bit says that its first wins: for the second it is the complement that counts.
    """
    candidates = n + rectify
    number = {pair: place for place, pair in enumerate(combinations(range(candidates), 2))}
    others = [[j for j in range(candidates) if j != i] for i in range(n)]
    inputs = [[number[min(i, j), max(i, j)] for j in others[i]] for i in range(n)]
    if candidates == 2:
        return ()
    levels = [tree_level(inputs, [[int(j < i) for j in others[i]] for i in range(n)])]
    while (width := len(levels[-1].places) // n) > 1:
        inputs = [[i * width + k for k in range(width)] for i in range(n)]
        levels.append(tree_level(inputs, [[0] * width] * n))
    return tuple(levels)
