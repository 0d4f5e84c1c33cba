"""The plan read on integers in the clear: what the parties must reconstruct, bit for bit.

Truncation rounds up or down by a public coin, the opened masked wire itself; given the coins
of a run (or any others) the result is determined.  No protocol code is used here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from mpc.errors import PlanError
from mpc.gates.readings import ClearReading
from mpc.plan.plan import Plan
from mpc.wires import Wires

Coins = Callable[[str, tuple[int, ...]], np.ndarray]
"""(wire, shape) -> the opened masked wire, canonical field elements."""
Words = Callable[[str, str, tuple[int, ...], int], np.ndarray]
"""(gate, name, shape, width) -> words that nobody knows in a run."""


def no_words(gate: str, name: str, shape: tuple[int, ...], width: int) -> np.ndarray:
    """Refuse: a plan that draws noise has a value only with the words of a run."""
    raise PlanError(f"gate {gate} draws noise, and no words of a run are given", remedy="read it with a run's words")


class Reference(ClearReading):
    """A gate's reading in the clear."""

    def __init__(self, wires: Wires, given: Mapping[str, np.ndarray], coins: Coins, words: Words) -> None:
        self.wires: Wires = wires
        self._given = given
        self._coins = coins
        self._words = words
        self.values: dict[str, np.ndarray] = {}

    def given(self, name: str) -> np.ndarray:
        """Return the integers that the owner of an input entered."""
        return self._given[name]

    def value(self, name: str) -> np.ndarray:
        """Return a wire's integers, int64."""
        return self.values[name]

    def coin(self, name: str) -> np.ndarray:
        """Return the opened masked wire."""
        return self._coins(name, self.shape(name))

    def words(self, gate: str, name: str, shape: tuple[int, ...], width: int) -> np.ndarray:
        """Return the words that a gate's noise is drawn from."""
        return self._words(gate, name, shape, width)

    def require_room(self, name: str, shift: int, units: int = 1) -> None:
        """Raise `PlanError` unless |x| stays below 2^k - units 2^shift: a sign is read off the rounded value."""
        value = self.values[name]
        room = (1 << self.wires[name].bits) - (units << shift)
        if value.size and (value.max() >= room or value.min() <= -room):
            raise PlanError(f"wire {name}: a value leaves no room for its rounding by {shift} bits")

    def set(self, name: str, value: np.ndarray) -> None:
        """Write a wire's integers; `PlanError` if they leave the proved bound or the shape."""
        wire = self.wires[name]
        if value.shape != wire.sizes:
            raise PlanError(f"wire {name}: shape {value.shape} where {wire.sizes} belongs")
        if value.size and max(int(value.max()), -int(value.min())) >= 1 << wire.bits:
            raise PlanError(f"wire {name}: a value leaves the bound of {wire.bits} bits")
        self.values[name] = value.astype(np.int64)


def evaluate(
    plan: Plan, given: Mapping[str, np.ndarray], coins: Coins, words: Words = no_words
) -> dict[str, np.ndarray]:
    """Compute every wire's integers.

    Args:
        plan: bound to a batch size.
        given: int64 integers of all input wires, weights and states included.
        coins: the public rounding coins.
        words: what noise is drawn from.
    """
    run = Reference(plan.wire, given, coins, words)
    for gate in plan.gates:
        gate.reference(run)
    return run.values


def first_states(plan: Plan, weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return what the first run reads of each state, by wire: the integers of a weight, or zeros."""
    zeros = {state.in_: np.zeros(plan.wire[state.in_].sizes, dtype=np.int64) for state in plan.states}
    return zeros | {state.in_: weights[state.init] for state in plan.states if state.init is not None}


def next_states(plan: Plan, values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return what the next run reads of each state, by wire, of all wires' integers in a run."""
    return {state.in_: values[state.out] for state in plan.states}
