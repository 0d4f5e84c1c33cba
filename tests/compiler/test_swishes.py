"""Hard swishes that a model spells out are as precise as the operator, and cost no more."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import NodeProto

from mpc.compiler.compile import compile_model
from mpc.plan.cost import plan_cost
from tests.support.graphs import node, save_model
from tests.support.models import assert_agrees

CLIPPED = [node("Add", ["x", "three"], ["a"]), node("Clip", ["a", "zero", "six"], ["t"])]
ONE = [node("HardSwish", ["x"], ["y"])]
WRITTEN: dict[str, list[NodeProto]] = {
    "a product that is divided": [*CLIPPED, node("Mul", ["x", "t"], ["p"]), node("Div", ["p", "six"], ["y"])],
    "a product with a part": [*CLIPPED, node("Div", ["t", "six"], ["g"]), node("Mul", ["x", "g"], ["y"])],
    "a product with a sixth": [*CLIPPED, node("Mul", ["t", "sixth"], ["g"]), node("Mul", ["g", "x"], ["y"], "last")],
    "a hard sigmoid": [node("HardSigmoid", ["x"], ["g"], alpha=1 / 6, beta=0.5), node("Mul", ["x", "g"], ["y"])],
}
CONSTANTS = {"zero": 0.0, "three": 3.0, "six": 6.0, "sixth": 1 / 6, "two": 2.0}


def made(folder: Path, nodes: list[NodeProto]) -> Path:
    read = {name for each in nodes for name in each.input}
    constants = {name: np.float32(value) for name, value in CONSTANTS.items() if name in read}
    return save_model(folder, nodes, constants, ("batch", 4), opset=18)


@pytest.mark.parametrize("reach", [8.0, 1e3])
@pytest.mark.parametrize("name", WRITTEN)
def test_it_is_the_operator(name: str, reach: float, tmp_path: Path) -> None:
    """A rounding of what lies between 0 and 1 was multiplied by x."""
    rng = np.random.default_rng(6)
    x = np.concatenate([rng.uniform(-6, 6, (60, 4)), rng.uniform(-reach, reach, (60, 4))]).astype(np.float32)
    one = compile_model(made(tmp_path, ONE), {"x": (-reach, reach)})
    compiled = assert_agrees(made(tmp_path, WRITTEN[name]), {"x": x}, {"x": (-reach, reach)}, tolerance=2e-4)
    assert compiled.errors["y"] < 2 * one.errors["y"]
    ours, theirs = (plan_cost(each.plan, 1) for each in (compiled, one))
    assert (ours.rounds, ours.sent) <= (theirs.rounds, theirs.sent)


@pytest.mark.parametrize(
    "nodes",
    [
        [*CLIPPED, node("Mul", ["t", "two"], ["g"]), node("Mul", ["g", "t"], ["y"], "last")],
        [node("Add", ["x", "two"], ["a"]), *CLIPPED[1:], node("Mul", ["x", "t"], ["y"])],
        [CLIPPED[0], node("Clip", ["a", "zero", "two"], ["t"]), node("Mul", ["x", "t"], ["y"])],
        [node("HardSigmoid", ["x"], ["g"], alpha=0.2, beta=0.5), node("Mul", ["x", "g"], ["y"])],
    ],
)
def test_what_is_another_product_stays_one(nodes: list[NodeProto], tmp_path: Path) -> None:
    x = np.random.default_rng(6).uniform(-8, 8, (40, 4)).astype(np.float32)
    assert_agrees(made(tmp_path, nodes), {"x": x}, {"x": (-8.0, 8.0)})
