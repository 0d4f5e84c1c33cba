"""How weights follow their gradients: plain SGD, with momentum or weight decay, at public rates.

A step is W := W - lr V with V = mu V + G, G the gradient of the mean loss (as PyTorch's SGD without dampening).  Rates
are public: lr / B = k 2^-L, so that an update is an integer multiple of G and rounds nothing; mu = 1 - 2^-m.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from mpc.errors import UsageError

MOST_FACTOR = 15
"""The largest k that a rate is rounded to, where it is not exact: within 1/16 of what was asked for."""
_MOST_SHIFT = 40
_MOST_MOMENTUM = 6


@dataclass(frozen=True)
class Rate:
    """A learning rate beside the batch: lr / B = factor 2^-shift."""

    factor: int
    shift: int

    def of(self, batch: int) -> float:
        """Return the learning rate for a batch of so many rows."""
        return batch * self.factor / 2.0**self.shift


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent.

    Args:
        lr: the learning rate of the mean loss of a batch.
        momentum: 0, or 1 - 2^-m: 0.5, 0.75, 0.875, ..

    Raises:
        UsageError: a number is no rate, or no such momentum.
    """

    lr: float
    momentum: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.lr < math.inf:
            raise UsageError("a learning rate is a positive number", remedy="SGD(0.1)")
        if self.momentum not in {1 - 2.0**-m for m in range(_MOST_MOMENTUM + 1)}:
            raise UsageError(
                f"a momentum of {self.momentum!r}",
                cause="velocities are kept in fixed point, which a momentum of 1 - 2^-m shortens exactly",
                remedy="use 0, 0.5, 0.75, 0.875, 0.9375 or another of these up to 1 - 2^-6",
            )

    @property
    def halvings(self) -> int:
        """m, of a momentum 1 - 2^-m; 0 without."""
        return round(-math.log2(1 - self.momentum))

    def rate(self, batch: int, most: int = MOST_FACTOR) -> Rate:
        """Return lr / batch as k 2^-L: as it is, if k is small, else the nearest with k up to `most`.

        A smaller L leaves weights more room: so k is odd, and `most` is what decides how near it comes.

        Raises:
            UsageError: the rate is too small for fixed point.
        """
        exact = Fraction(self.lr) / batch
        shift = exact.denominator.bit_length() - 1
        if exact.denominator != 1 << shift or exact.numerator > 64:
            shift = math.floor(math.log2((most + 1) / exact))
            exact = Fraction(round(exact * Fraction(2) ** shift)) / Fraction(2) ** shift
        factor = exact.numerator
        shift = exact.denominator.bit_length() - 1
        if shift > _MOST_SHIFT:
            raise UsageError(
                f"a learning rate of {self.lr:g} for a batch of {batch}",
                remedy="use a larger rate or a smaller batch: their quotient is a multiple of 2^-40",
            )
        return Rate(factor, shift)
