"""The law of the compiler's graph: it names what is emitted, lowered and evaluated, all of it; and it refuses."""

from __future__ import annotations

import ast
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mpc.compiler
from mpc.compiler.from_graph import compile_graph
from mpc.compiler.graph import attributes, evaluate
from mpc.compiler.graph.attributes import Affine, Attributes, Maximum, Step, Sum, Take, Total
from mpc.compiler.graph.entries import HOLDS
from mpc.compiler.graph.graph import Graph, GraphInput, GraphOutput, Node, Origin
from mpc.compiler.graph.spec import SPEC, check
from mpc.compiler.lowering import lower
from tests.compiler.conftest import CHECKED

ROOT = Path(mpc.compiler.__path__[0])
EMITTERS = {"emit": 0, "_emit": 0, "Node": 0}
"""What makes a node, and the place of the operator among its arguments."""


def emitted() -> set[str]:
    """Every operator that is written out where a node is made, and those that a node's operator is set to."""
    found: set[str] = set()
    for path in [
        *(ROOT / "onnx").glob("*.py"),
        *(ROOT / "operators").glob("*.py"),
        *(ROOT / "graph").glob("*.py"),
        *(ROOT / "training").glob("*.py"),
    ]:
        for call in ast.walk(ast.parse(path.read_text())):
            if isinstance(call, ast.Call):
                name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
                if name in EMITTERS and call.args and isinstance(call.args[0], ast.Constant):
                    found.add(str(call.args[0].value))
    return found


def test_what_is_emitted_lowered_and_evaluated_is_in_the_law_and_the_reverse() -> None:
    assert emitted() == set(SPEC) == set(lower.RULES) == set(evaluate.OPERATORS)


def graph_of(
    op: str, shape: tuple[Any, ...], reads: tuple[str, ...] = ("x",), attributes: Attributes | None = None
) -> Graph:
    given = GraphInput("x", ("batch", 3), "float32", (-4.0, 4.0))
    node = Node(op, reads, "y", shape, Origin("n", op), attributes or Attributes())
    return Graph([given], [node], [GraphOutput("y", "y", shape, "float32")])


WEIGHT = np.ones((3, 2))


def layer(weight: Any, bias: Any = None, reads: tuple[str, ...] = ("x",)) -> Graph:
    return graph_of("matmul", ("batch", 2), reads, Affine(weight=weight, bias=bias))


LAWFUL: dict[str, Graph] = {
    "matmul": graph_of("matmul", ("batch", 2), attributes=Affine(weight=WEIGHT, bias=None)),
    "relu": graph_of("relu", ("batch", 3), attributes=Attributes(known=(0.0, 4.0))),
    "step": graph_of("step", ("batch", 3, 2), attributes=Step(levels=(0.0, 1.0))),
    "take": graph_of("take", ("batch", 2), attributes=Take(axis=1, indices=(2, -1))),
    "total": graph_of("total", ("batch", 1), attributes=Total(axes=(1,))),
    "sum": graph_of("sum", ("batch", 3), ("x", "x"), Sum(factors=(1.0, -2.0), constant=0.5)),
}
UNLAWFUL: dict[str, tuple[Graph, str]] = {
    "no such operator": (graph_of("cube", ("batch", 3)), "no such operator"),
    "a shape that does not follow": (graph_of("relu", ("batch", 4)), "shape"),
    "attributes of another operator": (graph_of("relu", ("batch", 3), attributes=Maximum()), "Maximum, not Attributes"),
    "no attributes": (graph_of("matmul", ("batch", 2)), "Attributes, not Affine"),
    "those of a form with another number of reads": (layer(WEIGHT, reads=("x", "x")), "Affine, not Attributes"),
    "an attribute of another kind": (layer([[1.0]]), "weight is of another kind"),
    "weights of another type": (layer(WEIGHT.astype(np.float32)), "kind"),
    "none where one belongs": (layer(None), "weight is of another kind"),
    "a bias that does not fit": (layer(WEIGHT, np.ones(5)), "shape"),
    "one factor for two operands": (graph_of("sum", ("batch", 3), ("x", "x"), Sum(factors=(1.0,))), "shape"),
    "an index outside": (graph_of("take", ("batch", 1), attributes=Take(axis=1, indices=(3,))), "shape"),
    "a sum over the batch": (graph_of("total", (1, 3), attributes=Total(axes=(0,))), "shape"),
    "too many values": (graph_of("relu", ("batch", 3), ("x", "x")), "2 values"),
    "a range upside down": (graph_of("relu", ("batch", 3), attributes=Attributes(known=(1.0, 0.0))), "known"),
    "a value that nobody writes": (graph_of("relu", ("batch", 3), ("z",)), "nothing before"),
    "an output that nobody writes": (
        replace(LAWFUL["relu"], outputs=[GraphOutput("o", "o", ("batch", 3), "float32")]),
        "nothing writes",
    ),
    "written twice": (replace(LAWFUL["relu"], nodes=LAWFUL["relu"].nodes * 2), "twice"),
}


@pytest.mark.parametrize("name", LAWFUL)
def test_lawful(name: str) -> None:
    check(LAWFUL[name])


@pytest.mark.parametrize("name", UNLAWFUL)
def test_unlawful(name: str) -> None:
    graph, problem = UNLAWFUL[name]
    with pytest.raises(ValueError, match=problem):
        check(graph)


def records() -> set[type[Attributes]]:
    found = {kind for kind in vars(attributes).values() if isinstance(kind, type) and issubclass(kind, Attributes)}
    assert len(found) > 15
    return found


def test_every_record_belongs_to_an_operator_and_the_law_knows_all_its_fields() -> None:
    assert records() == {form.has for forms in SPEC.values() for form in forms}
    kinds = {str(each.type).removesuffix(" | None") for record in records() for each in fields(record)}
    assert kinds == set(HOLDS)


def test_attributes_are_read_as_their_operators_own() -> None:
    [node] = LAWFUL["take"].nodes
    assert node.of(Take).indices == (2, -1)
    with pytest.raises(TypeError, match="take 'y' has no attributes of the kind Total"):
        node.of(Total)


def test_every_pass_is_checked_while_these_tests_run() -> None:
    CHECKED.clear()
    compile_graph(LAWFUL["relu"], samples={"x": np.zeros((2, 3))})
    assert {"drop_dead_nodes", "fold_linear", "fuse_pooling", "separate_columns"} <= set(CHECKED)
