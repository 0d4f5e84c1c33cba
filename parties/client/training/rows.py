"""Columns at the parties that a training reads: of one dataset, or of several whose rows follow one another.

What the compiler is told of them is what their owners have signed: scales, ranges, categories.  Rows of several owners
have to be held alike, for a step reads them as one table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mpc.compiler.graph.stored import StoredInput
from mpc.compiler.training.precision import Precision
from mpc.errors import InputError, UsageError
from mpc.plan.plan import Plan
from mpc.text import shown
from parties.agreed.bindings import Binding
from parties.client.at_rest import bound
from parties.client.selection import Selection

READ_AS_IT_LIES = 6
"""Fractional bits beyond those of a step's activations for which no round is spent."""


@dataclass(frozen=True)
class Rows:
    """Rows that one input of a step is read from.

    Args:
        parts: columns of each dataset, in the order of their rows.
    """

    parts: tuple[Selection, ...]

    @property
    def count(self) -> int:
        """Number of rows of all datasets."""
        return sum(len(each.bound_rows) for each in self.parts)

    @property
    def owners(self) -> tuple[str, ...]:
        """Names of their owners, sorted."""
        return tuple(sorted({each.manifest.owner for each in self.parts}))

    @property
    def lengths(self) -> tuple[int, ...]:
        """Rows of each dataset."""
        return tuple(len(each.bound_rows) for each in self.parts)

    def described(self, name: str) -> StoredInput:
        """Return what the compiler has to know of them.

        Raises:
            InputError: the datasets do not hold the columns alike.
        """
        first, *others = self.parts
        found = bound.described(first)
        for each in others:
            _require_alike(name, first, each)
            other = bound.described(each)
            low, high = (
                tuple(end(pair) for pair in zip(one, two, strict=True))
                for end, one, two in ((min, found.low, other.low), (max, found.high, other.high))
            )
            found = replace(found, low=low, high=high, missing=tuple(sorted({*found.missing, *other.missing})))
        shapes = [column.shape for column in first.columns]
        return replace(found, row=shapes[0] if len(shapes) == 1 else (len(found.scales),))

    def bindings(self, wire: str) -> list[Binding]:
        """Return what a stored wire is bound to."""
        return [
            Binding(wire, each.manifest.id, each.names, each.bound_rows.start, len(each.bound_rows))
            for each in self.parts
        ]


def lie_there(given: Any) -> bool:
    """Are these columns at the parties, or several such?"""
    from parties.client.dataset import Dataset

    if isinstance(given, Mapping):
        return any(lie_there(each) for each in given.values())
    if isinstance(given, Selection | Dataset):
        return True
    return (
        isinstance(given, Sequence)
        and not isinstance(given, str)
        and any(isinstance(each, Selection | Dataset) for each in given)
    )


def read_rows(names: Sequence[str], target: str, x: Any, y: Any) -> dict[str, Rows]:
    """Return what each input of a step, and its targets, are read from.

    Args:
        names: of the model's inputs.
        x: columns, or a list of columns of several datasets; by input, if the model has several.

    Raises:
        UsageError: some of it is no column at the parties.
        InputError: an input has none, or numbers of rows differ.
    """
    given = dict(x) if isinstance(x, Mapping) else {names[0]: x} if len(names) == 1 else None
    if given is None or {*given} != {*names}:
        raise InputError(
            "x is not what the model reads", remedy=f"give columns for each input: {', '.join(map(shown, names))}"
        )
    found = {name: _rows(name, each) for name, each in {**given, target: y}.items()}
    if len({each.lengths for each in found.values()}) > 1:
        raise InputError(
            "x and y have different numbers of rows",
            cause=", ".join(f"{name}: {' + '.join(map(str, each.lengths))}" for name, each in found.items()),
            remedy="name columns of one dataset, or datasets whose rows are of the same people in the same order",
        )
    if len(found[target].parts[0].names) != 1:
        raise UsageError("the targets are several columns", remedy="name one: ds['y']")
    return found


def _rows(name: str, given: Any) -> Rows:
    several = list(given) if isinstance(given, Sequence) and not isinstance(given, str | Selection) else [given]
    if not several:
        raise UsageError(f"{shown(name)!r} is read from no dataset", remedy="trainer.fit(ds['x'], ds['y'])")
    for each in several:
        if not lie_there(each):
            raise UsageError(
                f"{shown(name)!r} is an array, and other rows of this training lie at the parties",
                remedy="put it too, or train on arrays alone: trainer.fit(x, y)",
            )
    return Rows(tuple(bound.choose(name, each) for each in several))


def _require_alike(name: str, one: Selection, other: Selection) -> None:
    where = f"{one.manifest.name} and {other.manifest.name}"
    if one.names != other.names and len(one.names) != len(other.names):
        raise InputError(
            f"input {shown(name)!r} is read from different columns of {where}",
            remedy="name the same columns of each, in one order",
        )
    for mine, theirs in zip(one.columns, other.columns, strict=True):
        same = (mine.scale, mine.shape, mine.categories) == (theirs.scale, theirs.shape, theirs.categories)
        if mine.name != theirs.name or not same:
            raise InputError(
                f"column {shown(mine.name)!r} is not held alike in {where}",
                cause="names, fractional bits, shapes and categories, in their order, have to be equal",
                remedy="let one of the owners put it again as the other one did: bits=, categories=",
            )


def notes(rows: Mapping[str, Rows], precision: Precision) -> list[str]:
    """Say what is read in place of missing values, and which columns cost a round since they have many bits."""
    parts = [(name, each) for name, found in rows.items() for each in found.parts]
    found = [note for name, each in parts for note in bound.notes({name: each})]
    for name, each in parts:
        fine = [column for column in each.columns if column.scale > 1 << precision.activations + READ_AS_IT_LIES]
        if fine:
            found.append(
                f"column {shown(fine[0].name)!r} of {each.manifest.name} is held in parts of 1/{fine[0].scale}, and a "
                f"step reads input {shown(name)!r} in parts of 1/{1 << precision.activations}: a round more a step; "
                f"put it with bits={{{shown(fine[0].name)!r}: {precision.activations}}}"
            )
    return list(dict.fromkeys(found))


def data_bindings(plan: Plan, rows: Mapping[str, Rows]) -> list[Binding]:
    """Return what the stored inputs of a step's plan stand for, in its order; weights are none."""
    names = {given.wire: given.name for given in plan.inputs}
    return [each for gate in plan.stored if not gate.is_weight for each in rows[names[gate.out]].bindings(gate.out)]
