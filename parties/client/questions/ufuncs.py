"""Universal functions of numpy by operators of ONNX: types and shapes are numpy's own answer."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mpc.errors import UsageError
from parties.client.questions import levels
from parties.client.questions.expression import (
    REAL,
    ROWS,
    TRUTH,
    WHOLE,
    Node,
    Shape,
    apply,
    broadcast,
    cast,
    elementwise,
    kind_of,
    public,
)
from parties.client.questions.reasons import REASONS, refusal

Builder = Callable[..., Node]
"""(what is read, of the type that numpy computes it in) -> the result."""


def _plain(op: str) -> Builder:
    return lambda *reads: elementwise(op, reads[0].dtype, *reads)


def _compared(op: str) -> Builder:
    def build(*reads: Node) -> Node:
        if reads[0].dtype == TRUTH and op != "Equal":
            reads = tuple(cast(each, WHOLE) for each in reads)
        found = elementwise(op, TRUTH, *reads)
        return replace(found, bits=_equals(*reads)) if op == "Equal" else found

    return build


def _equals(x: Node, y: Node) -> Node | None:
    """Return 1 where a whole number is this public one, else 0, if it can be told by levels."""
    if x.value is not None:
        x, y = y, x
    known = None if y.value is None or y.value.size != 1 or y.value.ndim or x.value is not None else y.value.item()
    while x.op == "Cast" and x.dtype == REAL and x.reads[0].dtype == WHOLE:
        x = x.reads[0]
    if known is None or known != int(known):
        return None
    return levels.among(x, [int(known)])


def _logical(op: str) -> Builder:
    def build(*reads: Node) -> Node:
        if any(each.dtype == WHOLE for each in reads) and op != "Truth":
            raise UsageError(
                "bits of whole numbers are not computed", remedy="& | ^ ~ are for conditions: a == 1, a > 3"
            )
        found = elementwise(op, TRUTH, *reads)
        return replace(found, bits=_BITS[op](*reads)) if op in _BITS else found

    return build


def _either(x: Node, y: Node) -> Node:
    """Return 1 - (1 - x) (1 - y): one product, where x + y - x y has three parts that each count."""
    return _flipped(elementwise("Mul", WHOLE, _flipped(cast(x, WHOLE)), _flipped(cast(y, WHOLE))))


def _one_of_two(x: Node, y: Node) -> Node:
    """Return (x - y)^2."""
    apart = elementwise("Sub", WHOLE, cast(x, WHOLE), cast(y, WHOLE))
    return elementwise("Mul", WHOLE, apart, apart)


def _flipped(x: Node) -> Node:
    return elementwise("Sub", WHOLE, public(1), x)


def _opposite(x: Node) -> Node | None:
    return None if x.bits is None else _flipped(x.bits)


_BITS: dict[str, Callable[..., Node | None]] = {"Or": _either, "Xor": _one_of_two, "Not": _opposite}


def _arithmetic(op: str, of_truths: str) -> Builder:
    """Take one operator for numbers and another for conditions: there numpy's + is or, its * is and."""

    def build(*reads: Node) -> Node:
        if reads[0].dtype == TRUTH:
            return _logical(of_truths)(*reads)
        return elementwise(op, reads[0].dtype, *reads)

    return build


def _scaled(op: str, factor: float) -> Builder:
    return lambda x: elementwise("Mul", x.dtype, elementwise(op, x.dtype, x), public(factor))


def _extreme(op: str, of_truths: str) -> Builder:
    return _arithmetic(op, of_truths)


def _divided(x: Node, y: Node) -> Node:
    exponent = _logistic(y)
    if exponent is not None:
        found = elementwise("Sigmoid", REAL, elementwise("Neg", REAL, exponent))
        return found if _is_one(x) else elementwise("Mul", REAL, x, found)
    if y.value is not None:
        if not y.value.all():
            raise UsageError("a column is divided by zero", remedy="divide by something else")
        return elementwise("Mul", REAL, x, public(1 / y.value))
    return elementwise("Div", REAL, x, y)


def _logistic(y: Node) -> Node | None:
    """Return z if y is 1 + exp(z): what is divided by it is a logistic function, which is computed as one."""
    if y.op != "Add":
        return None
    for one, other in (y.reads, y.reads[::-1]):
        if _is_one(one) and other.op == "Exp":
            return other.reads[0]
    return None


def _is_one(x: Node) -> bool:
    return x.value is not None and x.value.ndim == 0 and bool(x.value == 1)


def _hypot(x: Node, y: Node) -> Node:
    squares = [elementwise("Mul", REAL, each, each) for each in (x, y)]
    return elementwise("Sqrt", REAL, elementwise("Add", REAL, *squares))


def _heaviside(x: Node, at_zero: Node) -> Node:
    zero = public(0.0)
    above = cast(elementwise("Greater", TRUTH, x, zero), REAL)
    equal = cast(elementwise("Equal", TRUTH, x, zero), REAL)
    return elementwise("Add", REAL, above, elementwise("Mul", REAL, equal, at_zero))


def _power(x: Node, y: Node) -> Node:
    if y.value is not None and y.value.ndim == 0 and y.value == 2:
        return elementwise("Mul", x.dtype, x, x)
    if x.value is None and (y.value is None or y.value.size != 1):
        raise UsageError("a power of a column has one public exponent", remedy="x**3, np.sqrt(x), np.exp(x)")
    return elementwise("Pow", x.dtype, x, y)


def _negated(op: str) -> Builder:
    return lambda *reads: _logical("Not")(_compared(op)(*reads))


def _never(x: Node) -> Node:
    """Data has a range, so no number of it is missing or infinite: a missing one is marked in a column of its own."""
    return elementwise("Less", TRUTH, cast(elementwise("Mul", REAL, cast(x, REAL), public(0.0)), REAL), public(-1.0))


def _product(x: Node, y: Node) -> Node:
    shape = _product_shape(x.shape, y.shape)
    if x.dtype == TRUTH:
        raise UsageError("a product of conditions", remedy="astype(int) makes them 0 and 1")
    return apply("MatMul", x.dtype, shape, x, y)


def _product_shape(x: Shape, y: Shape) -> Shape:
    fault = None
    if len(x) < 2 or x[0] != ROWS or ROWS in y or not y:
        fault = "the left side has rows, (rows, k), and the right side is a public array of k rows"
    elif x[-1] != y[-2 if len(y) > 1 else 0] or len(y) > 2:
        fault = f"rows of {x[1:]} do not fit {y}"
    if fault:
        raise UsageError(
            "this product is not one of each row",
            cause=fault,
            remedy="x[['a', 'b']] @ w; a product of two columns of a row is x * y, and its sum (x * y).sum()",
        )
    return (*x[:-1], *y[1:])


UFUNCS: dict[np.ufunc, Builder] = {
    np.add: _arithmetic("Add", "Or"),
    np.subtract: _plain("Sub"),
    np.multiply: _arithmetic("Mul", "And"),
    np.divide: _divided,
    np.floor_divide: levels.floor_divide,
    np.remainder: levels.remainder,
    np.floor: levels.floor,
    np.ceil: levels.ceil,
    np.trunc: levels.trunc,
    np.hypot: _hypot,
    np.heaviside: _heaviside,
    np.negative: _plain("Neg"),
    np.positive: lambda x: x,
    np.absolute: _plain("Abs"),
    np.fabs: _plain("Abs"),
    np.sign: _plain("Sign"),
    np.sqrt: _plain("Sqrt"),
    np.square: lambda x: elementwise("Mul", x.dtype, x, x),
    np.reciprocal: _plain("Reciprocal"),
    np.exp: _plain("Exp"),
    np.exp2: lambda x: elementwise("Exp", REAL, elementwise("Mul", REAL, x, public(math.log(2)))),
    np.expm1: lambda x: elementwise("Sub", REAL, elementwise("Exp", REAL, x), public(1.0)),
    np.log: _plain("Log"),
    np.log2: _scaled("Log", 1 / math.log(2)),
    np.log10: _scaled("Log", 1 / math.log(10)),
    np.log1p: lambda x: elementwise("Log", REAL, elementwise("Add", REAL, x, public(1.0))),
    np.sin: _plain("Sin"),
    np.cos: _plain("Cos"),
    np.tanh: _plain("Tanh"),
    np.sinh: _plain("Sinh"),
    np.cosh: _plain("Cosh"),
    np.arctan: _plain("Atan"),
    np.arcsinh: _plain("Asinh"),
    np.power: _power,
    np.float_power: _power,
    np.maximum: _extreme("Max", "Or"),
    np.minimum: _extreme("Min", "And"),
    np.fmax: _extreme("Max", "Or"),
    np.fmin: _extreme("Min", "And"),
    np.greater: _compared("Greater"),
    np.greater_equal: _compared("GreaterOrEqual"),
    np.less: _compared("Less"),
    np.less_equal: _compared("LessOrEqual"),
    np.equal: _compared("Equal"),
    np.not_equal: _negated("Equal"),
    np.logical_and: _logical("And"),
    np.logical_or: _logical("Or"),
    np.logical_xor: _logical("Xor"),
    np.logical_not: _logical("Not"),
    np.bitwise_and: _logical("And"),
    np.bitwise_or: _logical("Or"),
    np.bitwise_xor: _logical("Xor"),
    np.invert: _logical("Not"),
    np.isnan: _never,
    np.isinf: _never,
    np.isfinite: lambda x: elementwise("Not", TRUTH, _never(x)),
    np.deg2rad: lambda x: elementwise("Mul", REAL, x, public(math.pi / 180)),
    np.rad2deg: lambda x: elementwise("Mul", REAL, x, public(180 / math.pi)),
    np.matmul: _product,
}
_LOGICAL = (np.logical_and, np.logical_or, np.logical_xor, np.logical_not)
_KEPT = (np.isnan, np.isinf, np.isfinite)


def call(ufunc: np.ufunc, operands: Sequence[Any]) -> Node:
    """Return what a universal function makes of values; Python's numbers take the others' type, as in numpy.

    Args:
        operands: nodes, public arrays and numbers.

    Raises:
        UsageError: it is not computed here, and why, or numpy itself refuses it.
    """
    build = UFUNCS.get(ufunc)
    if build is None:
        raise refusal(f"np.{ufunc.__name__}", REASONS.get(ufunc.__name__))
    weak = [type(each) if type(each) in (int, float) else None for each in operands]
    nodes = [each if isinstance(each, Node) else public(each) for each in operands]
    broadcast(*(each.shape for each in nodes)) if ufunc is not np.matmul else None
    if ufunc in _LOGICAL:
        return build(*(truth(each) for each in nodes))
    if ufunc in _KEPT:
        return build(*nodes)
    asked = tuple(known or node.dtype for known, node in zip(weak, nodes, strict=True))
    try:
        *taken, given = ufunc.resolve_dtypes((*asked, None))
    except TypeError:
        names = " and ".join(str(node.dtype) for node in nodes)
        raise UsageError(f"numpy has no {ufunc.__name__} of {names}", remedy="astype(int) or astype(float)") from None
    found = build(*(cast(node, kind_of(dtype)) for node, dtype in zip(nodes, taken, strict=True)))
    return cast(found, kind_of(given))


def truth(x: Node) -> Node:
    """Return where x is not zero."""
    return x if x.dtype == TRUTH else _negated("Equal")(x, cast(public(0), x.dtype))
