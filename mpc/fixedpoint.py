"""Real numbers as integers: round(x scale), with everything refused that has no such integer."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from mpc.errors import InputError

_BEYOND = 16
"""What stands for missing numbers is so small a part of a range beyond it."""
_APART = 128
"""Roundings of the largest number by which it is beyond, times that part, if the range is narrow."""


def encode(values: np.ndarray, scale: Fraction, what: str = "value") -> np.ndarray:
    """Return int64 nearest to values times scale.

    Raises:
        InputError: a value is infinite or not a number, or the result does not fit 59 bits.
    """
    reals = np.asarray(values, dtype=np.float64)
    if np.isnan(reals).any():
        raise InputError(f"{what} holds NaN", remedy="leave these rows out, or put a number in its place")
    if not np.isfinite(reals).all():
        raise InputError(f"{what} holds infinity", remedy="put a large number that does as well in its place")
    scaled = np.rint(reals * float(scale))
    if scaled.size and np.abs(scaled).max() >= float(1 << 59):
        raise InputError(f"{what} is too large for its scale", remedy="declare a range that fits the data")
    return scaled.astype(np.int64)


def encode_columns(
    values: np.ndarray, scale: Fraction, offset: Sequence[Fraction], factor: Sequence[Fraction], what: str = "value"
) -> np.ndarray:
    """Return int64 nearest to (values - offset) factor scale; offset and factor are one number, or one a column.

    Raises:
        InputError: as `encode`.
    """
    reals = np.asarray(values, dtype=np.float64)
    if any(offset):
        reals = reals - np.array([float(each) for each in offset])
    if any(each != 1 for each in factor):
        reals = reals * np.array([float(each) for each in factor])
    return encode(reals.reshape(np.shape(values)), scale, what)


def encode_places(values: np.ndarray, places: int) -> np.ndarray:
    """Return int64 zeros on one more axis, of size `places`, with 1 where each value tells; negative ones from the end.

    Args:
        values: whole numbers from -places to places - 1.
    """
    found = np.zeros((*values.shape, places), dtype=np.int64)
    np.put_along_axis(found, np.asarray(values, dtype=np.int64)[..., None] % places, 1, axis=-1)
    return found


def decode(integers: np.ndarray, scale: Fraction) -> np.ndarray:
    """Return float64 of what integers stand for."""
    return integers.astype(np.float64) / float(scale)


def nearest_to_zero(low: Any, high: Any) -> np.ndarray:
    """Return float64: the number of each column's range that is nearest to zero, which stands for missing ones."""
    return np.clip(0.0, np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64))


def beyond(low: Any, high: Any, dtype: str, side: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the number that stands for missing ones of each column, and the one halfway there from its range; float64.

    Both are beyond the range on one side, by more than a number of this type is rounded by, and by little beside the
    range.

    Args:
        side: "high" or "low".
    """
    low, high = np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64)
    size, width = np.maximum(np.abs(low), np.abs(high)), high - low
    apart = np.maximum(width, _APART * float(np.finfo(dtype).eps) * size)
    step = np.where(width > 0, apart, np.where(size > 0, size, 1.0)) / _BEYOND
    return (high + step, high + step / 2) if side == "high" else (low - step, low - step / 2)


def check_range(
    values: np.ndarray, low: Sequence[Fraction], high: Sequence[Fraction], name: str, missing: Sequence[int] = ()
) -> None:
    """Raise unless every value of an input is finite and inside its declared range, or is missing where that may be.

    Args:
        low, high: one number, or one for each column of the last axis.
        missing: columns of the last axis in which NaN is possible.

    Raises:
        InputError: naming the input and the range; the values in the message are the caller's own.
    """
    reals = np.asarray(values)
    wild = ~np.isfinite(reals)
    if missing:
        columns = [*missing]
        wild[..., columns] &= ~np.isnan(reals[..., columns])
    if wild.any():
        raise _wild(reals, wild, name)
    kind = reals.dtype if reals.dtype.kind == "f" else np.float64  # 0.1 as a float32 is not 0.1 as a float64
    lows, highs = (np.array([float(end) for end in ends]).astype(kind) for ends in (low, high))
    outside = np.atleast_1d((reals < lows) | (reals > highs))
    if not outside.any():
        return
    column = int(np.argwhere(outside)[0][-1])
    least, most = lows[column % lows.size], highs[column % highs.size]
    remedy = f"declare a range that fits: --range {name}=LOW:HIGH, in Python ranges={{{name!r}: (low, high)}}"
    if reals.dtype.kind != "f":
        remedy = (
            f"enter numbers from {least:g} to {most:g} if these are places in a table of the model, which has no "
            f"others; else {remedy}"
        )
    place = f" in {column_of(outside)}" if reals.ndim else ""
    raise InputError(
        f"input {name!r} has {np.atleast_1d(reals)[outside][0]:g}{place}, outside the plan's range {least:g}:{most:g}",
        cause="bounds are proved for that range only; beyond it results would be wrong without warning",
        remedy=remedy,
    )


def _wild(reals: np.ndarray, wild: np.ndarray, name: str) -> InputError:
    """Word that a number is missing where none may be, or else that one is infinite: other things help."""
    if np.isnan(reals[wild]).any():
        place = f"{column_of(wild & np.isnan(reals))}: " if reals.ndim else ""
        return InputError(
            f"input {name!r} holds NaN",
            cause=f"{place}only columns that nothing reads but an Imputer of NaN or trees may miss numbers",
            remedy="fill it in before it is entered, put an Imputer of NaN (scikit-learn's SimpleImputer) first in "
            "the model, or leave these rows out",
        )
    place = f"{column_of(wild)}: " if reals.ndim else ""
    return InputError(
        f"input {name!r} holds infinity",
        cause=f"{place}every value enters as a number in a declared range; what is too large for its type, or "
        "divided by zero, becomes infinite",
        remedy="cut it to the end of its range before it is entered (numpy.clip), or leave these rows out; an "
        "Imputer of NaN does not see it",
    )


def column_of(where: np.ndarray) -> str:
    """Name the last axis's place of the first element that is marked, as all messages count columns."""
    return f"column {np.argwhere(where)[0][-1]} (the first is column 0)"
