"""Maximum along the last axis: its value, its index, or both.

All pairs of the *rounded* values are compared at once, on the difference of two masks that
the provider knows (y = rounded x, as in truncation.py; modulo 2^(q+2) the wraps vanish):

    y_a - y_b = (c1_a - c1_b) - (r1_a - r1_b) mod 2^(q+2)         its top bit is the sign

so d_ij = [y_i wins against y_j], ties by index, is one table comparison on q + 1 bits, opened
under its beta.  Comparing rounded values, not rounded differences, keeps the order transitive:
exactly one i has  sel_i = AND_{j != i} d_ij.  The ANDs are trees of nodes of at most four
inputs: bits opened under masks select among dealt monomials of the masks, one round a level.
The last level's bits are opened under gamma_i, e_i = sel_i xor gamma_i, and

    max   = sum_i e_i (C_i - r1_i + W m_i) + (1 - 2 e_i)(C_i gamma_i - gamma_i r1_i + W gamma_i m_i)
    index = sum_i i (e_i xor gamma_i)

with C_i = c1_i - 2^(k-f), W = pub 2^(61-f), the mux of relu.py, once for every i.

Fused with a ReLU, zero is one more candidate (c1 = 2^(k-f), r1 = 0), which every other has to
beat and which is never selected: max(0, y_1 .. y_n), in the same rounds.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import Field

from mpc import field as fp
from mpc import kernels, truncation
from mpc.comparison import Comparison
from mpc.gates.base import Correlation, Evaluation, Gate, Name, Opening, Wires, count, drawn_mask
from mpc.gates.compare import comparison_correlations, deal_comparison, sign_bit
from mpc.shares import Share
from mpc.wires import Masking

if TYPE_CHECKING:
    from mpc.interpret.dealer import Dealer
    from mpc.interpret.party import Party
    from mpc.interpret.reference import Reference

MOST = 128
_FAN_IN = 4
_MONOMIALS = (1 << _FAN_IN) - 1


class Maximum(Gate):
    """value = max(trunc(x, shift)), or max(0, that) if `rectify`; index = its place; over the last axis.

    Shapes:   x (..., n); value, index (..., 1)      Scale: value = x / 2^shift; index = 1
    Deals:    a comparison a pair; an AND tree, gamma (and r1, m, gamma r1, gamma m) an element
    Rounds:   3 + levels of the tree  Opens: leaf words, pairs, the tree's bits, outputs
    Error:    the truncation's; ties go to the first index, or the last; needs |x| < 2^k - 2^shift
    """

    kind: ClassVar[str] = "maximum"
    results: ClassVar[tuple[str, ...]] = ("value", "index")
    x: Name
    value: Name | None = None
    index: Name | None = None
    shift: int = Field(ge=0, le=58)
    last: bool = False
    rectify: bool = False

    def check(self, wires: Wires) -> None:
        x = wires[self.x]
        if not self.writes:
            raise self.refuse("it writes nothing")
        if not x.shape or not isinstance(x.shape[-1], int) or not 2 <= x.shape[-1] <= MOST:
            raise self.refuse(f"the last axis has to have 2 to {MOST} elements", remedy="a smaller last axis")
        if x.bits <= self.shift:
            raise self.refuse("the shift leaves no bits")
        for name in self.writes:
            if wires[name].masking is not Masking.DRAWN or wires[name].shape != (*x.shape[:-1], 1):
                raise self.refuse(f"{name} is drawn, and has one element a row")
        if self.value is not None and wires[self.value].scale * (1 << self.shift) != x.scale:
            raise self.refuse("the value's scale is not the input's after the shift")
        if self.index is not None and (wires[self.index].scale != 1 or self.rectify):
            raise self.refuse("the index has scale 1, and there is none beside a ReLU")
        self.comparison(wires)

    def comparison(self, wires: Wires) -> Comparison:
        """On q + 1 bits, q = k - shift."""
        return Comparison(wires[self.x].bits - self.shift + 1)

    def _sizes(self, wires: Wires) -> tuple[int, int]:
        """(elements a row, rows)."""
        n = wires[self.x].sizes[-1]
        return n, count(wires[self.x]) // n

    def _pairs(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        return _pairs(n + self.rectify, self.last)

    def _levels(self, n: int) -> tuple[int, ...]:
        return _levels(n + self.rectify)

    def _by_candidate(self, pairs: np.ndarray, n: int, flip: np.uint8 | None = None) -> np.ndarray:
        return _by_candidate(pairs, n + self.rectify, flip)[:n]

    def _candidates(self, values: np.ndarray, zero: int) -> np.ndarray:
        """The rows that are compared: those of the input and, for a ReLU, zero's."""
        if not self.rectify:
            return values
        return np.concatenate([values, np.full((1, values.shape[1]), zero, dtype=values.dtype)])

    def openings(self, wires: Wires) -> tuple[tuple[Opening, ...], ...]:
        n, rows = self._sizes(wires)
        pairs = (len(self._pairs(n)[0]) * rows,)
        rounds: list[tuple[Opening, ...]] = [
            (Opening("leaf", pairs, width=self.comparison(wires).leaf_width),),
            (Opening("pairs", pairs, width=1),),
        ]
        rounds += [(Opening(f"and{i}", (n, groups, rows), width=1),) for i, groups in enumerate(self._levels(n))]
        rounds.append(tuple(Opening(name, wires[name].sizes) for name in self.writes))
        return tuple(rounds)

    def correlations(self, wires: Wires) -> tuple[Correlation, ...]:
        n, rows = self._sizes(wires)
        pairs = len(self._pairs(n)[0]) * rows
        dealt = ["gamma"] + (["r1", "m", "gamma_r1", "gamma_m"] if self.value is not None else [])
        specs = [drawn_mask(wires[name]) for name in self.writes]
        specs += comparison_correlations(self.comparison(wires), pairs)
        for level, groups in enumerate(self._levels(n)):
            specs.append(Correlation(f"node{level}", (n, groups, rows), width=_MONOMIALS, dependent=True))
            specs.append(Correlation(f"fresh{level}", (n, groups, rows), width=1))
        specs += [Correlation(name, (n, rows), dependent=True) for name in dealt]
        return tuple(specs)

    def reference(self, run: Reference) -> None:
        run.require_room(self.x, self.shift)
        bits = run.wire(self.x).bits
        y = truncation.reference(run.value(self.x), run.coin(self.x), bits, self.shift)
        best = y.shape[-1] - 1 - y[..., ::-1].argmax(axis=-1) if self.last else y.argmax(axis=-1)
        if self.value is not None:
            top = y.max(axis=-1, keepdims=True)
            run.set(self.value, np.maximum(top, 0) if self.rectify else top)
        if self.index is not None:
            run.set(self.index, best[..., None])

    def deal(self, run: Dealer) -> None:
        for name in self.writes:
            run.draw_mask(name)
        n, rows = self._sizes(run.wires)
        comparison = self.comparison(run.wires)
        r1, m = truncation.mask_parts(_classes_first(run.mask(self.x)), self.shift)
        a, b = self._pairs(n)
        compared = self._candidates(r1, 0)
        differences = _low(compared[a] - compared[b], comparison.bits + 1).reshape(-1)
        beta = deal_comparison(run, comparison, differences) ^ sign_bit(differences, comparison)
        bits = self._by_candidate(beta.reshape(-1, rows), n)
        for level, _ in enumerate(self._levels(n)):
            run.dependent(f"node{level}", _monomials(_grouped(bits, fill=0)))
            bits = run.uniform(f"fresh{level}")
        gamma = bits[:, 0, :].astype(np.uint64)
        run.dependent("gamma", gamma)
        if self.value is not None:
            run.dependent("r1", r1)
            run.dependent("m", m)
            run.dependent("gamma_r1", gamma * r1)
            run.dependent("gamma_m", gamma * m)

    def prepare(self, run: Party) -> None:
        n, _ = self._sizes(run.wires)
        run.kept.update({f"mask:{name}": run.take_mask(name) for name in self.writes})
        run.kept.update({name: run.take_bits(name) for name in ("table", "leaf_mask", "node")})
        for level, _groups in enumerate(self._levels(n)):
            run.kept.update({f"{name}{level}": run.take_bits(f"{name}{level}") for name in ("node", "fresh")})
        run.kept["gamma"] = run.take("gamma")
        if self.value is not None:
            r1, gamma_r1 = (run.take(name).values.reshape(-1) for name in ("r1", "gamma_r1"))
            negative, positive = np.empty_like(r1), np.empty_like(r1)
            kernels.relu_prepare(fp.zeros(r1.shape), r1, gamma_r1, negative, positive)
            run.kept.update(negative=negative, positive=positive, m=run.take("m"), gamma_m=run.take("gamma_m"))

    def evaluate(self, run: Party) -> Evaluation:
        kept, lane, comparison = run.kept, run.lane, self.comparison(run.wires)
        n, rows = self._sizes(run.wires)
        c = truncation.offset(_classes_first(run.public(self.x)), run.wire(self.x).bits)
        c1 = self._candidates(c >> np.uint64(self.shift), 1 << (run.wire(self.x).bits - self.shift))
        a, b = self._pairs(n)
        differences = _low(c1[a] - c1[b], comparison.bits + 1).reshape(-1)
        (leaf,) = yield (lane.look_up(comparison, kept["table"], differences, kept["leaf_mask"]),)
        negative = lane.resolve(comparison, leaf, kept["leaf_mask"], kept["node"])
        loses = sign_bit(differences, comparison)
        wins = negative ^ lane.const_bits(loses if self.last else loses ^ np.uint8(1))
        (opened,) = yield (wins,)
        bits = self._by_candidate(opened.reshape(-1, rows), n, flip=np.uint8(1))
        for level, _ in enumerate(self._levels(n)):
            opened_groups, node = _grouped(bits, fill=1), kept[f"node{level}"]
            joined = lane.sum_selected(node, _selection_table()[opened_groups])
            joined = joined ^ lane.const_bits(opened_groups == _MONOMIALS) ^ kept[f"fresh{level}"]
            (bits,) = yield (joined,)
        e = np.ascontiguousarray(bits[:, 0, :])
        public = yield tuple(self._output(run, name, c, e) for name in self.writes)
        for name, value in zip(self.writes, public, strict=True):
            run.set(name, value)

    def _output(self, run: Party, name: str, c: np.ndarray, e: np.ndarray) -> Share:
        """The share of one output, under its mask."""
        kept, lane = run.kept, run.lane
        if name == self.index:
            places = np.arange(len(e), dtype=np.uint64)[:, None]
            terms = lane.select_bit(e, kept["gamma"]).times(np.broadcast_to(places, e.shape))
        else:
            out = np.empty(c.size, dtype=np.uint64)
            gamma, m, gamma_m = (kept[key].values.reshape(-1) for key in ("gamma", "m", "gamma_m"))
            kernels.relu_mux(
                c.reshape(-1),
                e.reshape(-1),
                gamma,
                kept["negative"],
                kept["positive"],
                m,
                gamma_m,
                lane.one,
                run.wire(self.x).bits,
                self.shift,
                out,
            )
            terms = Share(out.reshape(c.shape))
        return terms.sum_first().reshape(run.shape(name)) + kept[f"mask:{name}"]


@cache
def _pairs(n: int, last: bool) -> tuple[np.ndarray, np.ndarray]:
    """(a, b) of every pair i < j: i wins unless y_a - y_b is negative; for `last`, if it is."""
    i, j = np.triu_indices(n, 1)
    return (j, i) if last else (i, j)


@cache
def _levels(n: int) -> tuple[int, ...]:
    """How many nodes each candidate has on each level of its tree of n - 1 inputs."""
    levels, width = [], n - 1
    while width > 1:
        width = -(-width // _FAN_IN)
        levels.append(width)
    return tuple(levels)


def _by_candidate(pairs: np.ndarray, n: int, flip: np.uint8 | None = None) -> np.ndarray:
    """(pairs, rows) to (n, n - 1, rows): candidate i's bits against every other.

    d_ji = d_ij xor 1; masks do not flip, opened bits do.
    """
    number = np.zeros((n, n), dtype=np.int64)
    upper = np.triu_indices(n, 1)
    number[upper] = np.arange(len(upper[0]))
    number += number.T
    others = ~np.eye(n, dtype=bool)
    bits = pairs[number[others].reshape(n, n - 1)]
    if flip is not None:
        below = np.tril(np.ones((n, n), dtype=bool), -1)[others].reshape(n, n - 1, 1)
        bits = np.where(below, bits ^ flip, bits)
    return bits


def _grouped(bits: np.ndarray, fill: int) -> np.ndarray:
    """(n, inputs, rows) to words (n, groups, rows) of four bits, the last group filled up."""
    n, inputs, rows = bits.shape
    groups = -(-inputs // _FAN_IN)
    padded = np.full((n, groups * _FAN_IN, rows), fill, dtype=np.uint16)
    padded[:, :inputs] = bits
    split = padded.reshape(n, groups, _FAN_IN, rows)
    weights = (1 << np.arange(_FAN_IN, dtype=np.uint16))[:, None]
    return (split * weights).sum(axis=2).astype(np.uint16)


@cache
def _monomial_table() -> np.ndarray:
    """Mask word to the word of its 15 products: bit s - 1 is the product of the bits in s."""
    words = range(1 << _FAN_IN)
    return np.array([sum(((w & s) == s) << (s - 1) for s in words if s) for w in words], dtype=np.uint16)


@cache
def _selection_table() -> np.ndarray:
    """Opened word o to the monomials that it selects: s whose complement is all ones in o."""
    words = range(1 << _FAN_IN)
    full = (1 << _FAN_IN) - 1
    chosen = [sum(((o | s) == full) << (s - 1) for s in words if s) for o in words]
    return np.array(chosen, dtype=np.uint16)


def _monomials(masks: np.ndarray) -> np.ndarray:
    return _monomial_table()[masks]


def _classes_first(values: np.ndarray) -> np.ndarray:
    """(..., n) to (n, rows)."""
    return np.ascontiguousarray(values.reshape(-1, values.shape[-1]).T)


def _low(values: np.ndarray, bits: int) -> np.ndarray:
    """Modulo 2^bits: uint64 subtraction wraps at 2^64, a multiple of it."""
    return values & np.uint64((1 << bits) - 1)
