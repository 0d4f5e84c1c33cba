"""Gaussian vectors together: what many steps cost, beside what is published for one and for many."""

from __future__ import annotations

from fractions import Fraction
from math import erf, exp, log, sqrt

import pytest

from mpc.privacy import gaussian

DELTA = Fraction(1, 10**6)


def phi(x: float) -> float:
    return (1 + erf(x / sqrt(2))) / 2


def exact(epsilon: float, mu: float) -> float:
    """What a Gaussian of sensitivity mu sigma costs, exactly (Balle and Wang 2018, Theorem 8); T of them together are
    one of mu sqrt(T) (Dong, Roth and Su 2019, Corollary 3.3)."""
    return phi(mu / 2 - epsilon / mu) - exp(epsilon) * phi(-mu / 2 - epsilon / mu)


@pytest.mark.parametrize("steps", [1, 4, 16, 64])
@pytest.mark.parametrize("epsilon", [Fraction(1, 2), Fraction(2), Fraction(5)])
def test_between_what_is_exact_and_what_is_usual(steps: int, epsilon: Fraction) -> None:
    """Never less than what T Gaussians cost exactly, and never more than rho + 2 sqrt(rho ln(1 / delta)) allows (Bun
    and Steinke 2016, Proposition 1.3)."""
    wanted = float(DELTA)
    rho = (sqrt(log(1 / wanted) + float(epsilon)) - sqrt(log(1 / wanted))) ** 2
    sigma = Fraction(round(1e4 * sqrt(steps / (2 * rho))), 100)  # D2 is 100: the table's law is close there
    found = gaussian.together(epsilon, ((sigma, Fraction(100), 1),) * steps)
    mu = 100 / float(sigma) * sqrt(steps)
    assert exact(float(epsilon), mu) <= float(found) <= wanted * 1.01


def test_steps_are_one_of_the_root_of_their_number() -> None:
    one = gaussian.delta(Fraction(2), Fraction(400), Fraction(200), 4)
    four = gaussian.together(Fraction(2), ((Fraction(400), Fraction(100), 1),) * 4)
    assert abs(four - one) <= Fraction(2, 1 << 80)
    mixed = gaussian.together(Fraction(2), ((Fraction(400), Fraction(100), 2), (Fraction(200), Fraction(50), 2)))
    alike = gaussian.together(Fraction(2), ((Fraction(400), Fraction(100), 2),) * 2)
    assert abs(mixed - alike) < Fraction(1, 1 << 45)  # of what the tables are off alone
