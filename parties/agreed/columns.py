"""One column of a table, as its owner says it."""

from __future__ import annotations

from fractions import Fraction
from math import prod
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from mpc.wires import Frozen, Scale
from parties.agreed.fields import Category, Prose, Size, Text, as_text

MOST_ELEMENTS = 1 << 27
"""Elements of a block, at most: 1 GiB."""
_LARGEST_INTEGER = 1 << 59
_MOST_CATEGORIES = 1 << 16

ColumnType = Literal["number", "integer", "boolean", "category", "array", "missing"]


class Column(Frozen):
    """One column: what is public about it.

    Args:
        type: "number", "integer", "boolean" (0 or 1), "category" (its place among `categories`), "array", or "missing"
            (0 or 1).
        scale: the object holds round(x * scale).
        low, high: that x lies between, in the column's own unit, as its owner says; never taken from the data.
        shape: of one row; () for a number.
        missing_of: the column whose missing numbers this 0/1 column marks.
    """

    name: Text
    type: ColumnType
    scale: Scale = Fraction(1)
    low: Scale
    high: Scale
    shape: Annotated[tuple[Size, ...], Field(max_length=8)] = ()
    unit: Annotated[str, Field(max_length=64), AfterValidator(as_text)] = ""
    categories: Annotated[tuple[Category, ...], Field(max_length=_MOST_CATEGORIES)] = ()
    description: Prose = ""
    missing_of: Text | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.scale <= 0 or self.low > self.high:
            raise ValueError("its scale is above 0, and low is at most high")
        if max(abs(self.low), abs(self.high)) * self.scale >= _LARGEST_INTEGER:
            raise ValueError("its range, times its scale, is beyond 59 bits")
        if prod(self.shape) > MOST_ELEMENTS or (self.shape and self.type != "array"):
            raise ValueError("only an array's rows have a shape, of 2^27 elements at most")
        if self.type in ("integer", "boolean", "category", "missing") and self.scale != 1:
            raise ValueError(f"a column of type {self.type} has scale 1")
        high = {"category": len(self.categories) - 1, "boolean": 1, "missing": 1}.get(self.type)
        if high is not None and (self.low != 0 or self.high != high):
            raise ValueError(f"a column of type {self.type} has the range 0 to {high}")
        if (self.type == "category") != bool(self.categories) or len(set(self.categories)) != len(self.categories):
            raise ValueError("a column of type category, and no other, has categories, all different")
        if (self.type == "missing") != (self.missing_of is not None):
            raise ValueError("a column of type missing, and no other, says whose missing numbers it marks")
        return self

    def elements(self, rows: int) -> int:
        """Count the field elements of so many rows."""
        return rows * prod(self.shape)

    @property
    def ends(self) -> tuple[int, int]:
        """Smallest and largest integer that the column holds."""
        return round(self.low * self.scale), round(self.high * self.scale)
