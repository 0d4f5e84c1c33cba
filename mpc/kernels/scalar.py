"""One element at a time: what every loop is made of, inlined into it; and `compiled`, which makes it one."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from mpc.kernels.caching import compiled as compiled

P = np.uint64((1 << 61) - 1)
ZERO, ONE, TWO, THREE = (np.uint64(v) for v in range(4))
S61 = np.uint64(61)
HALF = np.uint64(1 << 60)
_S29, _S32 = np.uint64(29), np.uint64(32)
_LOW_29, _HALF_WORD = np.uint64((1 << 29) - 1), np.uint64((1 << 32) - 1)


@intrinsic
def multiply_add_wide(typing_context: Any, high: Any, low: Any, a: Any, b: Any) -> Any:
    """Return (high, low) of (high, low) + a b, modulo 2^128."""
    word = types.uint64
    signature = types.UniTuple(word, 2)(word, word, word, word)

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        wide = ir.IntType(128)
        upper = builder.shl(builder.zext(args[0], wide), ir.Constant(wide, 64))
        total = builder.or_(upper, builder.zext(args[1], wide))
        product = builder.mul(builder.zext(args[2], wide), builder.zext(args[3], wide))
        return _emit_pair(context, builder, sig, builder.add(total, product))

    return signature, emit


def _emit_pair(context: Any, builder: Any, sig: Any, value: Any) -> Any:
    word, wide = ir.IntType(64), ir.IntType(128)
    high = builder.trunc(builder.lshr(value, ir.Constant(wide, 64)), word)
    low = builder.trunc(value, word)
    return context.make_tuple(builder, sig.return_type, (high, low))


@intrinsic
def swap_bytes(typing_context: Any, a: Any) -> Any:
    """Return a word with its bytes in reverse order."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.bswap(args[0])

    return types.uint64(types.uint64), emit


@intrinsic
def shift_right(typing_context: Any, a: Any, count: Any) -> Any:
    """Return a >> count of two words of 32 bits, as such a word; count is below 32.

    Numba widens words to 64 bits before it shifts them, and half as many fit a register then.
    """

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.lshr(args[0], args[1])

    return types.uint32(types.uint32, types.uint32), emit


@intrinsic
def shift_left(typing_context: Any, a: Any, count: Any) -> Any:
    """Return a << count, as `shift_right`."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.shl(args[0], args[1])

    return types.uint32(types.uint32, types.uint32), emit


@njit(inline="always")
def fold(s: np.uint64) -> np.uint64:
    """Reduce any 64-bit word to its canonical residue."""
    s = (s & P) + (s >> S61)
    return min(s, s - P)


@njit(inline="always")
def fold_wide(high: np.uint64, low: np.uint64) -> np.uint64:
    """Reduce any 128-bit value high 2^64 + low to its canonical residue (2^64 = 8 mod p)."""
    upper = (high << THREE) | (low >> S61)
    carry = high >> S61
    return fold(fold(upper) + (low & P) + (carry << THREE))


@njit(inline="always")
def mul_mod(a: np.uint64, b: np.uint64) -> np.uint64:
    """Return a b mod p for canonical a, b.

    Of halves of 32 and 29 bits, whose products fit one word: a compiler finds these side by side, as it does not find
    the words of a 128-bit product (2^64 = 8 and 2^61 = 1 mod p).
    """
    low_a, high_a, low_b, high_b = a & _HALF_WORD, a >> _S32, b & _HALF_WORD, b >> _S32
    low, middle, high = low_a * low_b, low_a * high_b + high_a * low_b, high_a * high_b
    return fold((low & P) + (low >> S61) + (high << THREE) + ((middle & _LOW_29) << _S32) + (middle >> _S29))


@njit(inline="always")
def add_mod(a: np.uint64, b: np.uint64) -> np.uint64:
    s = a + b
    return min(s, s - P)


@njit(inline="always")
def sub_mod(a: np.uint64, b: np.uint64) -> np.uint64:
    s = a + (P - b)
    return min(s, s - P)


@njit(inline="always")
def rotate(a: np.uint64, k: np.uint64) -> np.uint64:
    """Return a 2^k mod p, 0 < k < 61: a rotation of 61 bits."""
    return ((a << k) & P) | (a >> (S61 - k))
