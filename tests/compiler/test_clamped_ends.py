"""What a function is beyond the interval of its series begins where it should, however steep the function is there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mpc.compiler.compile import compile_model
from mpc.compiler.from_graph import compile_graph
from mpc.compiler.graph.emitter import Emitter
from mpc.compiler.graph.graph import Graph, GraphInput, GraphOutput, Origin
from mpc.compiler.graph.noising import Noising
from mpc.compiler.roles import Roles
from mpc.plan.cost import plan_cost
from tests.support.graphs import node, save_model
from tests.support.models import clear, encrypted, plaintext

EDGE = 11.0
"""The level from which on softplus is computed as its argument."""


@pytest.mark.parametrize("reach", [16.0, 100.0])
def test_softplus_just_below_its_line(reach: float, tmp_path: Path) -> None:
    """A fiftieth of a unit below the level counted as above it, so that it was off by 0.02 there."""
    compiled = compile_model(save_model(tmp_path, [node("Softplus", ["x"], ["y"])], {}, ("batch", 1)), (-reach, reach))
    x = np.concatenate([EDGE + np.linspace(-0.05, 0.05, 400), np.linspace(-reach, reach, 400)])[:, None]
    off = np.abs(clear(compiled, x.astype(np.float32)) - np.logaddexp(0, x.astype(np.float32)))
    assert off.max() < 2e-4
    assert plan_cost(compiled.plan, 1).rounds == 4


def test_the_slope_of_softplus_above_its_line() -> None:
    """It was that of the line once more, so that a training moved by twice as much as it should."""
    emitter = Emitter()
    emitter.origin, emitter.shapes = Origin("layer", "test"), {"x": ("batch", 1)}
    emitter.function("softplus_slope", "x", out="y")
    given = GraphInput("x", ("batch", 1), "float64", (-32.0, 32.0))
    out = GraphOutput("y", "y", ("batch", 1), "float32")
    lowered = compile_graph(Graph([given], emitter.nodes, [out]), Roles(), None, Noising({}))
    x = np.concatenate([np.linspace(-32, 10.99, 200), np.linspace(11.01, 32, 200)])[:, None]
    wanted = np.where(x > EDGE, 0.0, 1 / (1 + np.exp(-x)))
    assert np.abs(clear(lowered, x) - wanted).max() < 1e-4


SENT = {(-3, 3): 832, (-50, 50): 1058, (-3, 50): 945, (-50, 3): 945}
"""Bytes for 100 numbers: the result, and at each end that may be passed a look-up and its bit."""


@pytest.mark.parametrize("ends", SENT, ids=str)
@pytest.mark.parametrize("name", ["Sigmoid", "Tanh", "Erf"])
def test_an_end_that_is_never_passed_is_not_looked_up(name: str, ends: tuple[int, int], tmp_path: Path) -> None:
    path = save_model(tmp_path, [node(name, ["x"], ["y"])], {}, ("batch", 100))
    compiled = compile_model(path, ends)
    assert plan_cost(compiled.plan).sent == SENT[ends]
    x = np.linspace(*ends, 300, dtype=np.float32).reshape(3, 100)
    [exact] = plaintext(path, {"x": x})
    assert np.abs(clear(compiled, x) - exact).max() < 2e-4
    [ours] = encrypted(compiled, {"x": x})
    assert np.abs(ours - exact).max() < 2e-4


@pytest.mark.parametrize(("name", "ends", "sent"), [("Exp", (-50, 3), 945), ("Softplus", (-3, 50), 2658)])
def test_one_end_of_others_is_looked_up_alone(name: str, ends: tuple[int, int], sent: int, tmp_path: Path) -> None:
    path = save_model(tmp_path, [node(name, ["x"], ["y"])], {}, ("batch", 100))
    compiled = compile_model(path, ends)
    assert plan_cost(compiled.plan).sent == sent
    x = np.linspace(*ends, 300, dtype=np.float32).reshape(3, 100)
    [exact], [ours] = plaintext(path, {"x": x}), encrypted(compiled, {"x": x})
    assert np.abs(ours - exact).max() < 1e-3
