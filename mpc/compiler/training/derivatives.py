"""The table of derivatives: for each operator of the graph, the gradients of its operands.

A rule is given the gradient g of what its node writes, and writes the gradients of what the node reads, with the same
operators; so gradients are compiled, checked and evaluated as any other values are.  An operator that is not in the
table has no derivative here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from mpc.compiler.graph.attributes import (
    Columns,
    Concat,
    Filters,
    Maximum,
    Rectified,
    Sliding,
    Sum,
    Take,
    Total,
    Transpose,
    Weighted,
)
from mpc.compiler.graph.graph import Node, Shape
from mpc.compiler.training.convolutions import by_filters, by_input, by_input_of_constants
from mpc.compiler.training.normalised import normalised_over
from mpc.compiler.training.slopes import function
from mpc.compiler.training.tape import Tape

Gradients = Sequence[str | None]
"""For each operand its gradient; None of one that does not need any."""
Rule = Callable[[Tape, Node, str, Sequence[bool]], Gradients]
"""(tape, node, gradient of what it writes, which operands need theirs) -> their gradients."""


def _matmul(tape: Tape, node: Node, g: str, needed: Sequence[bool]) -> Gradients:
    """Write g w^T and x^T g: transposes are free, and rows of all stacks are summed in one product."""
    x = node.reads[0]
    if isinstance(node.attributes, Weighted):
        back = tape.affine(g, np.ascontiguousarray(np.swapaxes(node.attributes.weight, -1, -2)))
        return [tape.summed_to(back, tape.shapes[x])]
    y, g = node.reads[1], tape.short(g)
    before, matrix = tape.shapes[x], tape.shapes[y]
    rows, product = x, g
    if len(before) == 1:
        rows, product = tape.reshape(x, (1, *before)), tape.reshape(g, (1, *tape.shapes[g]))
    found: list[str | None] = [None, None]
    if needed[0]:
        found[0] = tape.summed_to(tape.matmul(product, tape.swapped(y)), before)
    if needed[1]:
        if len(matrix) == 2:
            rows, product = _flat(tape, rows), _flat(tape, product)
        found[1] = tape.summed_to(tape.matmul(tape.swapped(rows), product), matrix)
    return found


def _flat(tape: Tape, x: str) -> str:
    """All stacks of rows as one: (rows, columns)."""
    shape = tape.shapes[x]
    return tape.shaped(x, (tape.merged(shape[:-1]), shape[-1]))


def _conv(tape: Tape, node: Node, g: str, needed: Sequence[bool]) -> Gradients:
    if isinstance(node.attributes, Filters):
        return [by_input_of_constants(tape, node, g)]
    windows, g = node.of(Sliding).windows, tape.short(g)
    return [
        by_input(tape, node.reads, g, windows) if needed[0] else None,
        by_filters(tape, node.reads, g, windows) if needed[1] else None,
    ]


def _scale(tape: Tape, node: Node, g: str, needed: Sequence[bool]) -> Gradients:
    return [tape.summed_to(tape.scale(g, node.of(Weighted).weight), tape.shapes[node.reads[0]])]


def _columns(tape: Tape, node: Node, g: str, needed: Sequence[bool]) -> Gradients:
    taken = node.of(Columns)
    back = tape.emit("columns", (g,), None, node.shape, Columns(weight=taken.weight, bias=np.zeros_like(taken.bias)))
    return [tape.summed_to(back, tape.shapes[node.reads[0]])]


def _multiply(tape: Tape, node: Node, g: str, needed: Sequence[bool]) -> Gradients:
    x, y = node.reads
    g = tape.short(g)
    writers = {each.writes: each for each in tape.nodes}
    if (axes := normalised_over(node, writers, tape.shapes[x])) is not None:
        return [_normalised(tape, node, g, axes), None]
    return [
        _times(tape, g, other, own) if need else None for own, other, need in ((x, y, needed[0]), (y, x, needed[1]))
    ]


def _normalised(tape: Tape, node: Node, g: str, axes: tuple[int, ...]) -> str:
    """Write the gradient of c in n = c r, r = 1 / sqrt(mean c^2 + epsilon): r (g - n mean(g n)), exactly.

    What r itself passes on to c is in it, so no power of the mean square is evaluated, nor anything as large.
    """
    normal = tape.short(node.writes)
    along = tape.mean(tape.multiply(g, normal), axes)
    across = tape.sum((g, tape.multiply(normal, tape.short(along))), (1.0, -1.0))
    return tape.multiply(tape.short(across), node.reads[1])


def _times(tape: Tape, g: str, other: str, own: str) -> str:
    """Write g times the other operand, summed to the shape of this one: summed by the product itself, if it can be."""
    shape, own_shape = tape.shapes[g], tape.shapes[own]
    padded = (1,) * (len(shape) - len(own_shape)) + own_shape
    summed = [axis for axis, size in enumerate(shape) if padded[axis] != size]
    if not summed or tape.shapes[other] != shape:
        return tape.summed_to(tape.multiply(g, other), own_shape)
    kept = [axis for axis in range(len(shape)) if axis not in summed]
    rows, columns = (tape.merged(tuple(shape[axis] for axis in axes)) for axes in (kept, summed))
    row = tape.reshape(tape.transpose(g, kept + summed), (rows, 1, columns))
    column = tape.reshape(tape.transpose(other, kept + summed), (rows, columns, 1))
    return tape.shaped(tape.matmul(row, column), own_shape)


def _sum(tape: Tape, node: Node, g: str, needed: Sequence[bool]) -> Gradients:
    """Pass g on; what is summed for a bias is read as a product reads it, so that its sums fit as a matrix's do."""

    def summed(shape: Shape) -> str:
        return g if shape == tape.shapes[g] else tape.summed_to(tape.short(g), shape)

    return [
        tape.times(summed(tape.shapes[name]), factor) if need else None
        for name, factor, need in zip(node.reads, node.of(Sum).factors, needed, strict=True)
    ]


def _total(tape: Tape, node: Node, g: str, needed: Sequence[bool]) -> Gradients:
    shape = tape.shapes[node.reads[0]]
    for axis in node.of(Total).axes:
        if shape[axis] != 1:
            g = tape.take(g, axis, [0] * int(shape[axis]))
    return [tape.times(g, 1 / node.of(Total).divisor)]


def _weigh(tape: Tape, node: Node, g: str, needed: Sequence[bool]) -> Gradients:
    return [tape.emit("weigh", (g,), None, node.shape, node.attributes)]


def _reshape(tape: Tape, node: Node, g: str, needed: Sequence[bool]) -> Gradients:
    return [tape.shaped(g, tape.shapes[node.reads[0]])]


def _transpose(tape: Tape, node: Node, g: str, needed: Sequence[bool]) -> Gradients:
    return [tape.transpose(g, [int(axis) for axis in np.argsort(node.of(Transpose).axes)])]


def _concat(tape: Tape, node: Node, g: str, needed: Sequence[bool]) -> Gradients:
    axis, start = node.of(Concat).axis, 0
    found: list[str | None] = []
    for name, need in zip(node.reads, needed, strict=True):
        stop = start + int(tape.shapes[name][axis])
        found.append(tape.part(g, axis, start, stop) if need else None)
        start = stop
    return found


def _take(tape: Tape, node: Node, g: str, needed: Sequence[bool]) -> Gradients:
    """Write the slices back where they were; a take does that too, where no slice was taken twice."""
    taken, size = node.of(Take), int(tape.shapes[node.reads[0]][node.of(Take).axis])
    kept = [index for index in taken.indices if index >= 0]
    if len(set(kept)) < len(kept):
        return [tape.scatter(g, taken.axis, taken.indices, size)]
    where = dict(zip(taken.indices, range(len(taken.indices)), strict=True))
    back = [where.get(index, -1) for index in range(size)]
    return [g if back == list(range(len(taken.indices))) else tape.take(g, taken.axis, back)]


def _itself(tape: Tape, node: Node, g: str, needed: Sequence[bool]) -> Gradients:
    """Pass g on: the derivative of a rounding is that of what is rounded; of `lowest`, padding goes nowhere anyway."""
    return [g]


def _relu(tape: Tape, node: Node, g: str, needed: Sequence[bool]) -> Gradients:
    ceiling = node.attributes.ceiling if isinstance(node.attributes, Rectified) else None
    return [tape.select(g, node.reads[0], ceiling=ceiling)]


def _maximum(tape: Tape, node: Node, g: str, needed: Sequence[bool]) -> Gradients:
    return [tape.select(g, node.reads[0], among=True, rectify=node.of(Maximum).rectify)]


def _function(tape: Tape, node: Node, g: str, needed: Sequence[bool]) -> Gradients:
    return [function(tape, node, g)]


def _jumps(tape: Tape, node: Node, g: str, needed: Sequence[bool]) -> Gradients:
    raise node.origin.refuse(
        f"the derivative of {node.op!r} is zero wherever there is one, so weights before it would never learn",
        remedy="train with a smooth function in its place (a sigmoid for a step), or keep the layers before it as they "
        "are (frozen=[...])",
    )


DERIVATIVES: dict[str, Rule] = {
    "matmul": _matmul,
    "conv": _conv,
    "scale": _scale,
    "columns": _columns,
    "multiply": _multiply,
    "sum": _sum,
    "total": _total,
    "weigh": _weigh,
    "reshape": _reshape,
    "transpose": _transpose,
    "concat": _concat,
    "take": _take,
    "round": _itself,
    "fit": _itself,
    "lowest": _itself,
    "relu": _relu,
    "maximum": _maximum,
    "function": _function,
    "step": _jumps,
    "argmax": _jumps,
    "whole": _jumps,
}
