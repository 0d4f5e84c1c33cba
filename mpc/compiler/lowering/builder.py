"""Offer what rules lower a graph with: truncations, linear maps and moves, and the choices when all is emitted.

`rules` has one rule an operator, `approximate` the functions; `emitted` is what they write.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import numpy as np

from mpc.compiler.graph.graph import Node, Shape, static
from mpc.compiler.graph.hidden import Hidden
from mpc.compiler.lowering.emitted import FRACTION_BITS, Emitted, Value
from mpc.compiler.lowering.intervals import Interval
from mpc.compiler.lowering.known import known_interval
from mpc.compiler.lowering.norms import Norms
from mpc.compiler.lowering.scales import MOST_ODD_BITS, even, is_even, log2, odd_bits
from mpc.compiler.lowering.unopened import leave_summed_unopened, leave_unopened
from mpc.gates.base import Gate
from mpc.gates.bilinear import Bilinear
from mpc.plan.ends import PlanState
from mpc.plan.masking import shared_masks
from mpc.privacy.facts import StoredFacts
from mpc.wires import MAX_BITS, Masking

LEAST_FRACTION_BITS = 12
COMPARED_BITS = 24
"""A comparison on up to so many bits opens one byte (four chunks of six)."""
_EVENING_BITS = 26
_LEAST_EVENING_BITS = 20
_NEAR = 4
"""A value that was shortened to so many bits more is taken as it is then, and not shortened once more."""
SERIES_SCALE_BITS = 44
"""Fractional bits of a series' argument."""
LINEAR_BITS = 57
"""Bound of what a product or sum may reach: room for roundings below 59."""


@dataclass
class Lowering(Emitted):
    """The building blocks that rules have, of what has been emitted, and what is known of it.

    Args:
        values: graph value -> wire.
        whole: wire that `shorten` wrote -> what it was shortened from, and the result.
        shifts: wire -> by how many bits it was shortened.
        inverses: wire of 1 / x -> what it is the product of: 1 / u for x in one octave, and the octave.
        protected: wires of inputs whose rows noise protects.
        hard: wires of products of which it is known what a row can be, whatever the data are.
        balls: wires whose rows are held to a norm.
        states: what runs hand on.
        skipped: what no softmax looks at, of each mask of which that is shown.
        reach: how large, in the model's units, values are that a maximum is taken of where a mask hides some; None if
            there are none.
        raised: one over x + c, by name -> what stands for c there, where that has too few digits.
        exact: wires of products with weights that are not rounded.
    """

    values: dict[str, Value] = field(default_factory=dict)
    memo: dict[object, Value] = field(default_factory=dict)
    whole: dict[str, tuple[Value, Value]] = field(default_factory=dict)
    shifts: dict[str, list[int]] = field(default_factory=dict)
    inverses: dict[str, tuple[Value, Value]] = field(default_factory=dict)
    protected: dict[str, StoredFacts] = field(default_factory=dict)
    hard: set[str] = field(default_factory=set)
    balls: set[str] = field(default_factory=set)
    states: list[PlanState] = field(default_factory=list)
    exact: set[str] = field(default_factory=set)
    skipped: dict[Hidden, Hidden] = field(default_factory=dict)
    reach: float | None = None
    raised: dict[str, float] = field(default_factory=dict)

    # -- when all is emitted

    @property
    def carried(self) -> set[str]:
        """Wires that the next run reads."""
        return {state.out for state in self.states}

    def drop_unread(self) -> None:
        """Drop whatever a better way to a result left behind; the ends of a state stay, whoever reads them."""
        read = {name for name, wire in self.wires.items() if wire.held} | self.carried
        read.update(name for state in self.states for name in (state.in_, state.init) if name is not None)
        kept: list[Gate] = []
        for gate in reversed(self.gates):
            if read.intersection(gate.writes):
                kept.append(gate)
                read.update(gate.reads)
        written = {name for gate in kept for name in gate.writes}
        self.gates = kept[::-1]
        self.wires = {name: wire for name, wire in self.wires.items() if name in written}

    def choose_openings(self) -> None:
        """Choose, for each linear layer, whether its operands or its result are opened; see `unopened`."""
        writers = {name: gate.name for gate in self.gates for name in gate.writes}
        self.gates, self.wires = leave_unopened(self.gates, self.wires, self.weights, self.carried)
        leave_summed_unopened(self.gates, self.wires, self.weights, self.carried)
        for gate in self.gates:
            if gate.name not in self.origins:
                self.origins[gate.name] = self.origins[writers[gate.reads[0]]]

    def choose_masks(self) -> None:
        """Derive the masks of products, which costs nothing, unless somebody needs shares of them."""
        needed = shared_masks(self.gates, self.wires, self.carried)
        for gate in self.gates:
            if isinstance(gate, Bilinear) and not gate.is_linear(self.wires) and gate.out not in needed:
                self.wires[gate.out] = self.wires[gate.out].model_copy(update={"masking": Masking.DERIVED})

    # -- while it is emitted

    def settle(self, name: str, is_last: bool) -> None:
        """Let go of what is known of a value's elements; is_last: and of those of all that its wire was made to."""
        value = self.values[name] = self.values[name].overall()
        wire = value.wire.name
        if not is_last:
            return
        if wire in self.whole:
            self.whole[wire] = self.whole[wire][0].overall(), value
        for key in [("plain", wire), *(("shorten", wire, shift) for shift in self.shifts.get(wire, ()))]:
            if key in self.memo:
                short = self.memo[key] = self.memo[key].overall()
                if short.wire.name in self.whole:
                    self.whole[short.wire.name] = self.whole[short.wire.name][0].overall(), short

    # -- building blocks

    def truncate(self, x: Value, shift: int) -> Value:
        """Drop fractional bits; with 0, only put the value under a fresh mask."""
        scale = x.scale / (1 << shift)
        return self.add("truncate", x.shape, scale, x.interval.truncated(shift), x=x.wire.name, shift=shift)

    def shorten(self, x: Value, fraction: int = FRACTION_BITS, least: int | None = None) -> Value:
        """Return x with about `fraction` fractional bits, if it has more.

        What was shortened before is shortened again from what it was: in one truncation, of which the first one may be
        left behind.

        Args:
            least: so few are enough, if x was shortened to about as many before.
        """
        if min(log2(x.scale) - fraction, x.wire.bits - 1) <= 0:
            return x
        before, found = self.whole.get(x.wire.name, (x, x))
        if found.interval is x.interval:  # nothing else is known of it
            x = before
        shift = min(log2(x.scale) - fraction, x.wire.bits - 1)
        if least is not None:
            near = range(shift - _NEAR, log2(x.scale) - least + 1)
            known = [each for each in self.shifts.get(x.wire.name, ()) if each in near]
            shift = min(known, key=lambda each: abs(each - shift), default=shift)
        key = ("shorten", x.wire.name, shift)
        if key not in self.memo:
            short = self.truncate(*self.evened(x, shift))
            self.memo[key] = replace(short, norms=x.norms and x.norms.rounded(1 / float(short.scale)))
            self.whole[self.memo[key].wire.name] = x, self.memo[key]
            self.shifts.setdefault(x.wire.name, []).append(shift)
        return self.memo[key]

    def evened(self, x: Value, shift: int, spare: int = 0) -> tuple[Value, int]:
        """Return x times a public integer, and the shift that makes it x / 2^shift at a power of two as its scale.

        Both are as they were if that is one already, or if there is no room for an integer that is precise enough.

        Args:
            spare: bits more that something else takes on a wire beside x.
        """
        more = min(_EVENING_BITS, MAX_BITS - 1 - spare - x.wire.bits)
        if is_even(x.scale) or more < min(_LEAST_EVENING_BITS, x.wire.bits - shift):
            return x, shift
        scale = even(x.scale) * (1 << more)
        factor = round(scale / x.scale)
        off = abs(float(factor * x.scale / scale) - 1) * factor
        interval = x.interval.times(factor)
        interval = interval.off_by(np.hypot(interval.error, off * x.interval.typical))
        name, least = x.wire.name, shift + more + 1
        return self.add("combine", x.shape, scale, interval, least, xs=(name,), factors=(factor,)), shift + more

    def plain(self, x: Value) -> Value:
        """Return x itself, unless the odd part of its scale is long: then x at a power of two, which costs a
        truncation.
        """
        if odd_bits(x.scale) <= MOST_ODD_BITS:
            return x
        key = ("plain", x.wire.name)
        if key not in self.memo:
            self.memo[key] = self.truncate(*self.evened(self.roomy(x), 0))
            if x.wire.name in self.inverses:
                self.inverses[self.memo[key].wire.name] = self.inverses[x.wire.name]
        return self.memo[key]

    def roomy(self, x: Value, spare: int = 0) -> Value:
        """Return x short enough that `evened` has room to make its scale a power of two, and `spare` bits more."""
        room = MAX_BITS - 1 - _LEAST_EVENING_BITS - spare
        return x if is_even(x.scale) else self.shorten(x, log2(x.scale) - (x.wire.bits - room))

    def reaches(self, x: Value) -> None:
        """Note how large a value is in which masks have put what is less than all others."""
        self.reach = max(self.reach or 0.0, x.interval.bound / float(x.scale))

    def rounding(self, x: Value, extra: int = 0) -> int:
        """Return the shift of a gate that compares rounded values on their bits and `extra` more.

        About 16 fractional bits stay; down to 12 where that keeps a comparison to one opened byte.
        """
        shift = max(0, log2(x.scale) - FRACTION_BITS)
        over = x.wire.bits - shift + extra - COMPARED_BITS
        if 0 < over <= FRACTION_BITS - LEAST_FRACTION_BITS:
            shift = min(shift + over, max(shift, log2(x.scale) - LEAST_FRACTION_BITS))
        return max(shift, x.wire.bits + extra - 48)

    def combine(
        self,
        xs: list[Value],
        factors: list[int],
        shape: Shape,
        scale: Fraction,
        constant: int = 0,
        node: Node | None = None,
        norms: Norms | None = None,
        unread: np.ndarray | None = None,
    ) -> Value:
        """Return a public linear combination, plus a public constant; `node` and norms may know more of it than
        intervals do, but not where it is unread.
        """
        total = Interval.between(constant, constant, ())
        for x, factor in zip(xs, factors, strict=True):
            total = total.plus(x.interval.times(factor))
        if node is not None:
            whole = total.broadcast_to(static(shape))
            total = known_interval(whole, scale, node)
            total = total if unread is None else whole.where(unread, total)
        if norms is not None:
            total = total.within_norms(norms.euclidean * float(scale), norms.axis)
        names = tuple(x.wire.name for x in xs)
        found = self.add("combine", shape, scale, total, xs=names, factors=tuple(factors), constant=constant)
        return replace(found, norms=norms)

    def move(
        self, kind: str, x: Value, shape: Shape, how: Callable[[np.ndarray], np.ndarray], **settings: Any
    ) -> Value:
        """Move the elements of x; they keep its bound, whatever part of it they are."""
        interval = x.interval.map(how)
        return self.add(kind, shape, x.scale, interval, x.wire.bits, x=x.wire.name, **settings)

    def rescaled(self, x: Value, scale: Fraction) -> Value:
        """Read the integers of x at another scale: x times a public number, for nothing."""
        return self.combine([x], [1], x.shape, scale)

    def reshape(self, x: Value, shape: Shape) -> Value:
        """Reshape x."""
        return self.move("reshape", x, shape, lambda array: array.reshape(static(shape)))

    def take(self, x: Value, axis: int, indices: tuple[int, ...]) -> Value:
        """Take slices of x along an axis, in this order; -1 is a slice of zeros."""
        chosen = np.array(indices)

        def how(array: np.ndarray) -> np.ndarray:
            taken = array.take(chosen, axis=axis)
            taken[(slice(None),) * axis + (chosen < 0,)] = 0
            return taken

        shape = (*x.shape[:axis], len(indices), *x.shape[axis + 1 :])
        return self.move("take", x, shape, how, axis=axis, indices=indices)
