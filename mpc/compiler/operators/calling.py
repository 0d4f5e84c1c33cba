"""Call one operator's handler from another's: what is made of several is imported as if the model had those."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from mpc.compiler.operators.context import Context, ModelNode
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
