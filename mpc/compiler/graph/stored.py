"""Inputs that lie at the parties: what a compiler is told of them, and what that makes of a graph's inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

from mpc.compiler.graph.graph import End, GraphInput
from mpc.errors import InputError
from mpc.wires import BATCH


@dataclass(frozen=True)
class StoredInput:
    """Facts of an input that lies at the parties as integers round(x scale).

    Args:
        scales: powers of two, one, or one a column of the last axis.
        low, high: the ends of its range in the model's units, likewise.
    """

    scales: tuple[Fraction, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

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
        elif given.marks or given.beyond:
            raise _takes_missing(given.marks or given.name)
        elif given.whole and self.scales != (1,) * len(self.scales):
            fault = f"it takes whole numbers ({given.dtype}), and a column holds reals"
        elif BATCH not in given.shape[:1]:
            fault = "its first axis is not the batch, and a dataset's rows are"
        elif any(len(each) not in (1, given.shape[-1]) for each in (self.scales, self.low, self.high)):
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
            declared=(_end(self.low), _end(self.high)),
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
                remedy=f"its inputs are {', '.join(given.name for given in inputs if not given.marks)}",
            )
    return [
        stored[name].described(given) if (name := given.marks or given.name) in stored else given for given in inputs
    ]


def _takes_missing(name: str) -> InputError:
    return InputError(
        f"input {name!r} cannot be read from a dataset: the model takes missing numbers (NaN) there",
        cause="an Imputer, or trees with missing_value_tracks_true, ask of each number whether it is missing; a "
        "dataset has that in columns of their own, NAME.missing",
        remedy="export the model without: fill values before training and leave the Imputer out; of trees, set "
        "missing_value_tracks_true to zeros",
    )


def _end(values: tuple[float, ...]) -> End:
    return values[0] if len(values) == 1 else values
