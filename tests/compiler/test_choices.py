"""What an index or a condition chooses: embeddings, one-hot vectors, branches, the extremes of data and constants."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from mpc.compiler.compile import compile_model
from mpc.compiler.graph.stored import StoredInput
from mpc.errors import ModelError
from mpc.interpret.world import World
from tests.support.graphs import node, save_model
from tests.support.models import assert_agrees, encrypted
from tests.support.worlds import seed

RNG = np.random.default_rng(6)
TABLE = RNG.standard_normal((7, 3)).astype(np.float32)
X = {"x": RNG.uniform(-2, 2, (5, 4)).astype(np.float32)}


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("least", [0, -7])
def test_a_secret_index_reads_rows_of_a_table(tmp_path: Path, axis: int, least: int) -> None:
    table = np.moveaxis(TABLE, 0, axis)
    path = save_model(
        tmp_path, [node("Gather", ["t", "x"], ["y"], axis=axis)], {"t": table}, (3, 2), element=TensorProto.INT64
    )
    assert_agrees(path, {"x": RNG.integers(least, 7, (3, 2))}, {"x": (float(least), 6.0)})


def test_an_embedding_of_whole_numbers_stays_exact_and_costs_half_where_no_index_is_negative(tmp_path: Path) -> None:
    """Of numbers at the parties, which are compared; what a client enters is in test_places."""
    constants = {"t": np.arange(10) ** 3, "o": np.array(2)}
    nodes = [node("Gather", ["t", "x"], ["g"]), node("Mul", ["g", "o"], ["y"])]
    path = save_model(tmp_path, nodes, constants, element=TensorProto.INT64)
    x, steps = RNG.integers(0, 10, (5, 4)), []
    for least in (0.0, -10.0):
        lying = {"x": StoredInput((Fraction(1),), (least,), (9.0,))}
        compiled = compile_model(path, {"x": (least, 9.0)}, stored=lying)
        steps.extend(len(gate.levels) for gate in compiled.plan.gates if gate.kind == "step")
        world = World(compiled.plan, compiled.weights, 2, seed(5), {compiled.plan.inputs[0].wire: x})
        [(wire, found)] = world.run({}, 5).outputs.items()
        assert (found.reshape(5, 4) / float(compiled.plan.wire[wire].scale) == 2 * x**3).all()
    assert steps == [11, 21]


@pytest.mark.parametrize("axis", [-1, 0, 1])
@pytest.mark.parametrize("kind", [np.float32, np.int64])
def test_one_hot(tmp_path: Path, axis: int, kind: type) -> None:
    constants = {"d": np.array([5]), "v": np.array([-2, 3], kind)}
    nodes = [node("OneHot", ["x", "d", "v"], ["y"], axis=axis)]
    path = save_model(tmp_path, nodes, constants, (4, 3), element=TensorProto.INT64)
    assert_agrees(path, {"x": RNG.integers(-7, 7, (4, 3))}, {"x": (-7.0, 7.0)})


def test_data_at_their_own_places(tmp_path: Path) -> None:
    """Among fixed rows a place may be of any; an open batch has no row that is known to all others."""
    path = save_model(tmp_path, [node("Gather", ["x", "x"], ["y"])], shape=(3,), element=TensorProto.INT64)
    assert_agrees(path, {"x": np.array([2, 0, -3])}, {"x": (-3, 2)}, 0)
    path = save_model(tmp_path, [node("Gather", ["x", "x"], ["y"])], shape=("batch", 3), element=TensorProto.INT64)
    with pytest.raises(ModelError, match="every row would be chosen from by every place"):
        compile_model(path, {"x": (-3, 2)})


def test_reals_that_are_cut_may_be_taken_from(tmp_path: Path) -> None:
    nodes = [node("Cast", ["x"], ["i"], to=TensorProto.INT64), node("Gather", ["i", "d"], ["y"])]
    path = save_model(tmp_path, nodes, {"d": np.array([5, 0])}, shape=(7,))
    assert_agrees(path, {"x": np.array([2.75, 0, 0, 0, 0, -3.25, 0], np.float32)}, {"x": (-4, 4)}, 0)


def test_real_indices_are_cut_to_whole_numbers(tmp_path: Path) -> None:
    constants = {"d": np.array([5]), "v": np.array([0, 1]), "t": TABLE}
    x = {"x": np.array([[0.7, 1.0, -1.0, 4.9], [0.3, 5.1, 3.99, 2.0]], np.float32)}
    [got] = encrypted(compile_model(save_model(tmp_path, [node("OneHot", ["x", "d", "v"], ["y"])], constants)), x)
    assert (got == np.eye(6)[[[0, 1, 4, 4], [0, 5, 3, 2]], :5]).all()  # onnxruntime finds no place for a fraction
    nodes = [node("Cast", ["x"], ["i"], to=TensorProto.INT64), node("Gather", ["t", "i"], ["y"])]
    assert_agrees(save_model(tmp_path, nodes, constants), x)


def _branches() -> dict[str, onnx.GraphProto]:
    """Of an If: x + 1, with a constant of its own, or - x."""
    outputs = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, None)] for name in ("a", "b")]
    one = onnx.numpy_helper.from_array(np.float32(1), "one")
    added, negated = node("Add", ["h", "one"], ["a"], name="added"), node("Neg", ["h"], ["b"], name="negated")
    return {
        "then_branch": helper.make_graph([added], "then", [], outputs[0], [one]),
        "else_branch": helper.make_graph([negated], "else", [], outputs[1]),
    }


@pytest.mark.parametrize("condition", [True, False])
def test_a_public_condition_takes_a_branch(tmp_path: Path, condition: bool) -> None:
    nodes = [node("Relu", ["x"], ["h"]), node("If", ["c"], ["i"], **_branches()), node("Relu", ["i"], ["y"], name="r")]
    assert_agrees(save_model(tmp_path, nodes, {"c": np.array(condition)}), X)


def test_a_secret_condition_is_refused(tmp_path: Path) -> None:
    nodes = [node("ReduceMax", ["x"], ["m"], keepdims=0), node("Cast", ["m"], ["c"], to=TensorProto.BOOL)]
    nodes += [node("Relu", ["x"], ["h"]), node("If", ["c"], ["y"], **_branches())]
    with pytest.raises(ModelError, match="its condition depends on the input"):
        compile_model(save_model(tmp_path, nodes, shape=(3, 4)))


@pytest.mark.parametrize("operator", ["Max", "Min"])
@pytest.mark.parametrize("reads", [["x", "v", "h"], ["v", "x", "h", "w"], ["v", "x"], ["x", "h", "z", "v"]])
def test_the_extreme_of_data_and_constants(tmp_path: Path, operator: str, reads: list[str]) -> None:
    constants = {"v": RNG.standard_normal(4).astype(np.float32), "w": np.float32(0.25)}
    nodes = [node("Neg", ["x"], ["h"]), node("Add", ["x", "w"], ["z"]), node(operator, reads, ["y"])]
    assert_agrees(save_model(tmp_path, nodes, constants), X)


@pytest.mark.parametrize("axis", [None, 0, 1])
def test_weights_that_are_stored_in_eight_bits(tmp_path: Path, axis: int | None) -> None:
    """Against numpy: onnxruntime rounds the data to eight bits too."""
    size = () if axis is None else (4, 3)[axis]
    q, z = RNG.integers(-127, 128, (4, 3)).astype(np.int8), RNG.integers(-9, 9, size).astype(np.int8)
    s = RNG.uniform(0.25, 1, size).astype(np.float32)
    nodes = [node("DequantizeLinear", ["q", "s", "z"], ["w"], axis=axis or 0), node("MatMul", ["x", "w"], ["y"])]
    [got] = encrypted(compile_model(save_model(tmp_path, nodes, {"q": q, "s": s, "z": z})), X)
    along = (-1, 1) if axis == 0 else (-1,) if axis == 1 else ()
    weight = (q.astype(float) - z.reshape(along)) * s.reshape(along)
    assert np.abs(got - X["x"] @ weight).max() < 1e-3


RATE = [helper.make_tensor_value_info("rate", TensorProto.INT64, [])]


def by_rate(folder: Path) -> Path:
    """A model that takes one of two ways by an input, a whole number, as one does that is for two sample rates."""
    value = helper.make_tensor_value_info("taken", TensorProto.FLOAT, None)
    ways = [helper.make_graph([node(kind, ["x"], ["taken"])], kind, [], [value]) for kind in ("Relu", "Neg")]
    nodes = [
        node("Equal", ["rate", "fast"], ["yes"]),
        node("If", ["yes"], ["y"], then_branch=ways[0], else_branch=ways[1]),
    ]
    model = onnx.load(save_model(folder, nodes, {"fast": np.array(16000)}))
    model.graph.input.extend(RATE)
    onnx.save(model, folder / "rate.onnx")
    return folder / "rate.onnx"


@pytest.mark.parametrize(("rate", "right"), [(16000, np.maximum(X["x"], 0)), (8000, -X["x"])])
def test_an_input_whose_range_is_one_number_is_a_constant(rate: int, right: np.ndarray, tmp_path: Path) -> None:
    compiled = compile_model(by_rate(tmp_path), {"x": (-2, 2), "rate": (rate, rate)})
    assert [given.name for given in compiled.plan.inputs] == ["x"]
    assert any(f"its range is one number, {rate}" in note for note in compiled.notes)
    np.testing.assert_allclose(encrypted(compiled, X)[0], right, atol=1e-5)


def test_a_branch_that_an_input_decides_says_how_to_fix_it(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="its condition depends on the input") as caught:
        compile_model(by_rate(tmp_path), {"x": (-2, 2), "rate": (8000, 16000)})
    assert "--range NAME=16000:16000" in str(caught.value.remedy)


def test_rows_whose_range_is_one_number_are_entered(tmp_path: Path) -> None:
    """Only what has no rows is a constant: a column that never changes may belong to somebody."""
    path = save_model(tmp_path, [node("Neg", ["x"], ["y"])], {}, element=TensorProto.INT64)
    assert_agrees(path, {"x": np.full((3, 4), 7)}, {"x": (7.0, 7.0)})


@pytest.mark.parametrize(("shape", "depth"), [((2, 3, 4, 2), 1), ((2, 3, 4, 2), 2), ((2, 3, 4), 1)])
@pytest.mark.parametrize("axes", [1, 2])
def test_public_places_within_leading_axes(shape: tuple[int, ...], depth: int, axes: int, tmp_path: Path) -> None:
    if axes + depth > len(shape):
        depth = len(shape) - axes
    sizes = np.array(shape[axes : axes + depth])
    index = RNG.integers(-sizes, sizes, (*shape[:axes], 2, depth))
    path = save_model(tmp_path, [node("GatherND", ["x", "i"], ["y"], batch_dims=axes)], {"i": index}, shape)
    assert_agrees(path, {"x": RNG.uniform(-2, 2, shape).astype(np.float32)}, {"x": (-2.0, 2.0)})
