"""The end of a model that trains: what its loss makes of its outputs and targets, and the gradient p - y.

All three losses have the gradient p - y at the model's last sums z, in one row: half a squared error (p = z), cross
entropy behind a softmax, and a binary cross entropy of each output behind the logistic function.  So all are fused.

What may be told of a loss is that of squares, whatever is minimised: sum (p - y)^2, in no round of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import numpy as np

from mpc.compiler.graph.attributes import Round
from mpc.compiler.graph.graph import MOVES, Graph, GraphOutput, Node
from mpc.compiler.series import period_above
from mpc.compiler.training.precision import Precision, loss_bits
from mpc.compiler.training.tape import Tape
from mpc.errors import ModelError, UsageError

LOSS = "loss"
"""The output that tells the loss of squares."""
_WALL, _WALL_FROM, _LEAST_WALLED = 0.25, 5 / 6, 40.0
_UNITS_A_TERM, _FEW = (3.2, 4.0), 1 << 10
"""Units of its argument for which a series has one term, of up to so many outputs in a batch and of more: the fit is
off by 0.0011 and 0.0034, and a term is 16 bytes dealt for each output."""
Head = Callable[[Tape, str, str, Precision], str]
"""(tape, z, targets, precision) -> p - y."""


@dataclass(frozen=True)
class Loss:
    """One loss: the operators whose results it takes the place of, targets' range, and its gradient."""

    behind: frozenset[str]
    targets: tuple[float, float] | None
    head: Head


def _one_vs_all(tape: Tape, z: str, y: str, precision: Precision) -> str:
    """One logistic function an output, as one series: a round.

    A series comes back to where it began: beyond half its period the certain 1 would be a 0, whose gradient drives an
    output further away with every step.  So before that it climbs above 1 (falls below 0), and its gradient turns
    outputs back that no example would: those that are right already.
    """
    period = period_above(2.125 * precision.logits)
    start, wall = (_WALL_FROM, _WALL) if precision.logits >= _LEAST_WALLED else (1.0, 0.0)
    each = _UNITS_A_TERM[prod(int(size) for size in tape.shapes[z]) > _FEW]
    p = tape.link("sigmoid", z, loss_bits(precision), period, math.ceil(period / each), start * precision.logits, wall)
    return tape.sum((p, y), (1.0, -1.0))


def _cross_entropy(tape: Tape, z: str, y: str, precision: Precision) -> str:
    """Write exp(z - max z) over its sum, exact as in inference."""
    if len(tape.shapes[z]) < 2:
        raise tape.origin.refuse(
            "the model has one number a row, and a softmax is over several", remedy="train it by loss='one_vs_all'"
        )
    number = float(tape.size(tape.shapes[z], -1, "a softmax"))
    if number == 1:
        raise tape.origin.refuse("a softmax over one element is 1", remedy="train one output by loss='one_vs_all'")
    below = tape.sum((z, tape.maximum(z)), (1.0, -1.0), known=(-np.inf, 0.0))
    powers = tape.function("exp_negative", below, known=(0.0, 1.0), terms=number)
    total = tape.total(powers, (len(tape.shapes[z]) - 1,), known=(1.0, number))
    p = tape.multiply(powers, tape.function("reciprocal", total, known=(1.0 / number, 1.0)), known=(0.0, 1.0))
    return _rounded(tape, tape.sum((p, y), (1.0, -1.0)), precision)


def _mse(tape: Tape, z: str, y: str, precision: Precision) -> str:
    return _rounded(tape, tape.sum((z, y), (1.0, -1.0)), precision)


def _rounded(tape: Tape, g: str, precision: Precision) -> str:
    return tape.emit("round", (g,), None, tape.shapes[g], Round(fraction=loss_bits(precision)))


LOSSES: dict[str, Loss] = {
    "one_vs_all": Loss(frozenset({"Sigmoid"}), (0.0, 1.0), _one_vs_all),
    "cross_entropy": Loss(frozenset({"Softmax", "LogSoftmax"}), (0.0, 1.0), _cross_entropy),
    "mse": Loss(frozenset(), None, _mse),
}


def squares(tape: Tape, residual: str) -> GraphOutput:
    """Return the sum of (p - y)^2 over rows and outputs as an output: one product of a row with itself."""
    number = prod(int(size) for size in tape.shapes[residual])
    row, column = tape.reshape(residual, (1, number)), tape.reshape(residual, (number, 1))
    return GraphOutput(LOSS, tape.matmul(row, column), (1, 1), "float64")


def loss_named(name: str) -> Loss:
    """Return a loss by its name.

    Raises:
        UsageError: there is none of that name.
    """
    if name not in LOSSES:
        raise UsageError(f"there is no loss {name!r}", remedy=f"use one of {', '.join(LOSSES)}")
    return LOSSES[name]


def last_sums(graph: Graph, loss: Loss) -> str:
    """Return the value that the loss begins at: the model's one output, or what its last activation reads.

    An activation behind which the model reshapes alone is its last one: targets are then reshaped back.

    Raises:
        ModelError: the model has several outputs, or ends in an activation that the loss does not fit.
    """
    if len(graph.outputs) != 1:
        raise ModelError(
            f"a model that trains has one output, and this one has {len(graph.outputs)}",
            remedy="export it with its logits, or its predictions, as the only output",
        )
    writers = {node.writes: node for node in graph.nodes}
    value, known = graph.outputs[0].value, {name for each in LOSSES.values() for name in each.behind}
    last, moved = writers.get(value), None
    while last is not None and last.op in _MOVES and last.origin.operator not in known:
        moved = moved if last.op == "reshape" else moved or last
        last = writers.get(last.reads[0])
    if last is None or last.origin.operator not in known:
        return value
    if last.origin.operator not in loss.behind:
        raise last.origin.refuse(
            "the model ends in it, and the loss brings an activation of its own",
            remedy="end the model at its last sums, or use the loss that belongs to it: one_vs_all behind a sigmoid, "
            "cross_entropy behind a softmax",
        )
    if moved is not None:
        raise moved.origin.refuse(
            f"it stands behind the model's last activation ({last.origin.operator}), where only a reshape may",
            remedy="move it before the activation, or end the model at its last sums",
        )
    before = _before(graph.nodes, last)
    if any(node.op == "transpose" and node.origin == last.origin for node in graph.nodes):
        raise last.origin.refuse(
            "it is over another axis than the last one", remedy="move the classes to the last axis in the model"
        )
    return before


_MOVES = MOVES - {"concat"}


def _before(nodes: list[Node], last: Node) -> str:
    """Find what the first of the nodes that came of the last node of the model reads."""
    own = [node for node in nodes if node.origin == last.origin]
    written = {node.writes for node in own}
    return next(name for node in own for name in node.reads if name not in written)
