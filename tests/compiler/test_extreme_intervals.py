"""Functions of what is always one number, or has results that fit nowhere: they are right, or refused with a remedy."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from mpc.compiler.compile import compile_model
from mpc.compiler.graph.graph import Graph, Origin
from mpc.compiler.lowering.emitted import Emitted
from mpc.compiler.lowering.intervals import Interval
from mpc.compiler.roles import Roles
from mpc.errors import ModelError
from mpc.wires import BATCH, MAX_BITS
from tests.support.graphs import node, save_model
from tests.support.models import assert_agrees


@pytest.mark.parametrize(("op", "high"), [("Sin", -1.0), ("Cos", -1.0), ("Exp", -1.0)])
def test_a_function_of_what_is_always_zero(op: str, high: float, tmp_path: Path) -> None:
    nodes = [node("Relu", ["x"], ["r"]), node(op, ["r"], ["y"])]
    x = np.linspace(-5, high, 8, dtype=np.float32).reshape(2, 4)
    assert_agrees(save_model(tmp_path, nodes, {}, ("batch", 4)), {"x": x}, {"x": (-5.0, high)})


@pytest.mark.parametrize(
    ("op", "low", "high"),
    [
        ("Sqrt", -5.0, -1.0),
        ("Sinh", 99.0, 100.0),
        ("Cosh", 99.0, 100.0),
        ("Sinh", 0.0, 800.0),
        ("Cosh", 5000.0, 5005.0),
    ],
)
def test_what_has_no_digits_or_too_many_is_refused(op: str, low: float, high: float, tmp_path: Path) -> None:
    nodes = [node("Relu", ["x"], ["r"]), node(op, ["r"], ["y"])]
    with pytest.raises(ModelError, match="range"):
        compile_model(save_model(tmp_path, nodes, {}, ("batch", 4)), {"x": (low, high)})


def test_what_underflows_is_zero(tmp_path: Path) -> None:
    path = save_model(tmp_path, [node("Exp", ["x"], ["y"])], {}, ("batch", 4))
    x = np.linspace(-807, -800, 8, dtype=np.float32).reshape(2, 4)
    assert_agrees(path, {"x": x}, {"x": (-807.0, -800.0)})


@pytest.mark.parametrize("op", ["Sigmoid", "Softplus"])
def test_an_argument_as_wide_as_a_wire_is_refused(op: str, tmp_path: Path) -> None:
    squares = [node("Mul", ["x", "x"], ["a"], name="once"), node("Mul", ["a", "a"], ["b"], name="twice")]
    nodes = [*squares, node("ReduceMean", ["b"], ["m"], axes=[1], keepdims=1), node(op, ["m"], ["y"])]
    with pytest.raises(ModelError, match="too wide"):
        compile_model(save_model(tmp_path, nodes, {}, ("batch", 4)), {"x": (-800.0, 807.0)})


@pytest.mark.parametrize(("size", "reach"), [(64, 2e9), (64, 1e5), (16, 1e9), (7, 1e9)])
@pytest.mark.parametrize("after", ["Identity", "Abs", "Gelu"])
def test_a_product_that_no_scale_holds_is_refused(after: str, size: int, reach: float, tmp_path: Path) -> None:
    """Its bound was no float64, and counted as 0."""
    nodes = [node("ReduceProd", ["x", "axis"], ["p"]), node(after, ["p"], ["a"], name="after")]
    nodes.append(node("Add", ["a", "c"], ["y"]))
    constants = {"axis": np.array([-1]), "c": np.float32(3.0)}
    with pytest.raises(ModelError, match="range"):
        compile_model(save_model(tmp_path, nodes, constants, ("batch", size), opset=20), {"x": (-reach, reach)})


@pytest.mark.parametrize("low", [0.0, -1.0])
@pytest.mark.parametrize("high", [1e-3, 1e-5, 1e-6])
@pytest.mark.parametrize("op", ["ThresholdedRelu", "Greater", "Less"])
def test_a_level_far_beyond_values_has_room(op: str, high: float, low: float, tmp_path: Path) -> None:
    """Their wire is so fine that it held no constant of the size of the level."""
    if op == "ThresholdedRelu":
        nodes = [node("HardSwish", ["x"], ["h"]), node(op, ["h"], ["y"])]
    else:
        nodes = [node("HardSwish", ["x"], ["h"]), node(op, ["h", "c"], ["b"]), node("Cast", ["b"], ["y"], to=1)]
    path = save_model(tmp_path, nodes, {"c": np.float32(0.5)}, ("batch", 4))
    x = np.linspace(low * high, high, 8, dtype=np.float32).reshape(2, 4)
    assert_agrees(path, {"x": x}, {"x": (low * high, high)})


STANDARD = [
    node("ReduceMean", ["w"], ["mean"], axes=[-1]),
    node("Sub", ["w", "mean"], ["apart"]),
    node("Mul", ["apart", "apart"], ["square"]),
    node("ReduceMean", ["square"], ["variance"], name="variance", axes=[-1]),
    node("Add", ["variance", "little"], ["more"]),
    node("Sqrt", ["more"], ["deviation"]),
    node("Div", ["apart", "deviation"], ["y"]),
]
LOGARITHM = [
    node("ReduceSum", ["w", "last"], ["sum"]),
    node("Add", ["sum", "little"], ["more"]),
    node("Log", ["more"], ["y"]),
]


@pytest.mark.parametrize("little", [1e-12, 1e-5, 1e-3])
@pytest.mark.parametrize("size", [1, 3, 8])
@pytest.mark.parametrize("of", ["Ceil", "bits"])
@pytest.mark.parametrize("last", [STANDARD, LOGARITHM])
def test_a_little_that_is_added_to_whole_numbers_is_there(
    last: list, of: str, size: int, little: float, tmp_path: Path
) -> None:
    """A wire of whole numbers held 0 of it, and was taken to be 1 at least: that was refused as a fault."""
    whole = [node("Relu", ["x"], ["r"]), node("Ceil", ["r"], ["w"])]
    if of == "bits":
        whole = [node("Greater", ["x", "half"], ["b"]), node("Cast", ["b"], ["w"], to=1)]
    known = {"little": np.float32(little), "half": np.float32(0.5), "last": np.array([-1])}
    read = {name for each in whole + last for name in each.input}
    constants = {name: value for name, value in known.items() if name in read}
    path = save_model(tmp_path, [*whole, *last], constants, ("batch", size))
    x = np.random.default_rng(7).uniform(-1, 3, (60, size)).astype(np.float32)
    x[::3] = x[::3, :1]
    compiled = compile_model(path, (-1.0, 3.0))
    assert compiled.rehearsal.expected
    if last is STANDARD or little > 1e-6:
        assert_agrees(path, {"x": x}, {"x": (-1.0, 3.0)}, tolerance=1e-3)


def test_a_wire_that_no_plan_holds_is_refused_in_words() -> None:
    """It ended in an error of the library that checks fields."""
    state = Emitted(Graph([], [], []), Roles(), origin=Origin("scores", "Add"))
    with pytest.raises(ModelError, match=r"node 'scores' \(Add\).*too large for a plan") as caught:
        state.wire("x", (BATCH, 4), Fraction(1), Interval.between(0, 1, ()), least_bits=MAX_BITS + 1)
    assert caught.value.remedy and "x" not in state.wires
