"""Ends of a plan: what is entered, what comes out, and what a run hands to the next one."""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated, Literal

import numpy as np
from pydantic import ConfigDict, Field

from mpc.fixedpoint import beyond, nearest_to_zero
from mpc.gates.base import Name
from mpc.wires import Dimension, Frozen, Scale

DataType = Literal[
    "float32",
    "float64",
    "float16",
    "int64",
    "int32",
    "int16",
    "int8",
    "uint64",
    "uint32",
    "uint16",
    "uint8",
    "bool",
    "string",
]


class Missing(Frozen):
    """Where numbers of an input may be missing (NaN), and how that is entered: in one of two ways.

    Args:
        wire: entered by the input's owner beside it: 1 where a number is missing, else 0.
        beyond: a number beyond this end of its column's range stands for a missing one.
        columns: of the last axis, those that may miss numbers; of the others NaN is refused.
    """

    wire: Name | None = None
    beyond: Literal["low", "high"] | None = None
    columns: Annotated[tuple[int, ...], Field(min_length=1, max_length=1 << 16)]


class PlanInput(Frozen):
    """Data that its owner enters for every run, under the model's own name for it.

    Args:
        low, high: the declared range, in the model's units: one number, or one a column of the
            last axis; the owner's client checks it.
        offset, factor: the wire holds (x - offset) factor of an input x: one number, or one a column.
        missing: None where no number may be missing.  In place of one that is, `stand_in` is entered.
        places: None of numbers that are entered as they are.  Else a whole number enters as so many zeros, on one more
            axis at the end of the wire, with 1 at the place that it tells; a negative one counts from the end.
        first: None where the wire has all elements of a row of what it is bound to.  Else it is a *band*: of so many
            neighbours as the wire has in a row, the first one's place among all, from 0.
    """

    name: Name
    wire: Name
    dtype: DataType
    low: Annotated[tuple[Scale, ...], Field(min_length=1, max_length=1 << 16)]
    high: Annotated[tuple[Scale, ...], Field(min_length=1, max_length=1 << 16)]
    offset: Annotated[tuple[Scale, ...], Field(min_length=1, max_length=1 << 16)] = (Fraction(0),)
    factor: Annotated[tuple[Scale, ...], Field(min_length=1, max_length=1 << 16)] = (Fraction(1),)
    missing: Missing | None = None
    places: Annotated[int, Field(ge=1, le=1 << 20)] | None = None
    first: Annotated[int, Field(ge=0, lt=1 << 28)] | None = None

    def of_numbers(self, shape: tuple[Dimension, ...]) -> tuple[Dimension, ...]:
        """Return the shape of what its owner gives, of the shape of its wire."""
        return shape if self.places is None else shape[:-1]

    @property
    def wires(self) -> tuple[str, ...]:
        """The wires that its owner enters."""
        return (self.wire,) if self.missing is None or self.missing.wire is None else (self.wire, self.missing.wire)

    @property
    def stand_in(self) -> np.ndarray:
        """The number that is entered in place of missing ones, or one a column; it follows from the range alone.

        Beside marks that is the number of the range that is nearest to zero.
        """
        low, high = ([float(end) for end in ends] for ends in (self.low, self.high))
        if self.missing is None or self.missing.beyond is None:
            return nearest_to_zero(low, high)
        return beyond(low, high, self.dtype, self.missing.beyond)[0]


class PlanOutput(Frozen):
    """A value that recipients get, and how they read its opened integers.

    Args:
        shape: the model's shape for it; the wire has as many elements.
        labels: the output is an index into these (class labels).
        keys: the output's columns become dictionaries with these keys (ZipMap).
        keep: it stays at the parties, masked, as an object that later sessions can read; who else receives it is
            said apart, and may be nobody.
    """

    name: Name
    wire: Name
    shape: tuple[Dimension, ...]
    dtype: DataType
    labels: tuple[int | str, ...] | None = None
    keys: tuple[int | str, ...] | None = None
    keep: bool = False


class PlanState(Frozen):
    """A value that a run writes and the next run of its session reads, masked as it is.

    Args:
        name: the model's own name for what is read.
        in_: the wire that reads it, "in" in a plan's bytes; an input of the lifetime `STATE`, which nobody holds.
        out: the wire that the next run reads there, of equal shape, scale and bits; parties hold shares of its mask.
        init: a weight, which the first run reads; None for zeros.
    """

    model_config = ConfigDict(populate_by_name=True)

    name: Name
    in_: Name = Field(validation_alias="in", serialization_alias="in")
    out: Name
    init: Name | None = None
