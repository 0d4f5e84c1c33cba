"""The range check of a step: has anything left the bounds that the plan takes for granted?

What a run computes is right only while values keep their bounds, and a value that breaks one does not say so: it is
read modulo a power of two.  Three kinds of bounds are not proved: those of the weights, of the sums that `one_vs_all`
reads, and all that rest on samples.  The check compares each such value with its bound, on wires that have room for
far more, counts what is beyond, and tells one bit: is there any?
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import prod

from mpc.compiler.graph.graph import Graph, GraphOutput
from mpc.compiler.training.precision import Precision
from mpc.compiler.training.step import Step
from mpc.compiler.training.tape import Tape

BEYOND = "beyond"
"""The output: 1 if any value has left its range, else 0."""
_BITS = 24
_ROOM = 2.0**12
_ROOM_OF_SAMPLES = 4.0
_NEAR = 1 - 2.0**-8
"""A value this near to its bound counts as beyond: so none that is beyond is missed by the comparison's rounding."""


def range_checked(step: Step, precision: Precision) -> Step:
    """Return the step with the range check's bit as one more output.

    Weights are compared as they are after the update, and are seen up to 2^12 times their range; other values up to
    four times theirs.
    """
    tape = Tape(step.graph)
    tape.origin = replace(tape.origin, node="range check", operator="Step")
    counts, elements = [], 0
    for value, most, room in _unproved(step, precision):
        number = prod(int(size) for size in tape.shapes[value])
        flat = tape.shaped(value, (number,))
        bits = tape.steps(flat, (-most * _NEAR, most * _NEAR), _BITS, most * room)
        counts.append(tape.total(bits, (0,)))
        elements += number
    low, high = (tape.sum([tape.part(x, 1, i, i + 1) for x in counts], [1.0] * len(counts)) for i in (0, 1))
    beyond = tape.sum((low, high), (-1.0, 1.0), constant=float(elements))  # of an element inside, low is 1 and high 0
    told = GraphOutput(BEYOND, tape.step(beyond, 1.0), (1, 1), "int64")
    return replace(step, graph=Graph(step.graph.inputs, tape.nodes, [*step.graph.outputs, told]))


def _unproved(step: Step, precision: Precision) -> Iterator[tuple[str, float, float]]:
    """Each value whose bound is taken for granted: (value, bound, how many times that the check sees)."""
    weights = {state.name for state in step.states if not state.velocity}
    after = {out.value for out in step.graph.outputs if out.name in weights}
    yield from ((value, precision.weights, _ROOM) for value in sorted(after))
    for node in step.graph.nodes:
        if node.op == "link":
            yield node.reads[0], precision.logits, _ROOM
        if node.writes in step.rests and node.writes not in after:
            yield node.writes, step.rests[node.writes], _ROOM_OF_SAMPLES
