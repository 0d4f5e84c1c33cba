"""State of a session, as its coordinator says it: which output the next run reads as which input."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, TypeGuard

from mpc.compiler.graph.states import State, StoredStart
from mpc.errors import UsageError
from mpc.plan.plan import Plan
from mpc.text import shown
from mpc.wires import BATCH
from parties.agreed.bindings import Binding

if TYPE_CHECKING:
    from parties.client.selection import Selection

__all__ = ["State", "bound_states", "compiled_states", "read_states", "repeats"]
States = Mapping[str, str | State]
"""Output -> the input as which the next run reads it, or that and what the first run reads."""


def read_states(given: object, owners: Collection[str] = (), data: Collection[str] = ()) -> dict[str, State]:
    """Return what is said of state, by output.

    Args:
        given: None for a model without state.
        owners, data: inputs that others enter, and those that are read from datasets.

    Raises:
        UsageError: it has no form that means anything, or somebody enters what the run before leaves.
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise UsageError("state is by output", remedy="state={'w_out': 'w'}: the next run reads w_out as w")
    found = {}
    for name, each in given.items():
        state = State(each) if isinstance(each, str) else each
        if not isinstance(name, str) or not isinstance(state, State) or not isinstance(state.input, str):
            raise UsageError(
                f"what the next run reads output {shown(str(name))!r} as is no input",
                remedy="state={'w_out': 'w'}, or {'w_out': State('w', start=array)}",
            )
        if state.input in owners or state.input in data:
            raise UsageError(
                f"input {shown(state.input)!r} is what the run before leaves, and somebody enters it as well",
                remedy=f"leave {shown(state.input)!r} out of owners and data",
            )
        found[name] = state
    return found


def compiled_states(states: Mapping[str, State]) -> dict[str, State]:
    """Return what is said of state as a compiler takes it: what lies at the parties by its shape, scale and size.

    Raises:
        UsageError: it is several columns, or has rows.
    """
    return {
        name: replace(state, start=_described(state.start)) if _lies_there(state.start) else state
        for name, state in states.items()
    }


def _described(chosen: Selection) -> StoredStart:
    if len(chosen.columns) != 1 or chosen.manifest.rows != 1:
        raise UsageError(
            f"{chosen.manifest.name} has {chosen.manifest.rows} rows, and {len(chosen.columns)} columns are named",
            cause="a state begins with one array, which is one column of one row",
            remedy="State('w', start=cluster.dataset('owner/name')[['w']])",
        )
    [column] = chosen.columns
    most = max(abs(column.low), abs(column.high))
    return StoredStart(chosen.manifest.owner, column.shape, column.scale, most)


def bound_states(plan: Plan, states: Mapping[str, State]) -> dict[str, Binding]:
    """Return what the weights that states begin with stand for, by wire."""
    inits = {state.name: state.init for state in plan.states}
    return {
        init: Binding(init, state.start.manifest.id, state.start.names, 0, 1)
        for state in states.values()
        if _lies_there(state.start) and (init := inits[state.input]) is not None
    }


def _lies_there(start: object) -> TypeGuard[Selection]:
    """Tell whether it is a column of an object at the parties."""
    from parties.client.selection import Selection  # which most sessions do without

    return isinstance(start, Selection)


def repeats(plan: Plan) -> bool:
    """Do all runs of a session with state have equally many rows, whatever is entered?"""
    return bool(plan.states) and all(BATCH not in wire.shape for wire in plan.wires)
