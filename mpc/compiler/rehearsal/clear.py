"""A plan's gates on integers in the clear, many rows at once: what the parties would reconstruct."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from mpc import fixedpoint
from mpc.compiler.graph.graph import Graph
from mpc.compiler.rehearsal.drawing import Draws, Feeds
from mpc.gates.base import Gate
from mpc.gates.bilinear import Bilinear
from mpc.plan.plan import Plan
from mpc.wires import BATCH, Wire

_OFF = 2.0**-30
"""The part of its bound that a product in float64 may be off by, and far more."""


class Clear:
    """A gate's reading in a rehearsal.

    Args:
        left: wires with a value that leaves their bound, or the room that a sign needs, in their order; parties would
            compute something else there, and nobody would see it.
    """

    def __init__(self, wires: Mapping[str, Wire], given: Mapping[str, np.ndarray], draws: Draws) -> None:
        self.wires, self._given, self._draws = wires, given, draws
        self.values: dict[str, np.ndarray] = {}
        self._coins: dict[str, np.ndarray] = {}
        self.left: list[str] = []

    def wire(self, name: str) -> Wire:
        return self.wires[name]

    def shape(self, name: str) -> tuple[int, ...]:
        return self.wires[name].sizes

    def given(self, name: str) -> np.ndarray:
        return self._given[name]

    def value(self, name: str) -> np.ndarray:
        return self.values[name]

    def coin(self, name: str) -> np.ndarray:
        """Return what a wire is opened as: of a wire that several gates read, they all see one."""
        if name not in self._coins:
            self._coins[name] = self._draws.coins(self.shape(name))
        return self._coins[name]

    def words(self, gate: str, name: str, shape: tuple[int, ...], width: int) -> np.ndarray:
        return np.zeros(shape, dtype=np.uint64)  # of equal words both signs have equal digits: there is no noise

    def require_room(self, name: str, shift: int, units: int = 1) -> None:
        self._require(name, self.values[name], (1 << self.wires[name].bits) - (units << shift))

    def set(self, name: str, value: np.ndarray) -> None:
        self._require(name, value, 1 << self.wires[name].bits)
        self.values[name] = value.astype(np.int64)

    def set_product(self, name: str, value: np.ndarray) -> None:
        """Write a wire's integers that were computed in float64."""
        self._require(name, value, (1 << self.wires[name].bits) * (1 + _OFF))
        self.values[name] = value.astype(np.int64)

    def _require(self, name: str, value: np.ndarray, most: float) -> None:
        """Note the wire unless all |value| < most, which what is no number is not."""
        if value.size and not -most < value.min().item() <= value.max().item() < most:
            self.left.append(name)

    def let_go(self, name: str) -> None:
        """Drop a wire that nothing reads any more."""
        self._coins.pop(name, None)
        self.values.pop(name, None)

    def reals(self, name: str) -> np.ndarray:
        """Return a wire's values in the model's units."""
        return fixedpoint.decode(self.values[name], self.wires[name].scale)


def integers(graph: Graph, plan: Plan, feeds: Feeds) -> dict[str, np.ndarray]:
    """Return the integers that enter, by input wire."""
    marks = {given.marks: given.name for given in graph.inputs if given.marks}
    found = {}
    for each in plan.inputs:
        scale, what = plan.wire[each.wire].scale, f"input {each.name!r}"
        found[each.wire] = fixedpoint.encode_columns(feeds[each.name], scale, each.offset, each.factor, what)
        if each.missing is not None and each.missing.wire is not None:
            found[each.missing.wire] = feeds[marks[each.name]].astype(np.int64)
    for state in plan.states:
        scale = plan.wire[state.in_].scale
        found[state.in_] = fixedpoint.encode(feeds[state.name], scale, f"state {state.name!r}")
        if state.init is not None:  # nobody reads it in a rehearsal, which begins in the middle
            found[state.init] = found[state.in_]
    return found


def computed(
    plan: Plan,
    weights: Mapping[str, np.ndarray],
    entered: Mapping[str, np.ndarray],
    kept: Iterable[str],
    draws: Draws,
    besides: Iterable[str] = (),
) -> Clear:
    """Return the integers of outputs, and of what decisions compare and give; others go once nothing reads them.

    Args:
        kept: wires whose decisions count; besides: wires that stay in any case.
    """
    batches = (
        values.shape[plan.wire[name].shape.index(BATCH)]
        for name, values in entered.items()
        if BATCH in plan.wire[name].shape
    )
    bound = plan.bind(next(batches, 1))
    clear = Clear(bound.wire, {**weights, **entered}, draws)
    last = {name: number for number, gate in enumerate(bound.gates) for name in gate.reads}
    decisive = {name for gate in bound.gates if set(gate.writes).intersection(kept) for name in _compared(gate)}
    decisive.update(besides, (out.wire for out in bound.outputs))
    for number, gate in enumerate(bound.gates):
        if isinstance(gate, Bilinear):  # in float64, which is fast and good enough
            z = gate.over_integers(clear.value(gate.x).astype(np.float64), clear.value(gate.second).astype(np.float64))
            clear.set_product(gate.out, np.rint(z) + (clear.value(gate.bias) if gate.bias else 0))
        else:
            gate.reference(clear)
        for name in gate.reads:
            if last[name] == number and name not in decisive:
                clear.let_go(name)
    return clear


def _compared(gate: Gate) -> tuple[str, ...]:
    """The wires of a gate that decides: what it reads and what it writes."""
    return (*gate.reads, *gate.writes) if gate.kind == "step" or getattr(gate, "index", None) else ()
