"""Powers and logarithms over many octaves: u = x s in one octave, s a power of two found by comparing.

Then x^e = u^e s^-e and log x = log u - log s, with a short series for u in [1, 2); s^-e and log s are
linear in the comparison's bits.  What lies below the least octave is scaled by that octave's s, or
counts as that octave if it may be negative.  There the series means nothing, and is between its own ends.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from mpc.compiler.functions import Parameters
from mpc.compiler.lowering.builder import Lowering
from mpc.compiler.lowering.emitted import SMALLER, Value
from mpc.compiler.lowering.intervals import ROUNDING, Interval
from mpc.compiler.lowering.scales import log2
from mpc.compiler.series import Series, fit

Evaluate = Callable[[Value, Series, int, bool], Value]
"""A series on a value with so many fractional bits; does it lie anywhere, or where the series was fitted?"""
Ends = tuple[float, float]

_DEEPEST = 40
_POWER_BITS = 18
_LONGEST_FACTOR = 46
_FINEST_RESULT = 64
"""Fractional bits of a result, beyond which a wire has no room for its truncation."""
_LEAST_DIGITS = 16
_DIGITS = 64
_EXPONENTS = {"reciprocal": -1.0, "rsqrt": -0.5, "sqrt": 0.5}
INSIDE = (0.98, 2.04)


@dataclass(frozen=True)
class _Octaves:
    """x = u / s: which octaves there are, in units of x, and the bits that tell them apart.

    Args:
        first, last: the least and the largest, as exponents of two.
        bits: [x >= 2^i] for i in first + 1 .. last, along one more axis; from first on if x may be
            negative, which `below` says.
    """

    x: Value
    first: int
    last: int
    bits: Value
    below: bool

    @property
    def exponents(self) -> range:
        """The exponents of s, from the least octave to the largest."""
        return range(self.last - self.first, -1, -1)

    def choices(self, values: list[int], below: int | None = None) -> list[int]:
        """One for each octave, and one for what is below the first; else that is as in the first."""
        return [values[0] if below is None else below, *values] if self.below else values


def possible(name: str) -> bool:
    """Is it a power or a logarithm?"""
    return name in _EXPONENTS or name in ("log", "power")


def rises_from_zero(name: str, parameters: Parameters) -> bool:
    """Is it a positive power, which is 0 at 0?"""
    return name == "sqrt" or (name == "power" and dict(parameters)["exponent"] > 0)


def in_one_octave(x: Value) -> bool:
    """Tell whether an argument that has digits lies in one octave of its units, where comparing finds nothing."""
    least, most = x.interval.least, x.interval.most
    return least >= _DIGITS and math.frexp(least)[1] == math.frexp(most)[1]


def shortened_by(x: Value) -> int:
    """Return how many bits an argument has too many to be compared with octaves."""
    return max(0, x.wire.bits - _DEEPEST - 1)


def apply(
    state: Lowering, x: Value, name: str, parameters: Parameters, evaluate: Evaluate, low: float, least: float
) -> Value:
    """Return f(x) for positive x.

    Args:
        low, least: what x can really be, if that is less than its interval says: on the coarse grid, which decides how
            it is computed, and exactly, for what can be proved of the result.
    """
    octaves = _compared(state, x, low)
    u = _normal(state, octaves)
    series = fit(name, parameters, *INSIDE, 1e-6, float(1 / u.scale))
    outside = least * float(octaves.x.scale) < 1 << octaves.first
    ends = series.ends if outside else None
    if name == "log":
        relative = max(ROUNDING, x.interval.worst_error) / max(x.interval.least, x.interval.most / 8)
        return _logarithm(state, octaves, evaluate(u, series, 36, outside), min(1.0, relative), ends)
    exponent = _EXPONENTS.get(name) or dict(parameters)["exponent"]
    return _power(state, octaves, evaluate(u, series, 34 if exponent > 0 else 36, outside), exponent, ends)


def _compared(state: Lowering, x: Value, low: float) -> _Octaves:
    if shortened_by(x):
        x = state.shorten(x, log2(x.scale) - shortened_by(x))
    first = max(0, math.floor(math.log2(max(x.interval.least, 1.0))))
    last = max(first, math.floor(math.log2(max(x.interval.most, 1.0))))
    if first == last:
        raise state.origin.refuse(
            "its argument has no digits left",
            remedy=(
                "declare a wider input range (--range NAME=LOW:HIGH), or multiply by a constant "
                "before it: it is nearly always zero on this one"
            ),
        )
    below = low * float(x.scale) < -1
    levels = tuple(1 << i for i in range(first if below else first + 1, last + 1))
    shape = (*x.shape, len(levels))
    shift = max(0, first - 6, x.wire.bits + 2 - 48)
    interval = Interval.between(0, 1, (*x.interval.low.shape, len(levels)))
    bits = state.add("step", shape, Fraction(1), interval, x=x.wire.name, levels=levels, shift=shift)
    return _Octaves(x, first, last, bits, below)


def _normal(state: Lowering, octaves: _Octaves) -> Value:
    """u, from 1 to 2 at its scale: its wire has room for what is below the least octave."""
    x, one = octaves.x, float(1 << octaves.last)
    powers = octaves.choices([1 << i for i in octaves.exponents], 0)
    s = _chosen(state, octaves, powers, Fraction(1 << octaves.last) / x.scale)
    spare = 4.0 * (1 << (octaves.last - octaves.first))
    shape = x.interval.low.shape
    interval = Interval.between(-spare, 2.0 * one + spare, shape)
    u = state.add("multiply", x.shape, x.scale * s.scale, interval, x=x.wire.name, y=s.wire.name)
    return Value(u.wire, Interval.between(one, 2.0 * one, shape))


def _logarithm(state: Lowering, octaves: _Octaves, log_u: Value, relative: float, ends: Ends | None) -> Value:
    """log u - log s; ends: of the series, if x can be below the least octave."""
    x, unit = octaves.x, float(log_u.scale)
    logs = octaves.choices([round(-i * math.log(2) * unit) for i in octaves.exponents])
    whole = round(math.log(2.0**octaves.last / float(x.scale)) * unit)
    chosen = _chosen(state, octaves, logs, log_u.scale)
    total = state.combine([log_u, chosen], [1, 1], x.shape, log_u.scale, whole)
    low, high = (math.log(max(end, 1.0) / float(x.scale)) for end in (x.interval.least, x.interval.most))
    if ends is not None:
        first = math.log(2.0**octaves.first / float(x.scale))
        low, high = min(low, first + ends[0]), max(high, first + ends[1])
    shape = x.interval.low.shape
    return Value(total.wire, Interval.between((low - 0.1) * unit, (high + 0.1) * unit, shape, relative * unit))


def _power(state: Lowering, octaves: _Octaves, power_u: Value, exponent: float, ends: Ends | None) -> Value:
    """u^e s^-e, whose bound follows from the power on the interval of x.

    Args:
        ends: of the series, if x can be below the least octave.
    """
    x = octaves.x
    within_octaves = (max(x.interval.least, 2.0**octaves.first), max(x.interval.most, 1.0))
    values = [(end / float(x.scale)) ** exponent for end in within_octaves]
    reals = [2.0 ** (-i * exponent) for i in octaves.exponents]
    outer = (2.0**octaves.last / float(x.scale)) ** exponent  # s in the model's units is 2^i scale / 2^last
    # a positive power is measured by its largest value, a negative one by its least; whole ones are exact
    digits = _POWER_BITS + 2 if exponent > 0 else _POWER_BITS - math.frexp(min(reals))[1]
    if exponent < 0 and exponent.is_integer():
        digits = 0
    within = 1.0
    if digits:  # the integers are rounded anyway, and take in what `outer` is less than a power of two
        within = outer / 2.0 ** math.ceil(math.log2(outer))
    integers = [max(1, round(math.ldexp(v * within, digits))) for v in reals]
    if max(integers) >= 1 << _LONGEST_FACTOR:
        raise state.origin.refuse(
            f"its largest result is {max(values) / min(values):.2g} times its least, too many digits for fixed point",
            remedy=f"{SMALLER}, or put a Clip before it that keeps it further from zero",
        )
    largest = max(1.0, 2.0**exponent)  # of u^e
    scale = Fraction(2) ** digits / Fraction(outer / within)
    fraction = min(36, 56 - math.frexp(max(reals) * largest)[1] - digits)
    power_u = state.shorten(power_u, min(fraction, max(_LEAST_DIGITS, _FINEST_RESULT - log2(scale))))
    g = _chosen(state, octaves, octaves.choices(integers), scale)
    chosen = math.ldexp(integers[0], -digits) * outer / within  # in the least octave, by a rounded integer
    lowest = min(1.0, chosen / (2.0**octaves.first / float(x.scale)) ** exponent) * min(values)
    outermost = [end * chosen for end in ends or ()]
    least = min([lowest * 0.95, *(end * (0.95 if end > 0 else 1.05) for end in outermost)])
    most = 1.05 * max(values + outermost)
    scale = power_u.scale * g.scale
    unit = float(scale)
    own = math.hypot(power_u.interval.worst_error / float(power_u.scale), 2.0 ** (1 - _POWER_BITS))
    usual, error = _usual(x, exponent, own)
    typical = np.full(x.interval.low.shape, usual * unit)
    bounds = Interval.between(least * unit, most * unit, typical.shape)
    error = np.minimum(error * unit, typical)
    interval = Interval(bounds.low, bounds.high, error, typical, np.square(typical) / 4)
    value = state.add("multiply", x.shape, scale, interval, x=power_u.wire.name, y=g.wire.name)
    if exponent == -1:
        state.inverses[value.wire.name] = power_u, g
    return value


def _usual(x: Value, exponent: float, own: float) -> tuple[float, float]:
    """How large a power is, and what it is off by, for x of the usual size; of divisors one in eight is smaller.

    Roots are mostly those of means, which keep closer together.

    own: the error of the power itself, beside its size.
    """
    unit = float(x.scale)
    top = min(x.interval.most, math.sqrt(3) * float(x.interval.typical.max()))  # as if uniform up to there
    below = 8 if exponent <= -1 else 2
    ends = [max(x.interval.least, end, 1.0) / unit for end in (top / below, top)]
    size = max(end**exponent for end in ends)
    slope = abs(exponent) * max(end ** (exponent - 1) for end in ends)
    off = max(ROUNDING, x.interval.worst_error) / unit
    return size, math.hypot(own * size, slope * off)


def _chosen(state: Lowering, octaves: _Octaves, choices: list[int], scale: Fraction) -> Value:
    """The choice of x's octave: linear in the bits, choices[i] where i of them are one."""
    x, bits, axis = octaves.x, octaves.bits, len(octaves.bits.shape) - 1
    steps = np.diff(np.array(choices, dtype=np.int64))
    weighed = state.add(
        "weigh",
        bits.shape,
        scale,
        bits.interval.times(steps.astype(np.float64)),
        x=bits.wire.name,
        axis=axis,
        factors=tuple(steps.tolist()),
    )
    interval = weighed.interval.summed((axis,))
    total = state.add("total", (*x.shape, 1), scale, interval, x=weighed.wire.name, axes=(axis,))
    chosen = state.combine([state.reshape(total, x.shape)], [1], x.shape, scale, choices[0])
    low, high = float(min(choices)), float(max(choices))
    return Value(chosen.wire, Interval.between(low, high, chosen.interval.low.shape))
