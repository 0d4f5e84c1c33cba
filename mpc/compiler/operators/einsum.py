"""Einsum of one or two operands: axes are summed, put in order, and the rest is a matrix product."""

from __future__ import annotations

import numpy as np

from mpc.compiler.graph.graph import Shape
from mpc.compiler.operators.context import Context, ModelNode, Settings
from mpc.compiler.operators.registry import handles
from mpc.wires import BATCH, Dimension


@handles("Einsum")
def einsum(state: Context, node: ModelNode, settings: Settings) -> None:
    terms, result = _parsed(state, settings["equation"].decode(), [_shape(state, name) for name in node.input])
    if len(terms) > 2:
        raise state.origin.refuse(
            "more than two operands are not supported",
            attribute="equation",
            remedy="write it as Einsums of two operands, one behind the other",
        )
    reduced = [
        _summed(state, name, term, set(result).union(*terms[:i], *terms[i + 1 :]))
        for i, (name, term) in enumerate(zip(node.input, terms, strict=True))
    ]
    if len(reduced) == 1:
        name, term = reduced[0]
        state.transpose(state.value(name), [term.index(label) for label in result], node.output[0])
        return
    _product(state, reduced[0], reduced[1], result, node.output[0])


def _shape(state: Context, name: str) -> Shape:
    return tuple(state.constants[name].shape) if state.is_constant(name) else state.secret(name)


def _parsed(state: Context, equation: str, shapes: list[Shape]) -> tuple[list[str], str]:
    """One letter an axis; an ellipsis becomes capital letters, the same for all operands, from the right."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms, spread = left.split(","), 0
    if len(terms) != len(shapes):
        raise state.origin.refuse(
            f"{equation!r} does not fit {len(shapes)} operands",
            attribute="equation",
            remedy="write one term for each operand, and one letter (or an ellipsis) for each of its axes",
        )
    filled = []
    for term, shape in zip(terms, shapes, strict=True):
        missing = len(shape) - len(term.replace("...", ""))
        spread = max(spread, missing if "..." in term else 0)
        filled.append(term.replace("...", _ELLIPSIS[len(_ELLIPSIS) - missing :] if missing else ""))
    everything = _ELLIPSIS[len(_ELLIPSIS) - spread :] if spread else ""
    if not arrow:
        once = sorted(c for c in set(left) if c.isalpha() and left.count(c) == 1)
        right = ("..." if "..." in left else "") + "".join(once)
    result = right.replace("...", everything)
    doubled = any(len(set(term)) != len(term) for term in (*filled, result))
    misfit = any(len(term) != len(shape) for term, shape in zip(filled, shapes, strict=True))
    if doubled or misfit or not set(result).issubset("".join(filled)):
        raise state.origin.refuse(
            f"the equation {equation!r} is not supported",
            attribute="equation",
            remedy=(
                "use each letter once a term, and in the result only letters of the terms; take a "
                "diagonal with Mul by Trilu or an identity, and ReduceSum"
            ),
        )
    return filled, result


_ELLIPSIS = "STUVWXYZ"


def _summed(state: Context, name: str, term: str, wanted: set[str]) -> tuple[str, str]:
    """The operand without the axes that nothing else has."""
    axes = [axis for axis, label in enumerate(term) if label not in wanted]
    if not axes:
        return name, term
    kept = "".join(label for label in term if label in wanted)
    if state.is_constant(name):
        value = state.numbers(name, "an operand").sum(axis=tuple(axes))
        summed = state.fresh()
        state.constants[summed] = value
        return summed, kept
    total = state.total(name, axes)
    shape = tuple(size for axis, size in enumerate(state.shapes[total]) if axis not in axes)
    return state.reshape(total, shape), kept


def _product(state: Context, x: tuple[str, str], y: tuple[str, str], result: str, out: str) -> None:
    """(stack, rows, joined) times (stack, joined, columns), each group of axes but the stack's made one."""
    if state.is_constant(x[0]):
        x, y = y, x
    stack = [c for c in result if c in x[1] and c in y[1]]
    joined = [c for c in x[1] if c in y[1] and c not in result]
    sizes = dict(zip(x[1] + y[1], (*_shape(state, x[0]), *_shape(state, y[0])), strict=True))
    if any(sizes[c] == BATCH and c not in x[1] for c in y[1]):
        x, y = y, x
    rows, columns = [c for c in x[1] if c not in y[1]], [c for c in y[1] if c not in x[1]]
    batch = [c for c in rows if sizes[c] == BATCH and len(rows) > 1]  # it is an axis of its own, before the stack's
    rows = [c for c in rows if c not in batch]
    left = _laid_out(state, x, [[*batch, *stack], rows, joined], sizes)
    lead = tuple(sizes[c] for c in stack)
    if state.is_constant(y[0]):
        order = [y[1].index(c) for c in (*stack, *joined, *columns)]
        weight = state.numbers(y[0], "an operand").transpose(order)
        count = int(np.prod([int(sizes[c]) for c in joined], initial=1))
        product = state.affine(left, weight.reshape(*map(int, lead), count, -1))
    else:
        product = state.matmul(left, _laid_out(state, y, [stack, joined, columns], sizes))
    whole = state.reshape(product, tuple(sizes[c] for c in (*batch, *stack, *rows, *columns)))
    order = [(*batch, *stack, *rows, *columns).index(c) for c in result]
    state.transpose(whole, order, out)


def _laid_out(state: Context, operand: tuple[str, str], groups: list[list[str]], sizes: dict[str, Dimension]) -> str:
    """The stack's axes, then two groups of axes as one each."""
    name, term = operand
    turned = state.transpose(state.value(name), [term.index(c) for group in groups for c in group])
    shape = state.shapes[turned]
    split = len(groups[0]), len(groups[0]) + len(groups[1])
    merged = (state.merged(shape[split[0] : split[1]]), state.merged(shape[split[1] :]))
    return state.reshape(turned, (*shape[: split[0]], *merged))
