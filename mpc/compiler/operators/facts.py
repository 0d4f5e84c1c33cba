"""Facts: what an importer knows of a value and no interval can see, as typed objects.

`Context.facts` maps a value to one fact.  Facts that speak of other values name them in fields, and are matched by
type only: whatever a model calls its values, a name says nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mpc.compiler.graph.graph import Range


@dataclass(frozen=True)
class Place:
    """A whole number that says where something stands: 0 or more, by construction within what it points into."""


@dataclass(frozen=True)
class Never:
    """A truth value that is false, whatever is entered; what an operator decides that nothing here has to compute."""


@dataclass(frozen=True)
class Always:
    """A truth value that is true, whatever is entered: what is never so, turned over."""


@dataclass(frozen=True)
class Chosen:
    """A value of which a condition chooses parts that are no smaller than any wire holds, as masks put them.

    Args:
        first, second: what it is where the condition is true, and where it is false.
    """

    condition: str
    first: str
    second: str


@dataclass(frozen=True)
class Natural:
    """A whole number that is not negative."""


@dataclass(frozen=True)
class Truncated:
    """A real that stands for itself cut to a whole number, towards zero."""


@dataclass(frozen=True)
class Clipped:
    """A value that is held between whole numbers, or on one side of one.

    Args:
        low, high: the ends; None where there is none.
        told: the parties may be told them.
    """

    of: str
    low: float | None
    high: float | None
    told: bool


@dataclass(frozen=True)
class Probabilities:
    """Numbers along the last axis that are not negative and whose sum is one."""


@dataclass(frozen=True)
class Ordered:
    """Numbers along an axis that are in the order of another value's, equal where those are; as a softmax's are.

    Args:
        axes: one axis, or several that are one.
        shares: they are not negative and their sum is one.
    """

    of: str
    axes: tuple[int, ...]
    shares: bool


@dataclass(frozen=True)
class Exp:
    """e to the power of a value."""

    of: str


@dataclass(frozen=True)
class Vanishing:
    """A value whose exponential is 0 where a mask is: it holds 0 there, which stands for minus infinity.

    Args:
        kept: the mask, of zeros and ones.
    """

    kept: str


@dataclass(frozen=True)
class OnePlusExp:
    """One plus e to the power of a value."""

    of: str


@dataclass(frozen=True)
class Softplus:
    """log(1 + exp x) of a value x."""

    of: str


@dataclass(frozen=True)
class Beyond:
    """Whether a value is above numbers from which on its softplus is itself."""

    of: str


@dataclass(frozen=True)
class Square:
    """A value times itself."""

    of: str


@dataclass(frozen=True)
class Magnitude:
    """The size of a value, without its sign."""

    of: str


@dataclass(frozen=True)
class SquaredLength:
    """The sum of the squares of a value over axes, which stay with size 1."""

    of: str
    axes: tuple[int, ...]


@dataclass(frozen=True)
class Length:
    """The norm of a value over axes, "L1" or "L2"; and no less than a tiny number, where a model keeps it from zero.

    Args:
        axes: of the value, from the front, ascending.
    """

    of: str
    axes: tuple[int, ...]
    norm: str


Axes = tuple[int | None, ...]
"""For each axis of a value the one of marks that it is; None if they are the same along it."""


@dataclass(frozen=True)
class Marked:
    """A value times marks, which are whole numbers of zero or more."""

    by: str
    axes: Axes


@dataclass(frozen=True)
class MarkedTotal:
    """The sum of such a value over some axes of the marks."""

    by: str
    summed: Axes
    axes: Axes


@dataclass(frozen=True)
class Marks:
    """The sum of marks; and no less than a small constant, where a model keeps it from zero.

    Args:
        total: over which of their axes.
        number: the value that is the sum itself; most: how many are added up.
    """

    total: MarkedTotal
    number: str
    most: int


@dataclass(frozen=True)
class More:
    """A value plus a small number."""

    of: str


@dataclass(frozen=True)
class Mean:
    """The mean over axes of a value, or of the square of one.

    Args:
        axes: of the value that is averaged, from the front, ascending.
    """

    axes: tuple[int, ...]
    of: str | Square


@dataclass(frozen=True)
class Above:
    """A mean of squares plus a positive number."""

    epsilon: float
    of: Mean


@dataclass(frozen=True)
class Root:
    """The square root of a value."""

    of: str


@dataclass(frozen=True)
class OverRoot:
    """One over the square root of a value."""

    of: str


@dataclass(frozen=True)
class Top:
    """The maximum of a value along its last axis, or more than that: no element is above it."""

    of: str


@dataclass(frozen=True)
class Beneath:
    """A value less the maximum of each row along its last axis, or less more than that: no element is positive."""


@dataclass(frozen=True)
class Powers:
    """e to the power of what is `Beneath`: no element is above one."""


@dataclass(frozen=True)
class Repeated:
    """A value that repeats another one along axes in which that has size 1."""

    of: str


@dataclass(frozen=True)
class Quantised:
    """A whole number that is quantised as it comes: the sum of two, what it stands for and the secret zero point."""

    of: str
    zero: str


@dataclass(frozen=True, eq=False)
class Unit:
    """A small part of a value, which is larger: a quantised value's scale, of its span, times constants.

    Args:
        told: the parties may be told the factor.
    """

    of: str
    factor: np.ndarray
    told: bool = True


@dataclass(frozen=True)
class Way:
    """How numbers of an input may be missing without marks, as a first import of the model has found.

    Args:
        columns: that may miss numbers; none, if something reads them all as numbers.
        side: the end of the range beyond which a number stands for a missing one.
    """

    columns: tuple[int, ...] = ()
    side: str = ""


@dataclass(frozen=True)
class Standing:
    """An input in whose columns numbers beyond its range stand for missing ones."""

    within: Range
    dtype: str
    way: Way


Fact = (
    Place
    | Never
    | Always
    | Chosen
    | Natural
    | Truncated
    | Clipped
    | Probabilities
    | Ordered
    | Exp
    | Vanishing
    | OnePlusExp
    | Softplus
    | Beyond
    | Square
    | Magnitude
    | Length
    | SquaredLength
    | Marked
    | MarkedTotal
    | Marks
    | More
    | Mean
    | Above
    | Root
    | OverRoot
    | Top
    | Beneath
    | Powers
    | Repeated
    | Quantised
    | Unit
)
