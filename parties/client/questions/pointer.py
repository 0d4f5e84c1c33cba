"""Values of rows that nobody sees, under numpy's names: what is computed of them is written down, not run."""

from __future__ import annotations

from typing import Any

import numpy as np

from mpc.errors import UsageError
from parties.client.questions import functions
from parties.client.questions.categories import coded
from parties.client.questions.expression import ROWS, TRUTH, Node, cast, kind_of, sized
from parties.client.questions.over_rows import OverRows
from parties.client.questions.products import Transposed, products
from parties.client.questions.reasons import REASONS, refusal
from parties.client.questions.ufuncs import call, truth


class Pointer(OverRows):
    """Values that stand for one a row of a dataset: columns, and what numpy's names make of them."""

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        if any(isinstance(each, Transposed) for each in inputs):
            return NotImplemented  # it knows which products there are
        if method == "reduce" and ufunc is np.add:
            return self.sum(**options)
        if ufunc is np.divmod and method == "__call__":
            return inputs[0] // inputs[1], inputs[0] % inputs[1]
        if ufunc is np.matmul and method == "__call__" and all(isinstance(x, Pointer) for x in inputs):
            if inputs[0].ndim == 1:
                return (inputs[0] * inputs[1]).sum() if inputs[1].ndim == 1 else products(*inputs)
        if ufunc in (np.isnan, np.isfinite):
            self.require_complete(f"np.{ufunc.__name__}")
        if method != "__call__" or options:
            raise refusal(f"np.{ufunc.__name__}.{method}" if method != "__call__" else f"an option of {ufunc.__name__}")
        return self.like(call(ufunc, self.operands(coded(ufunc, inputs))))

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
            self.refuse("choosing rows", "x.mean(where=condition) is asked; np.where(condition, x, 0) keeps all rows")
        return self.like(functions.part(self.node, key))

    @property
    def T(self) -> Pointer | Transposed:
        """These values, if they are one a row; of a matrix what X.T @ X and X.T @ y are asked with."""
        return self.transpose()

    def transpose(self, *axes: Any) -> Pointer | Transposed:
        """Give each row's axes another order, x.transpose(0, 2, 1)."""
        order = axes[0] if len(axes) == 1 and isinstance(axes[0], tuple | list) else axes
        if self.ndim == 2 and tuple(order or (1, 0)) in ((1, 0), (-1, 0), (-1, -2)):
            return Transposed(self)
        return self.like(functions.transposed(self.node, order or range(self.ndim)[::-1]))

    def swapaxes(self, axis1: int, axis2: int) -> Pointer | Transposed:
        """Exchange two axes of each row."""
        order = [*range(self.ndim)]
        order[axis1], order[axis2] = order[axis2], order[axis1]
        return self.transpose(order)

    # ------------------------------------------------------------------ names that pandas has

    def isin(self, values: Any) -> Pointer:
        """Tell of each row whether its value is one of these."""
        return np.isin(self, values)  # type: ignore[return-value]  # an array of numpy's, to mypy

    def between(self, left: Any, right: Any, inclusive: str = "both") -> Pointer:
        """Tell of each row whether its value is between two others, ends included unless said: "left", "neither"."""
        if inclusive not in ("both", "left", "right", "neither"):
            raise UsageError(f"inclusive={inclusive!r}", remedy="both, left, right or neither")
        above = self >= left if inclusive in ("both", "left") else self > left
        return above & (self <= right if inclusive in ("both", "right") else self < right)  # type: ignore[no-any-return]

    def abs(self) -> Pointer:
        """Return sizes without signs."""
        return np.abs(self)  # type: ignore[return-value]

    def where(self, condition: Pointer, other: Any = None) -> Pointer:
        """Keep values where a condition holds, and take `other` elsewhere.

        Raises:
            UsageError: nothing is to be there; pandas leaves such values out.
        """
        if other is None:
            raise refusal("values that are left out", "x.where(c, 0) has 0 there; x.mean(where=c) leaves them out")
        return np.where(condition, self, other)  # type: ignore[return-value]

    def mask(self, condition: Pointer, other: Any = None) -> Pointer:
        """Take `other` where a condition holds, and keep values elsewhere; raises as `where`."""
        if other is None:
            raise refusal("values that are left out", "x.mask(c, 0) has 0 there; x.mean(where=~c) leaves them out")
        return np.where(condition, other, self)  # type: ignore[return-value]

    def copy(self) -> Pointer:
        """Return these values."""
        return self

    def like(self, node: Node) -> Pointer:
        """Return other values of these rows."""
        return Pointer(self.manifest, node, self.parties)


def _is_whole(key: slice) -> bool:
    return key.start is None and key.stop is None and key.step is None
