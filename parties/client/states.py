"""State of a session, as its coordinator says it: which output the next run reads as which input."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from mpc.compiler.graph.states import State
from mpc.errors import UsageError
from mpc.plan.plan import Plan
from mpc.text import shown
from mpc.wires import BATCH

__all__ = ["State", "read_states", "repeats"]
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


def repeats(plan: Plan) -> bool:
    """Do all runs of a session with state have equally many rows, whatever is entered?"""
    return bool(plan.states) and all(BATCH not in wire.shape for wire in plan.wires)
