"""Public integer tables that multiply shares: the same integers on every machine.

One differing unit in a public number that multiplies a uniform share yields garbage, so no
floating-point library is asked: sines are made here with integers of 192 bits, their digest
is part of every plan that uses them, and a party whose table differs refuses that plan.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from mpc import encoding

ANGLE_BITS = 24
UNIT_BITS = 30
MOST_WINDOW = 56
"""Bits of a period, in units of the wire that is looked up."""
_HALF_BITS = ANGLE_BITS // 2
_WORK = 192


@cache
def sincos() -> np.ndarray:
    """Return (4, 4096) int64: cos and sin of the coarse angles, cos and sin of the fine ones.

    Coarse: 2 pi i / 2^12.  Fine: 2 pi (i + 1/2) / 2^24.  Unit: 2^30.
    """
    turn = 2 * _pi()
    steps = 1 << _HALF_BITS
    coarse = _rotations((1 << _WORK, 0), turn >> _HALF_BITS, steps)
    fine = _rotations(_cos_sin(turn >> (ANGLE_BITS + 1)), turn >> ANGLE_BITS, steps)
    table = np.array([*zip(*coarse, strict=True), *zip(*fine, strict=True)], dtype=np.int64)
    table.flags.writeable = False
    return table


def sincos_digest() -> str:
    """Return the hex SHA-256 of the canonical table."""
    return encoding.digest("mpc/v1/table/sincos", sincos().astype("<i8").tobytes()).hex()


def _rotations(start: tuple[int, int], angle: int, count: int) -> list[tuple[int, int]]:
    """`count` points from `start` on, each turned by `angle`, rounded to the unit."""
    c, s = start
    turn_c, turn_s = _cos_sin(angle)
    points = []
    for _ in range(count):
        points.append((_rounded(c), _rounded(s)))
        c, s = (c * turn_c - s * turn_s) >> _WORK, (c * turn_s + s * turn_c) >> _WORK
    return points


def _rounded(value: int) -> int:
    shift = _WORK - UNIT_BITS
    return (value + (1 << (shift - 1))) >> shift


def _cos_sin(angle: int) -> tuple[int, int]:
    """Taylor series; angle and results in units of 2^-192."""
    sums, term, n = [0, 0, 0, 0], 1 << _WORK, 0
    while term:
        sums[n % 4] += term
        n += 1
        term = (term * angle >> _WORK) // n
    return sums[0] - sums[2], sums[1] - sums[3]


def _pi() -> int:
    """Machin's formula, in units of 2^-192."""
    return 4 * (4 * _arccot(5) - _arccot(239))


def _arccot(x: int) -> int:
    guard = 32
    power = (1 << (_WORK + guard)) // x
    total, n, sign = 0, 1, 1
    while power:
        total += sign * (power // n)
        power //= x * x
        n, sign = n + 2, -sign
    return total >> guard
