"""Inputs that are read from datasets at the parties: what the compiler is told of them, and what the terms say."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from mpc.compiler.graph.stored import StoredInput, marks_name
from mpc.errors import InputError, UsageError, warn
from mpc.plan.plan import Plan
from mpc.text import shown
from parties.agreed.bindings import Binding, check_bindings, check_columns, parts_of
from parties.agreed.objects import Schema
from parties.client.at_rest.matching import by_column
from parties.client.selection import Selection

Chosen = Selection | Sequence[Selection]
"""Columns of a dataset, or of several whose rows follow one another."""


def read_choices(given: object, ranges: Any = None, inputs: Sequence[str] = ()) -> dict[str, Selection]:
    """Return the columns that stand for inputs: a dataset stands for all of its columns.

    Args:
        given: input -> columns of a dataset, or a dataset; None for no inputs.  A dataset alone is the one input, or
            each input the column of its name.
        inputs: of the model.
        ranges: what is said of inputs' ranges, by name; a dataset has its own.

    Raises:
        UsageError: it is something else, or a range is said of an input that is read from a dataset.
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping) and (known := _columns(given)):
        given = {
            name: given if len(inputs) == 1 else choose(name, given).take((name,)) for name in by_column(inputs, known)
        } or None
    if not isinstance(given, Mapping):
        raise UsageError("data are by input", remedy="data={'x': cluster.dataset('owner/name')[['age', 'bmi']]}")
    found = {name: choose(name, each) for name, each in given.items()}
    refuse_said(ranges if isinstance(ranges, Mapping) else (), found, "a range")
    return found


def refuse_said(said: Collection[str], data: Collection[str], what: str) -> None:
    """Refuse what is said of inputs that are read from datasets; `UsageError` names the input."""
    for name in data:
        if name in said:
            raise UsageError(
                f"input {shown(name)!r} is read from a dataset, and has {what} as well",
                cause="values and ranges are the dataset's own",
                remedy=f"leave {what} of {shown(name)!r} out",
            )


def choose(name: str, given: Any) -> Selection:
    """Return the columns that stand for an input: a dataset stands for all of its columns.

    Raises:
        UsageError: it is neither.
    """
    if isinstance(given, Selection):
        return given
    if isinstance(getattr(given, "manifest", None), Schema):  # a dataset
        return Selection(given.manifest, tuple(_columns(given)), True, every=True)
    raise UsageError(
        f"what input {shown(str(name))!r} is to be read from is no dataset",
        remedy="data={'x': cluster.dataset('owner/name')[['age', 'bmi']]}; arrays are for session.run",
    )


def _columns(given: Any) -> tuple[str, ...]:
    """Return the names of the columns of a dataset or of some of them; none for what is neither."""
    if isinstance(given, Selection):
        return given.names
    manifest = getattr(given, "manifest", None)
    return tuple(column.name for column in manifest.columns) if isinstance(manifest, Schema) else ()


def notes(data: Mapping[str, Selection], plan: Plan | None = None) -> list[str]:
    """Say where numbers stand for missing values that a model cannot tell from real ones, and what is not checked.

    plan: which reads marks of missing values if the model asks for them.
    """
    found = [] if plan is None else unchecked(data, plan)
    asked = {given.name for given in plan.inputs} if plan is not None else set()
    for name, chosen in data.items():
        if marks_name(name) in asked:
            continue
        marks = {each.missing_of: each.name for each in chosen.manifest.columns}
        for column in chosen.columns:
            if column.name in marks and marks[column.name] not in chosen.names:
                stands = float(column.low) if column.low > 0 else min(float(column.high), 0.0)
                found.append(
                    f"column {shown(column.name)!r} of {chosen.manifest.name} may miss values: where it does, input "
                    f"{shown(name)!r} reads {stands:g}"
                )
    return found


def unchecked(data: Mapping[str, Selection], plan: Plan) -> list[str]:
    """Say which data no check vouches for, of a plan whose runs are checked; nothing of other plans."""
    names = sorted({each.manifest.name for each in data.values() if not each.manifest.is_checked})
    said = "was kept in a session that was not checked: what a party changed then, no check finds now"
    return [f"{name} {said}" for name in names] if plan.is_checked else []


def warn_of(data: Mapping[str, Selection], plan: Plan) -> None:
    """Issue what `notes` says as warnings (`MpcWarning`)."""
    for note in notes(data, plan):
        warn(note)


def described(selection: Selection) -> StoredInput:
    """Return what the compiler has to know: scales and ranges, one, or one an element of a row."""
    every = [column for column in selection.columns for _ in range(column.elements(1))]
    marked = {each.missing_of for each in selection.manifest.columns}
    missing = tuple(place for place, column in enumerate(every) if not column.shape and column.name in marked)
    facts = [(column.scale, float(column.low), float(column.high)) for column in every]
    if len({*facts}) == 1 or len(selection.columns) == 1:
        facts = facts[:1]
    scales, low, high = zip(*facts, strict=True)
    return StoredInput(scales, low, high, missing)


def _marks(selection: Selection) -> Selection:
    """Return the 0/1 columns that mark where those of a selection miss numbers, in its order; itself if none do."""
    marks = {each.missing_of: each.name for each in selection.manifest.columns}
    names = tuple(marks[name] for name in selection.names if name in marks)
    return selection.take(names) if names else selection


def owners(data: Mapping[str, Selection]) -> dict[str, str]:
    """Return whose each input is."""
    return {name: selection.manifest.owner for name, selection in data.items()}


def bindings(
    plan: Plan, data: Mapping[str, Chosen], weights: Mapping[str, Binding] = MappingProxyType({})
) -> tuple[Binding, ...]:
    """Return what the stored inputs of a plan stand for, in its order.

    Args:
        data: input -> columns of a dataset, or of several whose rows follow one another.
        weights: what its stored weights stand for, by wire.

    Raises:
        InputError: an input that is stored has no dataset, or not the columns that it reads; or rows differ in number.
    """
    inputs = {given.wire: given for given in plan.inputs}
    parts = {name: (each,) if isinstance(each, Selection) else tuple(each) for name, each in data.items()}
    parts = {**{marks_name(name): tuple(map(_marks, each)) for name, each in parts.items()}, **parts}
    found = []
    for gate in plan.stored:
        if gate.out in weights:
            found.append(weights[gate.out])
            continue
        name = inputs[gate.out].name if gate.out in inputs else None
        if name is None:
            raise InputError(
                f"{gate.out!r} of this plan is a weight of a model at the parties, and no model is named",
                remedy="mpc model check OWNER/NAME asks whether you may use it, mpc run @OWNER/NAME runs it",
            )
        if not parts.get(name):
            raise InputError(
                f"input {name!r} is read from a dataset, and none is given",
                remedy="data={'x': cluster.dataset('owner/name')[['age']]}",
            )
        wire = plan.wire[gate.out]
        for chosen in parts[name]:
            check_columns(inputs[gate.out], wire.shape[1:], wire.scale, chosen.columns, chosen.manifest.name)
            taken = chosen.bound_rows
            found.append(Binding(gate.out, chosen.manifest.id, chosen.names, taken.start, len(taken)))
    wires = {each.wire for each in found if each.wire not in weights}
    rows = {sum(each.rows for each in parts_of(found, wire)) for wire in wires}
    if len(rows) > 1:
        raise InputError(
            f"the datasets have different numbers of rows: {', '.join(map(str, sorted(rows)))}",
            remedy="ask about each of them apart: their rows are not of the same people",
        )
    check_bindings(plan, found)
    return tuple(found)
