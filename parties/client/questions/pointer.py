"""Values of rows that nobody sees, under numpy's names: what is computed of them is written down, not run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from mpc.errors import InputError, UsageError
from mpc.text import shown
from parties.agreed.objects import Manifest
from parties.client.questions import functions
from parties.client.questions.expression import ROWS, TRUTH, Node, cast, columns, kind_of, sized
from parties.client.questions.private import Private
from parties.client.questions.reasons import REASONS, refusal
from parties.client.questions.ufuncs import call, truth
from parties.client.questions.unanswered import Unanswered

if TYPE_CHECKING:
    from parties.client.channels import Parties
    from parties.client.questions.aggregates import Grouped, Question
    from parties.client.questions.asking import Answer


class Pointer(Private):
    """Values that stand for one a row of a dataset: columns, and what numpy's names make of them.

    Args:
        manifest: the dataset's.
        node: how the values follow from columns.
        parties: where a question about them is asked; None: it can be written, not asked.
    """

    def __init__(self, manifest: Manifest, node: Node, parties: Parties | None = None) -> None:
        self.manifest, self.node, self.parties = manifest, node, parties

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows, and sizes of one row; both are public."""
        return tuple(self.manifest.rows if size == ROWS else size for size in self.node.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the numbers: float64, int64 or bool."""
        return self.node.dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.node.shape)

    @property
    def read(self) -> tuple[str, ...]:
        """Names of the columns that the values are made of."""
        return tuple(columns(self.node))

    # ------------------------------------------------------------------ numpy's names

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        if method == "reduce" and ufunc is np.add:
            return self.sum(**options)
        if ufunc is np.divmod and method == "__call__":
            return inputs[0] // inputs[1], inputs[0] % inputs[1]
        if ufunc is np.matmul and method == "__call__" and all(isinstance(x, Pointer) and x.ndim == 1 for x in inputs):
            return (inputs[0] * inputs[1]).sum()
        if ufunc in (np.isnan, np.isfinite):
            self.require_complete(f"np.{ufunc.__name__}")
        if method != "__call__" or options:
            raise refusal(f"np.{ufunc.__name__}.{method}" if method != "__call__" else f"an option of {ufunc.__name__}")
        return self.like(call(ufunc, self.operands(_coded(ufunc, inputs))))

    def __array_function__(self, function: Any, types: Any, arguments: Any, options: Any) -> Any:
        from parties.client.questions.names import FUNCTIONS

        known = FUNCTIONS.get(function)
        if known is None:
            raise refusal(f"np.{function.__name__}", REASONS.get(function.__name__))
        try:
            return known(*arguments, **options)
        except TypeError as error:
            raise UsageError(f"np.{function.__name__}: {error}", remedy="leave out what is not supported") from None

    def astype(self, dtype: Any) -> Pointer:
        """Return the values as float64, int64 or bool, whichever is of the kind."""
        kind = kind_of(dtype)
        if kind.kind == "i" and self.dtype.kind == "f":
            return self.like(cast(call(np.trunc, (self.node,)), kind))
        return self.like(truth(self.node) if kind == TRUTH else cast(self.node, kind))

    def clip(self, min: Any = None, max: Any = None, *, lower: Any = None, upper: Any = None) -> Pointer:
        """Cut the values to an interval; pandas calls its ends lower and upper."""
        [x, low, high] = self.operands((self, lower if min is None else min, upper if max is None else max))
        return self.like(functions.clip(x, low, high))

    def reshape(self, *shape: Any) -> Pointer:
        """Give each row another shape; the first size is the rows' (-1, or how many there are)."""
        sizes = shape[0] if len(shape) == 1 and isinstance(shape[0], tuple | list) else shape
        inner = tuple(sizes[1:])
        if inner.count(-1) == 1 and sizes[0] == self.manifest.rows:
            known, every = (int(np.prod(of, dtype=int)) for of in (inner, self.shape[1:]))
            inner = tuple(every // max(1, -known) if size == -1 else size for size in inner)
        if not sizes or sizes[0] not in (-1, self.manifest.rows) or any(size < 0 for size in inner):
            raise UsageError("rows stay the first axis", remedy="x.reshape(-1, 28, 28)")
        return self.like(sized(self.node, (ROWS, *inner)))

    def __getitem__(self, key: object) -> Pointer:
        """Take places of a row, or give it axes of one: x[:, 0], x[:, None]; rows are not chosen."""
        keys = key if isinstance(key, tuple) else (key,)
        whole = keys and (keys[0] is Ellipsis or (isinstance(keys[0], slice) and _is_whole(keys[0])))
        if not whole:
            self.refuse("choosing rows", "np.where(condition, x, 0) keeps all rows, and counts those that fulfil it")
        return self.like(functions.part(self.node, key))

    @property
    def size(self) -> int:
        """Number of values, which is public."""
        return int(np.prod(self.shape, dtype=int))

    @property
    def T(self) -> Pointer:
        """These values, if they are one a row; rows stay the first axis."""
        return self.transpose()

    def transpose(self, *axes: Any) -> Pointer:
        """Give each row's axes another order, x.transpose(0, 2, 1)."""
        order = axes[0] if len(axes) == 1 and isinstance(axes[0], tuple | list) else axes
        return self.like(functions.transposed(self.node, order or range(self.ndim)[::-1]))

    def swapaxes(self, axis1: int, axis2: int) -> Pointer:
        """Exchange two axes of each row."""
        order = [*range(self.ndim)]
        order[axis1], order[axis2] = order[axis2], order[axis1]
        return self.transpose(order)

    def copy(self) -> Pointer:
        """Return these values."""
        return self

    # ------------------------------------------------------------------ sums over rows

    def sum(self, axis: Any = None, keepdims: bool = False, **options: Any) -> Any:
        """Return the question for the sum over rows; with an axis that is not theirs, sums within each row."""
        return self._summary("sum", axis, keepdims, options)

    def mean(self, axis: Any = None, keepdims: bool = False, **options: Any) -> Any:
        """Return the question for the mean over rows, or means within each row."""
        return self._summary("mean", axis, keepdims, options)

    def var(self, axis: Any = None, ddof: int = 0) -> Any:
        """Return the question for the variance over rows, or variances within each row."""
        axis = self._axis(axis)
        return self._question("var", axis, ddof=ddof) if _is_of_rows(axis) else self._spread(axis, ddof)

    def std(self, axis: Any = None, ddof: int = 0) -> Any:
        """Return the question for the standard deviation over rows, or those within each row."""
        axis = self._axis(axis)
        return self._question("std", axis, ddof=ddof) if _is_of_rows(axis) else np.sqrt(self._spread(axis, ddof))

    def cov(self, other: Pointer | None = None, ddof: int = 1) -> Question:
        """Return the question for the covariances of the numbers of a row with each other, over rows."""
        from parties.client.questions.moments import covariance

        return covariance([self] if other is None else [self, other], ddof)

    def count(self) -> Question:
        """Return the question for how many rows fulfil a condition."""
        return self._question("count", None)

    def histogram(self, edges: Any) -> Question:
        """Return the question for how many rows lie between each two edges, as `numpy.histogram` counts them."""
        return self._question("histogram", None, edges=edges)

    def quantile(self, q: Any, edges: Any = None) -> Question:
        """Return the question for quantiles: a histogram at public edges, and straight lines between them.

        Args:
            edges: 32 steps through the range of a column, unless said.
        """
        return self._question("quantile", None, q=q, edges=edges)

    def group_by(self, category: Pointer) -> Grouped:
        """Return the values by categories of a column: `.sum()`, `.mean()`, `.count()` of each."""
        from parties.client.questions.aggregates import Grouped

        if not isinstance(category, Pointer):
            raise UsageError("groups are by a column of categories", remedy="x.group_by(ds['sex']).mean()")
        self.operands((self, category))
        return Grouped(self, category)

    def max(self, axis: Any = None, keepdims: bool = False, **options: Any) -> Any:
        """Return the largest value of each row; that over rows is refused."""
        return self._within("max", axis, keepdims)

    def min(self, axis: Any = None, keepdims: bool = False, **options: Any) -> Any:
        """Return the smallest value of each row; that over rows is refused."""
        return self._within("min", axis, keepdims)

    def all(self, axis: Any = None, keepdims: bool = False, **options: Any) -> Any:
        """Tell of each row whether all its values are true; that over rows is refused."""
        return self._within("all", axis, keepdims)

    def any(self, axis: Any = None, keepdims: bool = False, **options: Any) -> Any:
        """Tell of each row whether any of its values is true; that over rows is refused."""
        return self._within("any", axis, keepdims)

    def argmax(self, axis: Any = None, out: None = None, *, keepdims: bool = False) -> Pointer:
        """Return at which place of each row the largest value is; which row has it is refused."""
        return self._ranked("argmax", "ArgMax", axis, keepdims)

    def argmin(self, axis: Any = None, out: None = None, *, keepdims: bool = False) -> Pointer:
        """Return at which place of each row the smallest value is; which row has it is refused."""
        return self._ranked("argmin", "ArgMin", axis, keepdims)

    def ptp(self, axis: Any = None, out: None = None, keepdims: bool = False) -> Pointer:
        """Return how far apart the largest and the smallest value of each row are; over rows it is refused."""
        axis = self._axis(axis)
        if axis in (None, 0):
            raise refusal("np.ptp over rows", REASONS["ptp"])
        return self.max(axis, keepdims) - self.min(axis, keepdims)  # type: ignore[no-any-return]

    def prod(self, axis: Any = None, dtype: None = None, out: None = None) -> Pointer:
        """Return the product of each row's values; over rows it is refused."""
        axis = self._axis(axis)
        if axis in (None, 0):
            raise refusal("a product over rows", REASONS["prod"])
        return self.like(functions.product(self.node, axis))

    def median(self) -> NoReturn:
        """Refuse: an exact median is one person's value."""
        raise refusal("the median", REASONS["median"])

    def get(self, epsilon: Any = None, wait: float = 0.0) -> Answer:
        """Return the values themselves, to whom all of them belong.

        Raises:
            PrivateDataError: to everybody else.
        """
        from parties.client.questions.asking import rows_of

        return rows_of(self, epsilon, wait)

    # ------------------------------------------------------------------ parts of these

    def operands(self, given: Sequence[Any]) -> list[Any]:
        """Return the nodes of pointers, and the rest as it is.

        Raises:
            UsageError: they are rows of two datasets.
        """
        for each in given:
            if isinstance(each, Unanswered):
                raise UsageError(
                    "a question among values of rows",
                    cause="its answer is no number yet",
                    remedy="ask it, and compute with the answer: m = x.mean().get(epsilon=0.5).value, then x - m",
                )
            if isinstance(each, Pointer) and each.manifest.id != self.manifest.id:
                raise UsageError(
                    f"columns of {self.manifest.name} and of {each.manifest.name} in one question",
                    cause="their rows are not of the same people in the same order",
                    remedy="ask about each of them apart, and combine the answers",
                )
        return [each.node if isinstance(each, Pointer) else each for each in given]

    @property
    def variables(self) -> list[Node]:
        """List the numbers of a row, each by itself.

        Raises:
            UsageError: a row is no list of numbers.
        """
        if len(self.node.shape) > 2:
            raise UsageError(f"a row of {self.node.shape[1:]} numbers is no list", remedy="x.reshape(-1, 12)")
        if len(self.node.shape) == 1:
            return [self.node]
        return [functions.part(self.node, (slice(None), place)) for place in range(self.node.shape[1])]

    def like(self, node: Node) -> Pointer:
        """Return other values of these rows."""
        return Pointer(self.manifest, node, self.parties)

    def _question(self, kind: str, axis: Any, **said: Any) -> Question:
        from parties.client.questions.aggregates import ask

        if axis not in (None, 0) or (axis is None and self.ndim > 1 and kind not in ("histogram", "quantile", "count")):
            raise UsageError(
                f"{kind} over axis {axis} of values of shape {self.shape}",
                remedy=f"{kind}(axis=0) is over rows, for each place of a row apart; x[:, 0] takes one",
            )
        return ask(self, kind, **said)

    def _summary(self, kind: str, axis: Any, keepdims: bool, options: dict[str, Any]) -> Any:
        axis = self._axis(axis)
        if options.pop("where", True) is not True:
            raise refusal(f"{kind} with where=", "np.where(condition, x, 0).sum() is, and (condition).count()")
        kind_given = options.pop("dtype", None)
        if any(value is not None for value in options.values()):
            raise refusal(f"an option of {kind}: {', '.join(options)}")
        if kind_given is not None:
            return self.astype(kind_given)._summary(kind, axis, keepdims, {})
        if keepdims and _is_of_rows(axis):
            raise refusal(f"{kind} over rows with keepdims", "the answer has no axis of rows")
        if axis is None and self.ndim > 1:
            within = tuple(range(1, self.ndim))
            whole = self.like(functions.reduced(kind, self.node, within, False))
            return whole._question(kind, None)
        if axis in (None, 0):
            return self._question(kind, axis)
        return self.like(functions.reduced(kind, self.node, axis, keepdims))

    def _axis(self, axis: Any) -> Any:
        """Return the axis counted from the front where it is the rows', as -1 is of one number a row."""
        one = axis[0] if isinstance(axis, tuple) and len(axis) == 1 else axis
        return 0 if isinstance(one, int | np.integer) and one in (0, -self.ndim) else axis

    def _spread(self, axis: Any, ddof: int) -> Pointer:
        apart = self - self.mean(axis, keepdims=True)
        total = (apart * apart).sum(axis=axis)
        count = self.size // max(1, total.size)
        if not 0 <= ddof < count:
            raise UsageError(f"ddof={ddof} with {count} values", remedy="ddof=0, or ddof=1")
        return total / (count - ddof)  # type: ignore[no-any-return]

    def _ranked(self, kind: str, op: str, axis: Any, keepdims: bool) -> Pointer:
        axis = self._axis(axis)
        if _is_of_rows(axis):
            raise refusal(f"{kind} over rows", REASONS[kind])
        return self.like(functions.ranked(op, self.node, axis, keepdims))

    def _within(self, kind: str, axis: Any, keepdims: bool) -> Pointer:
        axis = self._axis(axis)
        if axis in (None, 0):
            raise refusal(f"{kind} over rows", REASONS[kind])
        return self.like(functions.reduced(kind, self.node, axis, keepdims))


def _is_of_rows(axis: Any) -> bool:
    return axis is None or (isinstance(axis, int | np.integer) and axis == 0)


def _is_whole(key: slice) -> bool:
    return key.start is None and key.stop is None and key.step is None


def _coded(ufunc: np.ufunc, inputs: Sequence[Any]) -> list[Any]:
    """Put a category's number in the place of its label, where a column is compared with one.

    Raises:
        InputError: the column has no such category.
        UsageError: it has none at all, or this is no comparison.
    """
    found = list(inputs)
    for place, each in enumerate(inputs):
        if isinstance(each, str):
            other = inputs[1 - place] if len(inputs) == 2 else None
            if ufunc not in (np.equal, np.not_equal) or not isinstance(other, Pointer):
                raise UsageError("a text among numbers", remedy="categories compare with their labels by == and !=")
            found[place] = code(other, each)
    return found


def code(pointer: Pointer, label: str) -> int:
    """Give the number of a label of a column of categories."""
    categories = categories_of(pointer)
    if label not in categories:
        raise InputError(
            f"column {shown(pointer.read[0])!r} has no category {shown(label[:80])!r}",
            remedy=f"it has {', '.join(map(shown, categories))[:400]}",
        )
    return categories.index(label)


def categories_of(pointer: Pointer) -> tuple[str, ...]:
    """Give the categories of a column as it is.

    Raises:
        UsageError: this is no such column.
    """
    name = pointer.node.column
    found = () if name is None else pointer.manifest.column(name).categories
    if not found:
        raise UsageError("this is no column of categories", remedy="ds.describe() shows which columns have them")
    return found
