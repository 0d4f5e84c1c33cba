"""Say how weights follow their gradients: plain SGD, with momentum or weight decay, at public rates.

A step is W := W - lr V with V = mu V + G, G the gradient of the mean loss (as PyTorch's SGD without dampening).  Rates
are public: lr / B = k 2^-L, so that an update is an integer multiple of G and rounds nothing; mu = j 2^-m.

Weight decay takes lr decay W off as well, rounded by an unbiased coin to W's own units.  Without momentum that is
PyTorch's; with it, the decay does not go through V (Loshchilov and Hutter 2019, Decoupled weight decay regularization).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from mpc.errors import UsageError

MOST_FACTOR = 15
"""The largest k that a rate is rounded to, where it is not exact: within 1/16 of what was asked for."""
_MOST_SHIFT = 40
_EXACT_FACTOR = 64
_MOST_DECAY = 0.5
_FINEST_MOMENTUM = 9
_NEAR, _NEAREST = Fraction(1, 100), Fraction(1, 32)
"""By which part of 1 - mu a momentum may be another one: with the fewest digits, and with the most."""


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
        momentum: from 0 to 0.99; as j 2^-m it has m up to 9, and 0.5, 0.75 and 0.875 are exact and cost least.
        weight_decay: a step takes lr weight_decay W off each weight; 8 bytes a weight more are opened then.

    Raises:
        UsageError: a number is no rate, or no such momentum.
    """

    lr: float
    momentum: float = 0.0
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        for name in ("lr", "momentum", "weight_decay"):
            given = getattr(self, name)
            if isinstance(given, bool) or not isinstance(given, int | float | np.floating | np.integer):
                raise UsageError(f"{name}={given!r} is no number", remedy="SGD(0.1, momentum=0.5, weight_decay=1e-4)")
            object.__setattr__(self, name, float(given))
        if not 0 < self.lr < math.inf:
            raise UsageError("a learning rate is a positive number", remedy="SGD(0.1)")
        if not 0 <= self.momentum < 1 or _momentum(Fraction(self.momentum)) is None:
            raise UsageError(
                f"a momentum of {self.momentum!r}",
                cause=f"velocities are kept in fixed point, where it is a multiple of 2^-{_FINEST_MOMENTUM}",
                remedy="use a number from 0 to 0.99: 0.5, 0.75 and 0.875 cost least",
            )
        if not 0 <= self.weight_decay * self.lr < _MOST_DECAY:
            raise UsageError(
                f"a weight decay of {self.weight_decay!r}", remedy="use a number below 1 / (2 lr), as 1e-4"
            )

    @property
    def decay(self) -> Rate | None:
        """lr weight_decay as j 2^-q, near to what was asked for; None without."""
        return _nearest(Fraction(self.lr) * Fraction(self.weight_decay), MOST_FACTOR) if self.weight_decay else None

    @property
    def kept(self) -> Rate:
        """The momentum as j 2^-m, near to what was asked for; 0 2^-0 without."""
        return _momentum(Fraction(self.momentum)) or Rate(0, 0)

    @property
    def halvings(self) -> int:
        """m, of a momentum j 2^-m; 0 without."""
        return self.kept.shift

    def rate(self, batch: int, most: int = MOST_FACTOR) -> Rate:
        """Return lr / batch as k 2^-L: as it is, if k is small, else the nearest with k up to `most`.

        A smaller L leaves weights more room: so k is odd, and `most` is what decides how near it comes.

        Raises:
            UsageError: the rate is too small for fixed point.
        """
        found = _nearest(Fraction(self.lr) / batch, most)
        if found.shift > _MOST_SHIFT:
            raise UsageError(
                f"a learning rate of {self.lr:g} for a batch of {batch}",
                remedy="use a larger rate or a smaller batch: their quotient is a multiple of 2^-40",
            )
        return found


def decay_beside(rate: Rate, decay: Rate, factor: int) -> int:
    """Return j of the decay j 2^-q, with the q of this one, that belongs to another factor of the rate.

    Raises:
        UsageError: no j is within 1/16 of it, or weights would lose half of themselves or more in a step.
    """
    wanted = Fraction(decay.factor * factor, rate.factor)
    found = round(wanted)
    if abs(found - wanted) * (MOST_FACTOR + 1) > wanted or Fraction(found, 1 << decay.shift) >= Fraction(_MOST_DECAY):
        raise UsageError(
            f"a factor of {factor} beside a weight decay of {decay.factor} 2^-{decay.shift}, which belongs to "
            f"{rate.factor}",
            cause="the decay goes with the learning rate, and is a whole multiple of a power of two below a half",
            remedy="give a factor near to a multiple of this one, or compile a step of that rate: SGD(lr=...)",
        )
    return found


def _momentum(wanted: Fraction) -> Rate | None:
    """Return j 2^-m with the fewest digits that are enough; None if there are none."""
    for shift in range(_FINEST_MOMENTUM + 1):
        found = Fraction(round(wanted * 2**shift), 2**shift)
        off = abs(found - wanted) / (1 - wanted)
        if off <= (_NEAR if shift < _FINEST_MOMENTUM else _NEAREST):
            return Rate(found.numerator, found.denominator.bit_length() - 1)
    return None


def _nearest(wanted: Fraction, most: int) -> Rate:
    """Return k 2^-L with an odd k: as it is, if k is small, else the nearest with k up to `most`."""
    shift = wanted.denominator.bit_length() - 1
    if wanted.denominator != 1 << shift or wanted.numerator > _EXACT_FACTOR:
        shift = math.floor(math.log2((most + 1) / wanted))
        wanted = Fraction(round(wanted * Fraction(2) ** shift)) / Fraction(2) ** shift
    return Rate(wanted.numerator, wanted.denominator.bit_length() - 1)
