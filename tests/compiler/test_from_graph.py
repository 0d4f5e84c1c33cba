"""A graph is compiled as it is, whatever it was made from: ONNX is one way to make one."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mpc.compiler.compile import compile_model
from mpc.compiler.from_graph import compile_graph
from mpc.compiler.graph.graph import Graph, GraphInput, GraphOutput, Node, Origin
from mpc.compiler.roles import Roles
from mpc.errors import InputError, ModelError
from mpc.plan.parse import parse_plan
from tests.support.graphs import node, save_model

ROWS = ("batch", 3)


def by_hand() -> Graph:
    """y = max(0, x)."""
    given = GraphInput("x", ROWS, "float32", (-4.0, 4.0))
    return Graph(
        [given], [Node("relu", ("x",), "y", ROWS, Origin("n", "Relu"))], [GraphOutput("y", "y", ROWS, "float32")]
    )


def test_a_graph_made_by_hand_is_the_plan_of_its_model(tmp_path: Path) -> None:
    plan = compile_graph(by_hand()).plan
    assert parse_plan(plan.canonical).digest == plan.digest
    model = save_model(tmp_path, [node("Relu", ["x"], ["y"])], {}, ROWS)
    assert compile_model(model, {"x": (-4.0, 4.0)}).plan.canonical == plan.canonical


def test_what_a_graph_lacks_is_named() -> None:
    with pytest.raises(ModelError, match="no inputs"):
        compile_graph(replace(by_hand(), inputs=[], nodes=[]))
    with pytest.raises(ModelError, match="no input 'z'"):
        compile_graph(by_hand(), Roles(owners={"z": "alice"}))
    with pytest.raises(InputError, match="shape"):
        compile_graph(by_hand(), samples={"x": np.zeros((2, 4))})


def test_nothing_of_it_loads_onnx() -> None:
    code = "import sys, mpc.compiler.from_graph; sys.exit('onnx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
