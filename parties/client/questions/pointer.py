"""Values of rows that nobody sees, under numpy's names: what is computed of them is written down, not run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from mpc.errors import InputError, PrivateDataError, UsageError
from mpc.text import shown
from parties.agreed.objects import Manifest
from parties.client.questions import functions
from parties.client.questions.expression import ROWS, TRUTH, Node, cast, columns, kind_of, sized
from parties.client.questions.ufuncs import REASONS, call, refusal, truth

if TYPE_CHECKING:
    from parties.client.channels import Parties
    from parties.client.questions.aggregates import Grouped, Question
    from parties.client.questions.asking import Answer


class Pointer(np.lib.mixins.NDArrayOperatorsMixin):
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
            raise UsageError(
                "real numbers do not become whole ones here",
                cause="rounding needs many comparisons",
                remedy="count what reaches each public level: (x >= 1).count(), or x.histogram(edges)",
            )
        return self.like(truth(self.node) if kind == TRUTH else cast(self.node, kind))

    def clip(self, min: Any = None, max: Any = None) -> Pointer:
        """Cut the values to an interval."""
        [x, low, high] = self.operands((self, min, max))
        return self.like(functions.clip(x, low, high))

    def reshape(self, *shape: Any) -> Pointer:
        """Give each row another shape; the first size is the rows' (-1, or how many there are)."""
        sizes = shape[0] if len(shape) == 1 and isinstance(shape[0], tuple | list) else shape
        inner = tuple(sizes[1:])
        if not sizes or sizes[0] not in (-1, self.manifest.rows) or any(size < 0 for size in inner):
            raise UsageError("rows stay the first axis", remedy="x.reshape(-1, 28, 28)")
        return self.like(sized(self.node, (ROWS, *inner)))

    def __getitem__(self, key: object) -> Pointer:
        """Take places of a row, or give it axes of one: x[:, 0], x[:, None]; rows are not chosen."""
        keys = key if isinstance(key, tuple) else (key,)
        if not keys or not isinstance(keys[0], slice) or keys[0] != slice(None):
            self.refuse("choosing rows")
        return self.like(functions.part(self.node, key))

    # ------------------------------------------------------------------ sums over rows

    def sum(self, axis: Any = None, keepdims: bool = False, **options: Any) -> Any:
        """Return the question for the sum over rows; with an axis that is not theirs, sums within each row."""
        return self._summary("sum", axis, keepdims, options)

    def mean(self, axis: Any = None, keepdims: bool = False, **options: Any) -> Any:
        """Return the question for the mean over rows, or means within each row."""
        return self._summary("mean", axis, keepdims, options)

    def var(self, axis: Any = None, ddof: int = 0) -> Question:
        """Return the question for the variance over rows."""
        return self._question("var", axis, ddof=ddof)

    def std(self, axis: Any = None, ddof: int = 0) -> Question:
        """Return the question for the standard deviation over rows."""
        return self._question("std", axis, ddof=ddof)

    def count(self) -> Question:
        """Return the question for how many rows fulfil a condition."""
        return self._question("count", None)

    def histogram(self, edges: Any) -> Question:
        """Return the question for how many rows lie between each two edges, as `numpy.histogram` counts them."""
        return self._question("histogram", None, edges=edges)

    def quantile(self, q: Any, edges: Any = None) -> Question:
        """Return the question for quantiles: a histogram at public edges, and straight lines between them.

        Args:
            edges: 64 steps through the range of a column, unless said.
        """
        return self._question("quantile", None, q=q, edges=edges)

    def group_by(self, category: Pointer) -> Grouped:
        """Return the values by categories of a column: `.sum()`, `.mean()`, `.count()` of each."""
        from parties.client.questions.aggregates import Grouped

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

    def median(self) -> NoReturn:
        """Refuse: an exact median is one person's value."""
        raise refusal("the median", REASONS["median"])

    def get(self, epsilon: Any = None) -> Answer:
        """Return the values themselves, to whom all of them belong.

        Raises:
            PrivateDataError: to everybody else.
        """
        from parties.client.questions.asking import rows_of

        return rows_of(self, epsilon)

    # ------------------------------------------------------------------ and no values

    def refuse(self, what: str) -> NoReturn:
        """Refuse to give values.

        Raises:
            PrivateDataError: saying whose they are and what one may do.
        """
        name, owner = self.manifest.name, self.manifest.owner
        raise PrivateDataError(
            f"{what} would need the values of {', '.join(map(shown, self.read))} in {name}, which nobody may see",
            cause=f"they are {owner}'s, and only what {owner} has granted is computed from them",
            remedy=f"ask {owner} which questions it answers; cluster.dataset({name!r}).sample() has rows to develop on",
        )

    def __len__(self) -> int:
        return self.manifest.rows

    def __float__(self) -> float:
        self.refuse("float()")

    def __int__(self) -> int:
        self.refuse("int()")

    def __index__(self) -> int:
        self.refuse("an index")

    def __complex__(self) -> complex:
        self.refuse("complex()")

    def __bool__(self) -> bool:
        self.refuse("a condition")

    def __iter__(self) -> Iterator[Any]:
        self.refuse("going through rows")

    def __contains__(self, value: object) -> bool:
        self.refuse("'in'")

    def __array__(self, *arguments: Any, **options: Any) -> NoReturn:
        self.refuse("a numpy array")

    def __format__(self, form: str) -> str:
        return repr(self) if not form else self.refuse("printing numbers")

    def __repr__(self) -> str:
        names = ", ".join(map(shown, self.read))
        return f"<values of {names} of {self.manifest.name}: {self.manifest.rows:,} rows, private>"

    # ------------------------------------------------------------------ parts of these

    def operands(self, given: Sequence[Any]) -> list[Any]:
        """Return the nodes of pointers, and the rest as it is.

        Raises:
            UsageError: they are rows of two datasets.
        """
        for each in given:
            if isinstance(each, Pointer) and each.manifest.id != self.manifest.id:
                raise UsageError(
                    f"columns of {self.manifest.name} and of {each.manifest.name} in one question",
                    cause="their rows are not of the same people in the same order",
                    remedy="ask about each of them apart, and combine the answers",
                )
        return [each.node if isinstance(each, Pointer) else each for each in given]

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
        if any(value is not None for value in options.values()):
            raise refusal(f"an option of {kind}: {', '.join(options)}")
        if axis is None and self.ndim > 1:
            within = tuple(range(1, self.ndim))
            whole = self.like(functions.reduced(kind, self.node, within, False))
            return whole._question(kind, None)
        if axis in (None, 0):
            return self._question(kind, axis)
        return self.like(functions.reduced(kind, self.node, axis, keepdims))

    def _within(self, kind: str, axis: Any, keepdims: bool) -> Pointer:
        if axis in (None, 0):
            raise refusal(f"{kind} over rows", REASONS[kind])
        return self.like(functions.reduced(kind, self.node, axis, keepdims))


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
