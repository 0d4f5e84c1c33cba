"""Questions that are sums over rows: which sums, and what their reader makes of the noised ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mpc.errors import UsageError
from parties.client.questions.expression import (
    REAL,
    ROWS,
    TRUTH,
    WHOLE,
    Node,
    apply,
    cast,
    columns,
    elementwise,
    public,
    sized,
)
from parties.client.questions.ufuncs import call
from parties.client.questions.unanswered import Unanswered
from parties.client.questions.values import Values

if TYPE_CHECKING:
    from mpc.plan.link import Link
    from parties.client.questions.asking import Answer

_BEYOND = 2.0**-7
"""Part of its width by which a histogram's last bin is wider: noise is for values that are cut to 16 bits."""
STEPS = 32
"""Bins of a quantile's histogram, unless its asker says which."""
Sums = Mapping[str, np.ndarray]
Deviations = Mapping[str, float]
Finish = Callable[[Sums, Deviations, int], tuple[Any, Any]]
"""(sums, standard deviations of their noise, rows) -> the answer, and the standard deviation of its noise."""


@dataclass(frozen=True, eq=False)
class Question(Unanswered):
    """A question about a dataset, not asked yet.

    Args:
        pointer: what it is about.
        text: how it reads.
        sums: the values whose sums over rows it needs, by name; they share an epsilon evenly.
        finish: what follows from them, in public.
        labels: of a question by categories: what each element of the answer is about.
        exact: values of rows, and the answer that follows from them, if it is not what follows from the sums.
    """

    pointer: Values
    text: str
    sums: Mapping[str, Node]
    finish: Finish
    labels: tuple[str, ...] = ()
    exact: tuple[Node, Callable[[np.ndarray], Any]] | None = None

    @property
    def read(self) -> tuple[str, ...]:
        """Names of the columns that it reads."""
        return tuple(columns(*self.sums.values()))

    def get(
        self,
        epsilon: Any = None,
        mechanism: Any = None,
        delta: Any = None,
        wait: float = 0.0,
        link: Link | str | None = None,
    ) -> Answer:
        """Ask, and return the answer.

        Args:
            epsilon: what the answer may tell of one person: the smaller, the more noise.  None: an exact answer, for
                whom all the data belongs to.
            mechanism: "laplace" or "gaussian"; None: for each sum the one of less noise that is granted, which is
                Gaussian for long vectors alone.
            delta: the most that Gaussian noise costs beside epsilon; None: of the grant's and the budget's delta as
                large a part as the epsilon is of theirs.
            wait: seconds to wait for words that are missing, an owner's or an operator's.
            link: what lies between the processes, as `cluster.session` takes it; it is part of the plan.

        Raises:
            PrivateDataError: a word is missing still, before anything was dealt; says whose, and what allows it.
            ModelError: nothing is proved of it, and why.
        """
        from parties.client.questions.asking import get

        return get(self, epsilon, mechanism, delta, wait, link)

    def explain(
        self, epsilon: Any = None, mechanism: Any = None, delta: Any = None, link: Link | str | None = None
    ) -> str:
        """Say what the question reads, whose that is, and what it costs; with an epsilon also how much noise that is.

        Nothing is asked for it.
        """
        from parties.client.questions.asking import explain

        return explain(self, epsilon, mechanism, delta, link)

    def __repr__(self) -> str:
        return f"<{self.text}; not asked yet: .get(epsilon=...), .explain()>"


def ask(pointer: Values, kind: str, **said: Any) -> Question:
    """Return the question of a kind.

    Raises:
        UsageError: it is none of this pointer.
    """
    if pointer.shape[1:] and kind in ("count", "histogram", "quantile"):
        raise UsageError(f"a {kind} of {pointer.shape[1:]} numbers a row", remedy=f"x[:, 0].{kind}(...) takes one")
    sums, finish = _KINDS[kind](pointer, **said)
    known = {
        "quantile": lambda values: np.quantile(np.asarray(values, float), said["q"]),
        "histogram": lambda values: np.histogram(values, said["edges"])[0],
    }
    exact = (numbers_of(pointer.node), known[kind]) if kind in known else None
    return Question(pointer, f"{kind} of {named(pointer)}", sums, finish, exact=exact)


def named(pointer: Values) -> str:
    """Name values as they print themselves."""
    return repr(pointer).strip("<>").removesuffix(", private")


def numbers_of(node: Node) -> Node:
    """Return values as they are summed: truths as 0 and 1."""
    return cast(node, WHOLE) if node.dtype == TRUTH else node


def _sum(pointer: Values) -> tuple[Mapping[str, Node], Finish]:
    return {"sum": numbers_of(pointer.node)}, scaled(1.0)


def _mean(pointer: Values) -> tuple[Mapping[str, Node], Finish]:
    return {"sum": numbers_of(pointer.node)}, scaled(1 / pointer.manifest.rows)


def _count(pointer: Values) -> tuple[Mapping[str, Node], Finish]:
    if pointer.node.dtype != TRUTH:
        raise UsageError(
            "count counts the rows that fulfil a condition",
            remedy="(x > 3).count(), (x == 1).count() of zeros and ones; "
            f"there are {pointer.manifest.rows:,} rows in all, which is public",
        )
    return _sum(pointer)


def scaled(factor: float) -> Finish:
    """Make what reads one sum, times a factor."""

    def finish(values: Sums, deviations: Deviations, rows: int) -> tuple[Any, Any]:
        [name] = values
        return values[name] * factor, deviations[name] * factor

    return finish


def ratio(least: float) -> Finish:
    """Make what reads a mean off a sum and a count, or weights; NaN where that is below `least`."""

    def finish(values: Sums, deviations: Deviations, rows: int) -> tuple[Any, Any]:
        top, count = values["sum"], values["count"]
        known = np.where(count >= least, count, np.nan)
        mean = top / known
        return mean, np.sqrt(deviations["sum"] ** 2 + (mean * deviations["count"]) ** 2) / known

    return finish


def mean_of(values: Values, numbers: Node, counted: Node, text: str, least: float) -> Question:
    """Return the question for a mean whose weights are private too: both sums are noised, and then divided.

    Args:
        numbers: of each row, what the mean is of times its weight.
        counted: of each row, its weight; 0 or 1 for whether it counts.
        least: sum of the weights below which nothing is known.
    """
    return Question(values, text, {"sum": numbers, "count": counted}, ratio(least))


def _var(pointer: Values, ddof: int, root: bool = False) -> tuple[Mapping[str, Node], Finish]:
    rows = pointer.manifest.rows
    if not 0 <= ddof < rows:
        raise UsageError(f"ddof={ddof} with {rows} rows", remedy="ddof=0, or ddof=1")
    x = cast(pointer.node, REAL)
    centre = _centre(pointer)
    apart = elementwise("Sub", REAL, x, public(centre)) if centre else x

    def finish(values: Sums, deviations: Deviations, rows: int) -> tuple[Any, Any]:
        mean, second = values["sum"] / rows, values["squares"] / rows
        factor = rows / (rows - ddof)
        found = np.maximum(second - mean**2, 0.0) * factor
        spread = np.sqrt(deviations["squares"] ** 2 + (2 * mean * deviations["sum"]) ** 2) / rows * factor
        if not root:
            return found, spread
        return rooted(found, spread)

    return {"sum": apart, "squares": elementwise("Mul", REAL, apart, apart)}, finish


def rooted(found: Any, spread: Any) -> tuple[Any, Any]:
    """Return the root of a noised variance, and the standard deviation of the noise in that."""
    deviation = np.sqrt(found)
    with np.errstate(divide="ignore", invalid="ignore"):
        return deviation, np.where(spread < found, spread / (2 * deviation), np.sqrt(spread))


def _std(pointer: Values, ddof: int) -> tuple[Mapping[str, Node], Finish]:
    return _var(pointer, ddof, root=True)


def _centre(pointer: Values) -> float:
    """The middle of a column's range: squares about it are smaller, and so is their noise."""
    name = pointer.node.column
    if name is None:
        return 0.0
    column = pointer.manifest.column(name)
    return float((column.low + column.high) / 2)


def _histogram(pointer: Values, edges: Any) -> tuple[Mapping[str, Node], Finish]:
    return {"counts": _binned(pointer, _edges(edges))}, scaled(1.0)


def _quantile(pointer: Values, q: Any, edges: Any) -> tuple[Mapping[str, Node], Finish]:
    wanted = np.asarray(q, dtype=float)
    if not ((wanted >= 0) & (wanted <= 1)).all():
        raise UsageError("a quantile is between 0 and 1", remedy="x.quantile(0.5)")
    levels = _range(pointer) if edges is None else _edges(edges)

    def finish(values: Sums, deviations: Deviations, rows: int) -> tuple[Any, Any]:
        counts = np.maximum(values["counts"], 0.0)
        reached = np.concatenate([[0.0], np.cumsum(counts)])
        if not reached[-1]:
            return np.full(wanted.shape, np.nan)[()], np.full(wanted.shape, np.inf)[()]
        value = np.interp(wanted * reached[-1], reached, levels)
        place = np.clip(np.searchsorted(levels, value, side="right") - 1, 0, len(counts) - 1)
        ahead = np.sqrt(np.minimum(place + 1, len(counts) - place)) * deviations["counts"]
        with np.errstate(divide="ignore", invalid="ignore"):
            return value, np.where(ahead > 0, ahead * np.diff(levels)[place] / counts[place], 0.0)[()]

    return {"counts": _binned(pointer, levels)}, finish


def _range(pointer: Values) -> np.ndarray:
    name = pointer.node.column
    if name is None:
        raise UsageError(
            "a quantile of what is computed needs public edges",
            cause="its range is not declared",
            remedy="x.quantile(0.5, edges=np.linspace(0, 100, 65))",
        )
    column = pointer.manifest.column(name)
    return np.linspace(float(column.low), float(column.high), STEPS + 1)


def _edges(edges: Any) -> np.ndarray:
    found = np.asarray(edges)
    if found.ndim != 1 or found.size < 2 or found.dtype.kind not in "iuf" or not (np.diff(found) > 0).all():
        raise UsageError("a histogram has rising public edges", remedy="x.histogram([0, 20, 40, 60])")
    return found.astype(float)


def _binned(pointer: Values, edges: np.ndarray) -> Node:
    """Return in which bin a row is, one number a bin: what reaches an edge, less what reaches the next."""
    levels = edges.copy()
    levels[-1] += (edges[-1] - edges[-2]) * _BEYOND  # numpy's last bin holds its right end
    if pointer.node.dtype != REAL:
        levels = np.append(np.ceil(edges[:-1]), np.floor(edges[-1]) + 1) - 0.5
    return between(numbers_of(pointer.node), levels)


def between(x: Node, levels: np.ndarray) -> Node:
    """Return 1 for the neighbouring levels that a row lies between, else 0, a number for each two."""
    reached = call(np.greater_equal, (sized(cast(x, REAL), (ROWS, 1)), levels))
    bits, count = cast(reached, WHOLE), len(levels) - 1
    sides = np.arange(count), np.arange(1, count + 1)
    low, high = (apply("Gather", WHOLE, (ROWS, count), bits, public(at), axis=1) for at in sides)
    return elementwise("Sub", WHOLE, low, high)


_KINDS: dict[str, Callable[..., tuple[Mapping[str, Node], Finish]]] = {
    "sum": _sum,
    "mean": _mean,
    "count": _count,
    "var": _var,
    "std": _std,
    "histogram": _histogram,
    "quantile": _quantile,
}
