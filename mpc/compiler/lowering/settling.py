"""Let go, value by value, of what is known of single elements, once no rule reads it: most of what a large model takes.

What is known of a value for all of its elements alike stays, and takes no memory: rules look back at it.
"""

from __future__ import annotations

from collections import Counter

from mpc.compiler.graph.graph import Graph
from mpc.compiler.lowering.builder import Lowering

_LOOKED_BACK = 8
"""Nodes that a rule looks back at most, for each element: a norm's are the most."""


class Settling:
    """Follows the lowering of a graph, node by node.

    Args:
        state: all values that are not settled yet stand in it.
    """

    def __init__(self, graph: Graph, state: Lowering) -> None:
        self._state = state
        self._due: dict[int, list[str]] = {}
        for name, last in last_reads(graph, _LOOKED_BACK).items():
            self._due.setdefault(last, []).append(name)
        self._named = Counter(value.wire.name for value in state.values.values())

    def follow(self, number: int, name: str) -> None:
        """Note that the node of this number is lowered, to the value of that name; settle what was read last by it."""
        self._named[self._state.values[name].wire.name] += 1
        for each in self._due.pop(number, ()):
            value = self._state.values.get(each)
            if value is not None:
                self._named[value.wire.name] -= 1
                self._state.settle(each, is_last=self._named[value.wire.name] <= 0)


def last_reads(graph: Graph, back: int) -> dict[str, int]:
    """Return the number of the last node that reads a value, or one of so many values behind it; no output has one."""
    direct = {name: number for number, node in enumerate(graph.nodes) for name in node.reads}
    last = dict(direct)
    for _ in range(back):
        found = dict(direct)
        for node in graph.nodes:
            beyond = last.get(node.writes, -1)
            for name in node.reads:
                found[name] = max(found[name], beyond)
        last = found
    for out in graph.outputs:
        last.pop(out.value, None)
        last.pop(out.carried or "", None)
    return last
