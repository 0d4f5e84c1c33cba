"""Collect what the owner of a model should know of it: what is to be said of many nodes is said once."""

from __future__ import annotations

from mpc.compiler.graph.graph import Origin

_NAMED = 3
"""Nodes that a note names; of more it says how many there are."""


class Notes:
    """Notes on a model and on its nodes, in the order in which they came up."""

    def __init__(self) -> None:
        self._nodes: dict[tuple[str, str], list[str]] = {}

    def add(self, text: str) -> None:
        """Note something of the whole model."""
        self._nodes.setdefault(("", text), [])

    def of(self, origin: Origin, text: str) -> None:
        """Note something of a node."""
        nodes = self._nodes.setdefault((origin.operator, text), [])
        if origin.node not in nodes:
            nodes.append(origin.node)

    def told(self) -> list[str]:
        """Return the notes; one that is of several nodes of one operator names the first of them."""
        return [
            f"{_named(nodes)} ({operator}): {text}" if nodes else text
            for (operator, text), nodes in self._nodes.items()
        ]


def _named(nodes: list[str]) -> str:
    names = [repr(node) for node in nodes[:_NAMED]]
    if len(nodes) == 1:
        return f"node {names[0]}"
    more = [f"{len(nodes) - _NAMED:,} more"] if len(nodes) > _NAMED else []
    *first, last = [*names, *more]
    return f"nodes {', '.join(first)} and {last}"
