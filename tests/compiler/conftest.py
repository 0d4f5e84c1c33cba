"""Every graph that these tests compile is held to the compiler's law after the import and after each pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mpc.compiler import compile as from_model
from mpc.compiler import from_graph
from mpc.compiler.graph import passes
from mpc.compiler.graph.graph import Graph
from mpc.compiler.graph.spec import check

CHECKED: list[str] = []
"""Names of what was checked, so that a test can see that the others were."""


def checked(make: Callable[..., Graph]) -> Callable[..., Graph]:
    def run(*given: Any, **settings: Any) -> Graph:
        graph = make(*given, **settings)
        try:
            check(graph)
        except ValueError as error:
            raise AssertionError(f"after {make.__name__}: {error}") from None
        CHECKED.append(make.__name__)
        return graph

    return run


@pytest.fixture(scope="session", autouse=True)
def graphs_keep_the_law() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passes, "PASSES", tuple(map(checked, passes.PASSES)))
        for module, name in (
            (from_model, "import_model"),
            (from_graph, "separate_columns"),
            (from_graph, "bounded_by"),
        ):
            patch.setattr(module, name, checked(getattr(module, name)))
        yield
