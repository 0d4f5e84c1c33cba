"""Judge what noise is worth that hides so much: thresholds of an epsilon, or refused; a sigma has its delta."""

from __future__ import annotations

from fractions import Fraction

from mpc.errors import PlanError
from mpc.gates.draw import WORD_BITS, Draw
from mpc.gates.gaussian import Gaussian
from mpc.privacy import gaussian, law
from mpc.privacy.facts import GAUSSIAN, LAPLACE, Loss, Mechanism
from mpc.privacy.states import Moved


def worth(gate: Draw | Gaussian, moved: Moved, elements: int) -> tuple[Loss, Fraction, Mechanism]:
    """Return (what the noised vector costs, the variance of each element's noise, which noise it is).

    Args:
        moved: the most that one person's rows change the vector.

    Raises:
        PlanError: the noise is not that of its epsilon.
    """
    if isinstance(gate, Gaussian):
        short = gaussian.delta(gate.epsilon, gate.sigma, moved.second, elements)
        return Loss(gate.epsilon, short), 2 * gate.sigma**2, GAUSSIAN
    law.check_epsilon(gate.epsilon)
    levels = law.thresholds(gate.epsilon, moved.first)
    if gate.width != WORD_BITS or gate.thresholds != levels:
        raise PlanError(
            f"gate {gate.name!r} (draw): its thresholds are not those of epsilon {gate.epsilon}",
            cause=f"one person's rows can change the sum by {moved.first} units, and the noise is for something else",
            remedy="compile the plan anew: thresholds follow from epsilon and from what a row can change",
        )
    return Loss(gate.epsilon, law.delta(gate.epsilon, len(levels), elements)), law.variance(levels), LAPLACE
