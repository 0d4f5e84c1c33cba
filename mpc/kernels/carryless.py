"""Polynomials over GF(2), of 64 coefficients a word: their products, and the field of 2^64 elements.

A processor that multiplies them does (on x86 in one instruction); others multiply integers whose bits stand apart, so
that nothing carries from one to the next (as BearSSL's `ghash_ctmul64` does: Pornin 2016).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import intrinsic

from mpc.kernels.scalar import ONE, THREE

_INSTRUCTION, _FEATURE = "llvm.x86.pclmulqdq", "+pclmul"
_PAIR = ir.VectorType(ir.IntType(64), 2)
_EVERY_FOURTH = tuple(np.uint64(0x1111111111111111 << first) for first in range(4))
_SWAPPED = tuple((np.uint64(size), np.uint64(((1 << 64) - 1) // ((1 << size) + 1))) for size in (1, 2, 4, 8, 16, 32))


@intrinsic
def multiply_carryless(typing_context: Any, a: Any, b: Any) -> Any:
    """Return (high, low) words of the product of two polynomials, in time that does not depend on them."""
    signature = types.UniTuple(types.uint64, 2)(types.uint64, types.uint64)

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        if not _has_instruction(context):
            return context.compile_internal(builder, multiply_by_integers.py_func, sig, args)
        return context.make_tuple(builder, sig.return_type, _both_words(builder, _multiply(builder, *args)))

    return signature, emit


@intrinsic
def dot_carryless(typing_context: Any, a: Any, b: Any) -> Any:
    """Return (high, low) words of the sum of the products of a and b, place by place; contiguous, (N,) uint64.

    Operands are read into the registers that the instruction takes, and sums stay in one: moving words there and back
    takes longer than to multiply them.  That both have N elements is for callers to see to: nothing looks at it here.

    Raises:
        TypingError: an operand is no such array, or may be a view with steps.
    """
    if not all(isinstance(each, types.Array) and each.layout == "C" for each in (a, b)) or {
        (each.ndim, each.dtype) for each in (a, b)
    } != {(1, types.uint64)}:
        raise TypingError(f"contiguous (N,) arrays of uint64 are multiplied, not {a} and {b}")
    signature = types.UniTuple(types.uint64, 2)(a, b)

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        if not _has_instruction(context):
            return context.compile_internal(builder, dot_by_integers.py_func, sig, args)
        left, right = (
            context.make_array(kind)(context, builder, each) for kind, each in zip(sig.args, args, strict=True)
        )
        total = cgutils.alloca_once_value(builder, ir.Constant(_PAIR, [0, 0]))
        with cgutils.for_range(builder, left.nitems) as loop:
            words = [builder.load(builder.gep(each.data, [loop.index])) for each in (left, right)]
            builder.store(builder.xor(builder.load(total), _multiply(builder, *words)), total)
        return context.make_tuple(builder, sig.return_type, _both_words(builder, builder.load(total)))

    return signature, emit


def _has_instruction(context: Any) -> bool:
    return _FEATURE in context.codegen().magic_tuple()[2].split(",")


def _multiply(builder: Any, a: Any, b: Any) -> Any:
    """Emit the product of two words, as a pair."""
    kind = ir.FunctionType(_PAIR, [_PAIR, _PAIR, ir.IntType(8)])
    known = builder.module.globals.get(_INSTRUCTION)
    multiply = known if known is not None else ir.Function(builder.module, kind, _INSTRUCTION)
    nothing, place = ir.Constant(_PAIR, [0, 0]), ir.Constant(ir.IntType(32), 0)
    return builder.call(
        multiply, [*(builder.insert_element(nothing, each, place) for each in (a, b)), ir.Constant(ir.IntType(8), 0)]
    )


def _both_words(builder: Any, pair: Any) -> tuple[Any, Any]:
    """Emit (high, low) of a pair."""
    high, low = (builder.extract_element(pair, ir.Constant(ir.IntType(32), at)) for at in (1, 0))
    return high, low


@njit
def dot_by_integers(a: np.ndarray, b: np.ndarray) -> tuple[np.uint64, np.uint64]:
    """Return (high, low) as `dot_carryless` does, by products of integers."""
    high, low = np.uint64(0), np.uint64(0)
    for i in range(a.size):
        more, less = multiply_by_integers(a[i], b[i])
        high ^= more
        low ^= less
    return high, low


@njit
def multiply_by_integers(a: np.uint64, b: np.uint64) -> tuple[np.uint64, np.uint64]:
    """Return (high, low) as `multiply_carryless` does, by products of integers."""
    return _reverse(_multiply_low(_reverse(a), _reverse(b))) >> ONE, _multiply_low(a, b)


@njit(inline="always")
def _multiply_low(a: np.uint64, b: np.uint64) -> np.uint64:
    """The lower word of a product: of four bits one is kept at a time, so at most 16 meet in a place of it."""
    m0, m1, m2, m3 = _EVERY_FOURTH
    a0, a1, a2, a3 = a & m0, a & m1, a & m2, a & m3
    b0, b1, b2, b3 = b & m0, b & m1, b & m2, b & m3
    c0 = (a0 * b0) ^ (a1 * b3) ^ (a2 * b2) ^ (a3 * b1)
    c1 = (a0 * b1) ^ (a1 * b0) ^ (a2 * b3) ^ (a3 * b2)
    c2 = (a0 * b2) ^ (a1 * b1) ^ (a2 * b0) ^ (a3 * b3)
    c3 = (a0 * b3) ^ (a1 * b2) ^ (a2 * b1) ^ (a3 * b0)
    return (c0 & m0) | (c1 & m1) | (c2 & m2) | (c3 & m3)


@njit(inline="always")
def _reverse(a: np.uint64) -> np.uint64:
    """Bit 63 - i where bit i was."""
    for size, lower in _SWAPPED:
        a = ((a & lower) << size) | ((a >> size) & lower)
    return a


@njit(inline="always")
def reduce_carryless(high: np.uint64, middle: np.uint64, low: np.uint64) -> np.uint64:
    """Return a polynomial of three words modulo x^64 + x^4 + x^3 + x + 1, which is irreducible."""
    over, rest = _times_tail(high)
    middle ^= rest ^ _times_tail(over)[1]
    over, rest = _times_tail(middle)
    return low ^ rest ^ _times_tail(over)[1]


@njit(inline="always")
def _times_tail(a: np.uint64) -> tuple[np.uint64, np.uint64]:
    """Return (high, low) of a times x^4 + x^3 + x + 1, which x^64 is equal to."""
    four, sixty, last = np.uint64(4), np.uint64(60), np.uint64(63)
    return (a >> last) ^ (a >> np.uint64(61)) ^ (a >> sixty), a ^ (a << ONE) ^ (a << THREE) ^ (a << four)
