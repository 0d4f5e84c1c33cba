"""One handler an operator: what an ONNX node becomes in the compiler's graph.

A handler reads and defines values through the `Context`; whatever it cannot do it refuses,
naming the attribute.  Adding an operator is adding a function to one of the modules beside
this one, which register their handlers here.
"""

from __future__ import annotations

from collections.abc import Callable

from mpc.compiler.operators.context import Context, ModelNode, Settings

Handler = Callable[[Context, ModelNode, Settings], None]
HANDLERS: dict[tuple[str, str], Handler] = {}
READ_LABELS: set[Handler] = set()
"""Handlers that take labels as labels; for all others the walk makes numbers of them first."""


def handles(*operators: str, domain: str = "ai.onnx", labels: bool = False) -> Callable[[Handler], Handler]:
    """Register a handler for these operators.

    Args:
        labels: it takes labels as labels: it looks at `Context.decoded` itself.
    """

    def register(handler: Handler) -> Handler:
        for operator in operators:
            if HANDLERS.setdefault((domain, operator), handler) is not handler:
                raise ValueError(f"{operator} has two handlers")
        if labels:
            READ_LABELS.add(handler)
        return handler

    return register


def supported() -> list[str]:
    """Return all operators that have a handler, sorted."""
    return sorted(f"{domain}.{name}" if domain != "ai.onnx" else name for domain, name in HANDLERS)
