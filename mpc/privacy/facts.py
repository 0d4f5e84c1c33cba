"""Records that a proof takes and gives: facts of stored data, and the guarantee."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, Self

from mpc.errors import PlanError
from mpc.privacy import gaussian

Mechanism = Literal["gaussian", "laplace"]
"""Kinds of noise."""
LAPLACE: Mechanism = "laplace"
GAUSSIAN: Mechanism = "gaussian"
CHARGE_UNIT = 10**9
"""Epsilon is charged in billionths, rounded up."""
DELTA_UNIT = 10**18
"""Delta is charged in units of 10^-18, rounded up."""


@dataclass(frozen=True)
class StoredFacts:
    """Public facts of the data that a stored wire is bound to.

    Args:
        rows: how many there are.
        rows_per_person: the most rows of one person, as its owner states.
        origin: names data whose rows are the rows of the same people in the same order: one dataset's, from one first
            row on.  Wires of one origin change together, so a person counts there once.
        others: further origins of a kept output, each with the most rows of one person there.
        apart: origins with none of these people, as all owners state.
    """

    rows: int
    rows_per_person: int
    origin: str
    others: tuple[tuple[str, int], ...] = ()
    apart: frozenset[str] = frozenset()

    @property
    def people(self) -> tuple[tuple[str, int], ...]:
        """Every origin, with the most rows of one person there."""
        return ((self.origin, self.rows_per_person), *self.others)

    def __post_init__(self) -> None:
        if self.rows < 1 or any(rows < 1 or not origin for origin, rows in self.people):
            raise PlanError("stored data has rows, each person at least one of them, and an origin")


@dataclass(frozen=True)
class Loss:
    """A bound of what answers may tell of one person: (epsilon, delta)."""

    epsilon: Fraction = Fraction(0)
    delta: Fraction = Fraction(0)

    @property
    def charge(self) -> int:
        """Epsilon in billionths, rounded up."""
        return -(-self.epsilon * CHARGE_UNIT // 1)

    def __add__(self, other: Loss) -> Loss:
        return Loss(self.epsilon + other.epsilon, self.delta + other.delta)


@dataclass(frozen=True)
class Vector:
    """One noised vector.

    Args:
        wire: what holds the sum and its noise.
        elements: how many there are; they share one epsilon.
        sources: the stored wires that it depends on.
        sensitivity: D1, the most that one person's rows can change it, in units of the wire's scale.
        euclidean: D2, likewise, rounded up.
        variance: of each element's noise.
        mechanism: which noise: "laplace" or "gaussian".
        sigma: of each half of Gaussian noise.
    """

    wire: str
    elements: int
    sources: frozenset[str]
    sensitivity: int
    euclidean: Fraction
    loss: Loss
    variance: Fraction
    mechanism: Mechanism
    sigma: Fraction | None = None


@dataclass(frozen=True)
class Guarantee:
    """The facts of a plan that every party finds by itself: each noised vector, and so what the whole plan tells."""

    vectors: tuple[Vector, ...]

    def of(self, wires: Iterable[str]) -> Loss:
        """Return what one run tells through these stored wires together: one dataset's, say.

        Each vector that depends on any of them counts once, whoever receives it.  Epsilons add up, and so do deltas
        of vectors that protect people each for itself; Gaussian ones that do so only together have one delta.  Where
        some of the plan's steps depend on these wires, and their own share of epsilon has too large a delta, they cost
        the epsilon of all of its steps.
        """
        named = frozenset(wires)
        found = [vector for vector in self.vectors if vector.sources & named]
        steps = [each for each in found if each.sigma is not None]
        if all(each.loss.delta <= gaussian.MOST_DELTA for each in steps):
            return sum((vector.loss for vector in found), Loss())
        others = sum((each.loss for each in found if each.sigma is None), Loss())
        parts = tuple((each.sigma, each.euclidean, each.elements) for each in steps if each.sigma is not None)
        for those in (steps, [each for each in self.vectors if each.sigma is not None]):
            epsilon = sum((each.loss.epsilon for each in those), Fraction(0))
            delta = gaussian.together(epsilon, parts)
            if delta <= gaussian.MOST_DELTA:
                break
        gaussian.check_delta(delta)
        return others + Loss(epsilon, delta)

    def checked(self) -> Self:
        """Return this, if it protects everybody that it is about; `PlanError` if a delta is too large."""
        sources = sorted({name for vector in self.vectors for name in vector.sources})
        for wires in (*([name] for name in sources), sources):
            self.of(wires)
        return self

    def mechanisms(self, wires: Iterable[str]) -> tuple[Mechanism, ...]:
        """List the kinds of noise that hide these stored wires, each once."""
        named = frozenset(wires)
        return tuple(sorted({vector.mechanism for vector in self.vectors if vector.sources & named}))

    @property
    def losses(self) -> Mapping[str, Loss]:
        """The loss of one run through each stored wire."""
        return {wire: self.of([wire]) for wire in sorted({name for v in self.vectors for name in v.sources})}
