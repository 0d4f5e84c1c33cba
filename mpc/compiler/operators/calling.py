"""Call one operator's handler from another's: what is made of several is imported as if the model had those."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from mpc.compiler.operators.context import Context, ModelNode
from mpc.compiler.operators.places import public
from mpc.compiler.operators.registry import HANDLERS


def call(
    state: Context,
    operator: str,
    reads: tuple[str, ...],
    out: str | None = None,
    settings: Mapping[str, Any] = MappingProxyType({}),
) -> str:
    """Import an operator of ONNX's own with these inputs and attributes; return the name of its first output.

    Args:
        out: that name; None: a fresh one.
    """
    name, given = state.fresh() if out is None else out, dict(settings)
    HANDLERS["ai.onnx", operator](state, ModelNode(operator, reads, (name,), read=lambda: given), given)
    return name


def rows_at(state: Context, table: str, places: str) -> str:
    """Return the rows of a table at these places, (*places, *row); a constant, if both are.

    A model's own lookup is computed before it is imported, if it is of constants; one inside an operator is not.
    """
    if state.is_constant(table) and not state.is_constant(places) and (numbers := public(state, places)) is not None:
        rows = state.numbers(table, "the table")[numbers.astype(np.int64)]
        return state.stored(rows, (*state.shapes[places], *rows.shape[numbers.ndim :]))
    if not (state.is_constant(table) and state.is_constant(places)):
        return call(state, "Gather", (table, places), None, {"axis": 0})
    rows, name = state.constants[table], state.fresh()
    taken = state.numbers(places, "the places").astype(np.int64)
    if taken.size and not -len(rows) <= taken.min() <= taken.max() < len(rows):
        raise state.origin.refuse(
            f"a place outside the {len(rows)} rows of its table",
            remedy=f"give places from {-len(rows)} to {len(rows) - 1}",
        )
    state.constants[name] = rows[taken]
    return name
