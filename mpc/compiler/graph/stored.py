"""Inputs that lie at the parties: what a compiler is told of them, and what that makes of a graph's inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from mpc.compiler.graph.graph import End, GraphInput, Range
from mpc.errors import InputError
from mpc.wires import BATCH, Dimension


@dataclass(frozen=True)
class StoredInput:
    """Facts of an input that lies at the parties as integers round(x scale).

    Args:
        scales: powers of two, one, or one a column of the last axis.
        low, high: the ends of its range in the model's units, likewise.
        missing: columns of the last axis that may miss numbers; 0/1 columns at the parties mark where they do, and the
            number of the range that is nearest to zero stands there.
        row: the shape of a row of the columns, which an input may read in another shape; of targets.
    """

    scales: tuple[Fraction, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    missing: tuple[int, ...] = ()
    row: tuple[int, ...] = ()

    @property
    def range(self) -> Range:
        """The range, one number or one a column each end."""
        return _end(self.low), _end(self.high)

    def fits(self, shape: Sequence[Dimension]) -> bool:
        """Has an input of that shape as many columns?"""
        return all(len(each) in (1, shape[-1]) for each in (self.scales, self.low, self.high))

    def described(self, given: GraphInput) -> GraphInput:
        """Return the input, whose wire is to hold these integers.

        Raises:
            InputError: they cannot be what the model reads.
        """
        finest = max(self.scales)
        exponents = tuple((finest / scale).numerator.bit_length() - 1.0 for scale in self.scales)
        fault = None
        if any(finest / scale != Fraction(2) ** int(e) for scale, e in zip(self.scales, exponents, strict=True)):
            fault = "its columns' scales are no powers of two of each other"
        elif given.whole and self.scales != (1,) * len(self.scales):
            fault = f"it takes whole numbers ({given.dtype}), and a column holds reals"
        elif BATCH not in given.shape[:1]:
            fault = "its first axis is not the batch, and a dataset's rows are"
        elif not self.fits(given.shape):
            fault = f"a row of it has the shape {given.shape[1:]}, and there are {len(self.scales)} columns"
        if fault is not None:
            raise InputError(
                f"input {given.name!r} cannot be read from a dataset: {fault}",
                remedy="name the columns that the model was made for, in its order: OWNER/NAME:age,bmi, or "
                "dataset[['age', 'bmi']]",
            )
        one = len(exponents) == 1 or not any(exponents)
        return replace(
            given,
            declared=self.range,
            stored=finest,
            exponent=exponents[0] if one else exponents,
        )


def described(inputs: list[GraphInput], stored: Mapping[str, StoredInput]) -> list[GraphInput]:
    """Return the inputs, with those that lie at the parties described.

    Raises:
        InputError: there is no input of that name, or it cannot be read so.
    """
    for name in stored:
        if not any(given.name == name for given in inputs):
            raise InputError(
                f"the model has no input {name!r}",
                remedy=f"its inputs are {', '.join(given.name for given in inputs if given.of == given.name)}",
            )
    return [
        replace(given, stored=Fraction(1))
        if given.beside in stored
        else stored[given.name].described(given)
        if given.name in stored
        else given
        for given in inputs
    ]


def marks_name(name: str) -> str:
    """Name the input that tells where numbers of a stored one are missing."""
    return f"{name}.missing"


def _end(values: tuple[float, ...]) -> End:
    return values[0] if len(values) == 1 else values
