"""Hold what a proof knows of a wire that is not free, and how far a person moves what is noised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from mpc.errors import PlanError
from mpc.gates.base import Gate
from mpc.gates.draw import Draw
from mpc.gates.gaussian import Gaussian
from mpc.privacy.forms import Form
from mpc.privacy.intervals import Interval
from mpc.privacy.norms import Trait
from mpc.privacy.sensitivity import Ground, first, root, second


@dataclass(frozen=True, eq=False)
class Row:
    """A wire with rows.

    Args:
        sources: the stored wires that it depends on.
        form: how a row's elements depend on atoms, if they do linearly.
        interval: where every element lies whatever the data are, if that is known.
        plain: the form is the whole of it; no constant is added.
        trait: what it says of another value's rows.
    """

    sources: frozenset[str]
    form: Form | None = None
    interval: Interval | None = None
    plain: bool = False
    trait: Trait | None = None


@dataclass(frozen=True)
class Sum:
    """A sum over rows without noise, or a public linear map of some.

    Args:
        interval: where every element lies, of any number of rows that the plan takes, if that is known.
        shift: bits that were rounded off it, down or up by a public coin; what it is then is no linear map any more.
    """

    sources: frozenset[str]
    form: Form
    interval: Interval | None = None
    shift: int = 0


@dataclass(frozen=True)
class Noise:
    """The noise that a gate writes."""

    gate: Draw | Gaussian


State = Row | Sum | Noise
"""A wire that is not free."""


@dataclass(frozen=True)
class Moved:
    """The most that one person's rows change what is noised, in units of its scale.

    Args:
        first, second: D1 and D2, the latter rounded up to 2^-20.
    """

    first: int = 0
    second: Fraction = Fraction(0)

    def __add__(self, other: Moved) -> Moved:
        return Moved(self.first + other.first, self.second + other.second)

    @classmethod
    def by(cls, form: Form, atoms: Mapping[str, Ground], rows: int) -> Moved:
        """Return what so many rows change."""
        return cls(rows * first(form, atoms), rows * second(form, atoms))

    def rounded(self, shift: int, elements: int) -> Moved:
        """Return what is left behind a rounding.

        For each public coin an element moves by less than its part of 2^shift, and one more: see docs/protocols.md,
        "What a plan tells of a person".
        """
        if not shift:
            return self
        unit = 1 << shift
        return Moved(self.first // unit + elements, self.second / unit + root(elements))


MOST_APART = 12
"""Origins up to which it is found out which of them one person may be in; of more, in all."""


def most(parts: Mapping[str, Moved], apart: Mapping[str, frozenset[str]]) -> Moved:
    """Return the most that one person changes, who may be in all origins that are not apart from each other.

    Args:
        parts: what a person's rows in each origin change.
        apart: of each origin, those that are apart from it; both have to say so.
    """
    names = list(parts)

    def together(one: str, other: str) -> bool:
        return not (other in apart[one] and one in apart[other])

    if len(names) > MOST_APART or all(together(a, b) for a in names for b in names if a != b):
        return sum(parts.values(), Moved())
    found, todo = Moved(), [(0, tuple[str, ...](), Moved())]
    while todo:
        place, chosen, total = todo.pop()
        found = Moved(max(found.first, total.first), max(found.second, total.second))
        for number in range(place, len(names)):
            if all(together(names[number], each) for each in chosen):
                todo.append((number + 1, (*chosen, names[number]), total + parts[names[number]]))
    return found


def bare(gate: Gate, problem: str) -> PlanError:
    """Return the error for a sum over rows whose noise does not hide it."""
    return PlanError(
        f"gate {gate.name!r} ({gate.kind}) leaves a sum over rows without the noise that it needs: {problem}",
        cause="each element of a sum needs a draw of its own, whole, that nothing else reads, before anything but a "
        "public linear map is done with it",
        remedy="let the compiler place the noise (noise={output: epsilon}), and compute further behind it",
    )
