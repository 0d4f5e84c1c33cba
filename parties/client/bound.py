"""Inputs that are read from datasets at the parties: what the compiler is told of them, and what the terms say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mpc.compiler.graph.stored import StoredInput
from mpc.errors import InputError, UsageError
from mpc.plan.plan import Plan
from parties.agreed.bindings import Binding, check_bindings, check_columns
from parties.client.selection import Selection


def as_data(given: Any) -> dict[str, Selection]:
    """Return the columns that stand for each input; `UsageError` if what is given says nothing of the kind."""
    if given is None:
        return {}
    if not isinstance(given, Mapping) or not all(
        isinstance(name, str) and isinstance(selection, Selection) for name, selection in given.items()
    ):
        raise UsageError(
            "data are columns of datasets, by input",
            remedy="data={'x': cluster.dataset('owner/name')[['age', 'bmi']]}",
        )
    return dict(given)


def described(selection: Selection) -> StoredInput:
    """Return what the compiler has to know: scales and ranges, one, or one an element of a row."""
    every = [column for column in selection.columns for _ in range(column.elements(1))]
    facts = [(column.scale, float(column.low), float(column.high)) for column in every]
    if len({*facts}) == 1 or len(selection.columns) == 1:
        facts = facts[:1]
    scales, low, high = zip(*facts, strict=True)
    return StoredInput(scales, low, high)


def owners(data: Mapping[str, Selection]) -> dict[str, str]:
    """Return whose each input is."""
    return {name: selection.manifest.owner for name, selection in data.items()}


def bindings(plan: Plan, data: Mapping[str, Selection]) -> tuple[Binding, ...]:
    """Return what the stored inputs of a plan stand for, in its order.

    Raises:
        InputError: an input that is stored has no dataset, or not the columns that it reads; or rows differ in number.
    """
    inputs = {given.wire: given for given in plan.inputs}
    found = []
    for gate in plan.stored:
        name = inputs[gate.out].name if gate.out in inputs else None
        if name is None or name not in data:
            raise InputError(
                f"input {name or gate.out!r} is read from a dataset, and none is given",
                remedy="data={'x': cluster.dataset('owner/name')[['age']]}",
            )
        chosen, wire = data[name], plan.wire[gate.out]
        check_columns(inputs[gate.out], wire.shape[1:], wire.scale, chosen.columns, chosen.manifest.name)
        found.append(Binding(gate.out, chosen.manifest.id, chosen.names, 0, chosen.manifest.rows))
    rows = {each.rows for each in found}
    if len(rows) > 1:
        raise InputError(
            f"the datasets have different numbers of rows: {', '.join(map(str, sorted(rows)))}",
            remedy="ask about each of them apart: their rows are not of the same people",
        )
    check_bindings(plan, found)
    return tuple(found)
