"""Attributes of the graph's operators: a frozen record for each kind of node, so that who reads one is type-checked.

Which operator has which record stands in `spec`; a field's type says what `spec` holds its value to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from mpc.compiler.graph.hidden import Hidden
from mpc.windows import Windows
from mpc.wires import MAX_BATCH

Array = np.ndarray
"""float64."""
Mask = np.ndarray
"""bool."""
Ends = tuple[float, float]
"""(low, high), the first not above the second."""
Moments = tuple[np.ndarray, np.ndarray]
"""(mean, variance), of the node's `static` shape."""
Numbers = tuple[float, ...]
Wholes = tuple[int, ...]
Parameters = Mapping[str, float]
Name = str
"""A key of `functions.FUNCTIONS`."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Attributes:
    """Holds what any node may know of its values, and all that many operators have.

    Args:
        known: what they are between, for reasons that intervals do not see.
        usual: how large they are on samples.
    """

    known: Ends | None = None
    usual: Moments | None = None

    def __repr__(self) -> str:
        """Name the record: its arrays are a model's weights, and no log or error shows them."""
        return f"<{type(self).__name__}>"


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Averaged(Attributes):
    """A sum of values times weights, times one over the sum of the weights, or over a little more."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Weighted(Attributes):
    """x weight + bias, secret: elementwise (scale), or as the derived records say.  None is no bias, zeros are one.

    Args:
        public: the parties may be told them; see `Roles.secret_weights`.
    """

    weight: Array
    bias: Array | None
    public: bool = False


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Affine(Weighted):
    """x weight + bias, a weight of shape (.., k, n).

    Args:
        signs: only whether each column is negative matters, it may be multiplied.
        marks: the last so many rows, for marks (0 or 1) of missing numbers: a positive weight makes the column not
            negative where one is missing, a negative weight makes it negative.
    """

    signs: bool = False
    marks: int = 0


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Filters(Weighted):
    """A convolution with secret filters (o, c / groups, *kernel), + bias."""

    windows: Windows


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Sliding(Attributes):
    """A convolution of two secrets."""

    windows: Windows


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Chosen(Attributes):
    """A product of two secrets of which the left one's rows are zeros with at most a one: rows of the right one."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Sum(Attributes):
    """sum_i factors[i] x_i + constant, public.

    Args:
        fills: of the node's `static` shape, if the second operand puts numbers in where the first, a missing number,
            is that.
    """

    factors: Numbers
    constant: float = 0.0
    fills: Array | None = None


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Total(Attributes):
    """The sum over axes, which stay with size 1, divided by an integer."""

    axes: Wholes
    divisor: int = 1


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Weigh(Attributes):
    """Each slice along an axis times its public factor."""

    axis: int
    factors: Numbers


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Transpose(Attributes):
    """A permutation of all axes."""

    axes: Wholes


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Concat(Attributes):
    """The axis along which values stand side by side."""

    axis: int


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Take(Attributes):
    """Slices along an axis; -1 stands for zeros."""

    axis: int
    indices: Wholes


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Scatter(Attributes):
    """The adjoint of a take: slices along an axis, each added where its index says, of so many; -1 is nowhere."""

    axis: int
    indices: Wholes
    size: int


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Constant(Attributes):
    """A secret weight, one for every row; public as in `Weighted`."""

    weight: Array
    public: bool = False


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Columns(Attributes):
    """x weight + bias, public: weight, powers of two, and bias vary along one axis at most."""

    weight: Array
    bias: Array


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Round(Attributes):
    """A rounding to `fraction` fractional bits, about 16 if not given, if there are more.

    Args:
        apart: then element i of the last axis counts i times as many units more, if anything was rounded off.
        always: and if nothing was.
        drop: so many bits fewer, whatever there are.
        floored: as of a maximum.
    """

    fraction: int | None = None
    drop: int = 0
    apart: int = 0
    always: bool = False
    floored: bool = False


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Whole(Attributes):
    """A rounding to whole numbers, exactly: no coin decides.

    Args:
        how: "floor", "nearest" with halves to the even number, or towards "zero".
        ceiling: then what is below 0 is 0, and what is above this is this.
        offset: whole numbers, secret, that are added before it is held to a ceiling.
    """

    how: str
    ceiling: int | None = None
    offset: Array | None = None


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Fit(Attributes):
    """x itself, refused where it can be more than half a unit beyond the ends; outside says why."""

    ends: Ends
    outside: str
    remedy: str = "cast its operands to a wider type (int64, float32) before, or declare a smaller range of the input"


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Lowest(Attributes):
    """Where this is true the least number that x can be, elsewhere x, which is zero there."""

    where: Mask


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Step(Attributes):
    """[x >= level], one more axis: compared on so many bits at most, else on about `fraction` (20) fractional ones.

    Args:
        held: bits that x is held to first, whatever it is, so that the bits of a row fall whatever the data are; a
            value up to two parts in 2^held of x's range below a level may count as above it, none at it as below.
        reach: x may be as large, whatever its bound: the comparison is right even where that was broken.
    """

    levels: Numbers
    bits: int | None = None
    fraction: int | None = None
    held: int | None = None
    reach: float | None = None


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Function(Attributes):
    """A function of one variable, elementwise.

    Args:
        hidden: where its values are zero instead.
        floor: what is smaller counts as about that, unless the argument has no room above it; None: nothing does.
        positive: there is a floor only if bounds show that the argument is not negative by more than the floor.
    """

    name: Name
    parameters: Parameters = field(default_factory=dict)
    hidden: Hidden | None = None
    floor: float | None = None
    positive: bool = False


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Link(Function):
    """A function as one series over a whole period, never clamped: bounded whatever its argument is.

    Args:
        fraction: fractional bits of the result.
        period: what the argument wraps around at, a power of two.
        terms: of the series.
        reach: how far from zero the series is fitted; beyond, up to half a period, it only stays bounded.
        wall: by how much it goes beyond the function's values at half a period, climbing from `reach` on.
    """

    fraction: int
    period: float
    terms: int
    reach: float
    wall: float = 0.0


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Rectified(Attributes):
    """max(0, x), and no more than the ceiling if there is one, with so many fractional bits."""

    ceiling: float | None = None
    fraction: int | None = None


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Select(Attributes):
    """The adjoint of a ReLU, or of a maximum over the last axis, at x: what x decides of g, the rest is zero.

    Args:
        among: it is a maximum's, and g goes to the first largest along the last axis.
        rectify: only where that is not negative; a ReLU always is so.
        ceiling: a ReLU's, from which on nothing passes.
        fraction: fractional bits of the result.
    """

    among: bool = False
    rectify: bool = True
    ceiling: float | None = None
    fraction: int | None = None


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Maximum(Attributes):
    """The largest over the last axis, which stays with size 1; rectify: and zero.

    Args:
        fraction: fractional bits of the result, of a model that trains.
        hidden: elements that are not among those that are compared.
        cut: how far apart scores of a softmax may be before they make up for what masks lost that a secret decides;
            None if nothing was cut off.
        floored: a mask has put among them what stands for less than all others.
    """

    rectify: bool = False
    fraction: int | None = None
    hidden: Hidden | None = None
    cut: float | None = None
    floored: bool = False


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ArgMax(Attributes):
    """The place of the largest along the last axis.  last: ties go to the last index; bits: as of a step; floored: as
    of a maximum.
    """

    last: bool
    bits: int | None = None
    floored: bool = False


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class OneHot(Attributes):
    """[x = i] for i below `size`, one more axis, of an input that lies at the parties and holds such whole numbers."""

    size: int


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Held(Attributes):
    """Rows of a Euclidean norm up to `norm`, whatever the data are: longer ones become zeros.

    Args:
        width: bits that each element is held to.
    """

    norm: float
    width: int = 12


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class RowsSum(Attributes):
    """The sum over the rows, whose axis is the first.

    Args:
        width: bits that each element is held to, where it is more than bits of comparisons.
        most: the most rows of a run.
    """

    width: int = 12
    most: int = MAX_BATCH


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Noise(Attributes):
    """A sum over rows and noise of this epsilon: of the kinds that may be, the one of less variance.

    Args:
        delta: the most that Gaussian noise may cost beside; None: no Gaussian noise.
        laplace: Laplace noise may be.
        steps: so many sums share an epsilon and a delta as steps do, this is one of: their Gaussian noise is judged
            together (`mpc.privacy.gaussian.together`).
        part: how many of these it counts as: its noise is smaller by the root.
    """

    epsilon: Fraction
    delta: Fraction | None = None
    laplace: bool = True
    steps: int = 1
    part: int = 1
