"""Reverse-mode differentiation: from the gradients of some values to those of the values that train.

Backwards through the nodes, each value's gradient is the sum of what its readers say; a node's rule in
`derivatives.DERIVATIVES` says what it passes on to each of its operands.  Nodes that no trained value leads to are
never asked, so they need no rule.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from mpc.compiler.graph.graph import Node
from mpc.compiler.training.derivatives import DERIVATIVES
from mpc.compiler.training.tape import Tape


def differentiate(tape: Tape, seeds: Mapping[str, str], wanted: Collection[str]) -> dict[str, str]:
    """Write the gradients behind a graph; return those of the wanted values that the seeds depend on.

    Args:
        seeds: value -> the value that is its gradient, of one shape.
        wanted: inputs, or values of any node.

    Raises:
        ModelError: a node on the way has no derivative.
    """
    forward = list(tape.nodes)
    trains = _led_to(forward, wanted)
    parts: dict[str, list[str]] = {value: [gradient] for value, gradient in seeds.items()}
    found: dict[str, str] = {}
    for node in reversed(forward):
        if node.writes not in parts or node.writes not in trains:
            continue
        tape.origin = node.origin
        g = found[node.writes] = _added(tape, parts.pop(node.writes))
        needed = [name in trains for name in node.reads]
        if not any(needed):
            continue
        for name, gradient in zip(node.reads, _passed_on(tape, node, g, needed), strict=True):
            if gradient is not None:
                parts.setdefault(name, []).append(gradient)
    found.update({name: _added(tape, parts[name]) for name in wanted if name in parts})
    return {name: found[name] for name in wanted if name in found}


def _led_to(nodes: Collection[Node], wanted: Collection[str]) -> set[str]:
    """The wanted values, and all that are made of them."""
    found = set(wanted)
    for node in nodes:
        if found.intersection(node.reads):
            found.add(node.writes)
    return found


def _passed_on(tape: Tape, node: Node, g: str, needed: list[bool]) -> list[str | None]:
    rule = DERIVATIVES.get(node.op)
    if rule is None:
        raise node.origin.refuse(
            f"no derivative of {node.op!r} is known, and weights that train lie before it",
            remedy="leave it out of the model that is trained, put it before the first layer that trains, or keep "
            "the layers before it as they are (frozen=[...])",
        )
    passed = rule(tape, node, g, needed)
    return [gradient if need else None for gradient, need in zip(passed, needed, strict=True)]


def _added(tape: Tape, parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else tape.sum(parts, [1.0] * len(parts))
