"""One handler an operator: what an ONNX node becomes in the compiler's graph.

A handler reads and defines values through the `Importer`; whatever it cannot do it refuses,
naming the attribute.  Adding an operator is adding a function to one of the modules beside
this one, which register their handlers here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx

    from mpc.compiler.onnx.walk import Importer

Settings = dict[str, Any]
Handler = Callable[["Importer", "onnx.NodeProto", Settings], None]
HANDLERS: dict[tuple[str, str], Handler] = {}


def handles(*operators: str, domain: str = "ai.onnx") -> Callable[[Handler], Handler]:
    """Register a handler for these operators."""

    def register(handler: Handler) -> Handler:
        for operator in operators:
            if HANDLERS.setdefault((domain, operator), handler) is not handler:
                raise ValueError(f"{operator} has two handlers")
        return handler

    return register


def supported() -> list[str]:
    """All operators that have a handler, sorted."""
    return sorted(f"{domain}.{name}" if domain != "ai.onnx" else name for domain, name in HANDLERS)
