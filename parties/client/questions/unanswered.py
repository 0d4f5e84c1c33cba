"""A question that was not asked is no number: what computes with one says so, and how its answer comes."""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np

from mpc.errors import UsageError


class Unanswered(np.lib.mixins.NDArrayOperatorsMixin):
    """Base of questions: they are not added, compared, printed as numbers or made arrays."""

    def _unanswered(self, what: str) -> NoReturn:
        raise UsageError(
            f"{what} of a question that was not asked yet",
            cause="its answer is a number when it is asked, and costs epsilon then",
            remedy="ask, and compute with the answer: m = x.mean().get(epsilon=0.5).value",
        )

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> NoReturn:
        self._unanswered(f"np.{ufunc.__name__}")

    def __array_function__(self, function: Any, types: Any, arguments: Any, options: Any) -> NoReturn:
        self._unanswered(f"np.{function.__name__}")

    def __array__(self, *arguments: Any, **options: Any) -> NoReturn:
        self._unanswered("a numpy array")

    def __float__(self) -> float:
        self._unanswered("float()")

    def __int__(self) -> int:
        self._unanswered("int()")

    def __bool__(self) -> bool:
        self._unanswered("a condition")

    def __round__(self, digits: int | None = None) -> NoReturn:
        self._unanswered("round()")

    def __format__(self, form: str) -> str:
        return repr(self) if not form else self._unanswered("printing the number")
