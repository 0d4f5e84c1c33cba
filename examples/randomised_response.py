"""Two thousand people are asked something that none of them would tell: each answers with a bit that may be false.

Nobody has to be trusted: no party, no provider, not who asks.  Each person's computer keeps the bit or turns it over,
and only that is told.  What that costs is shown beside the other way: masked bits at parties, one noised sum.
"""

from __future__ import annotations

from fractions import Fraction
from math import exp, sqrt

import numpy as np

from mpc.local import debias, deviation, randomise
from mpc.privacy import law

PEOPLE, EPSILON = 2_000, 1


def person(bit: int) -> int:
    """What happens on a person's own computer; the bit itself never leaves it."""
    return int(randomise(bit, EPSILON))


def main() -> None:
    bits = (np.arange(PEOPLE) % 10 < 3).astype(int)  # three of ten
    told = [person(int(bit)) for bit in bits]
    spread = deviation(PEOPLE, EPSILON)
    print(f"three of ten; {np.mean(told):.1%} said so")
    print(f"estimated: {debias(told, EPSILON):.1%}, give or take {2 * spread:.1%}")
    print(f"who says yes is at most {exp(EPSILON):.2f} times as likely to mean it as somebody who means no")
    shared = sqrt(law.variance(law.thresholds(Fraction(EPSILON), 1))) / PEOPLE
    print(f"a noised sum of masked bits at parties would be off by {shared:.2%}: {spread / shared:.0f} times less")


if __name__ == "__main__":
    main()
