"""What the compiler knows of a value follows from its nodes, never from what a model calls it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from mpc.compiler.compile import compile_model
from mpc.plan.cost import plan_cost
from tests.support.graphs import node, save_model
from tests.support.models import assert_agrees, encrypted, plaintext

DATA = np.random.default_rng(5).uniform(-2, 2, (3, 4)).astype(np.float32)


def _spelt_out_norm(u: str, square: str, mean: str, above: str, root: str) -> list[onnx.NodeProto]:
    return [
        node("Neg", ["x"], [u], "first"),
        node("Mul", [u, u], [square], "square"),
        node("ReduceMean", [square], [mean], "mean", axes=[1], keepdims=1),
        node("Add", [mean, "epsilon"], [above], "above"),
        node("Sqrt", [above], [root], "root"),
        node("Div", [u, root], ["y"], "over"),
    ]


@pytest.mark.parametrize("over", [("Reciprocal", ["r"]), ("Div", ["one", "r"])], ids=lambda each: each[0])
def test_one_over_a_root_is_known_however_it_is_written(tmp_path: Path, over: tuple[str, list[str]]) -> None:
    """Llama's norm, as the older exporter writes it: x times one over the root of its own mean square."""
    nodes = [
        node("Mul", ["x", "x"], ["s"], "square"),
        node("ReduceMean", ["s"], ["m"], axes=[1], keepdims=1),
        node("Add", ["m", "epsilon"], ["a"]),
        node("Sqrt", ["a"], ["r"]),
        node(over[0], over[1], ["o"]),
        node("Mul", ["x", "o"], ["y"], "scaled"),
    ]
    constants = {"epsilon": np.array(1e-6, np.float32), "one": np.array(1, np.float32)}
    compiled = assert_agrees(save_model(tmp_path, nodes, constants), {"x": DATA / 8}, {"x": (-0.25, 0.25)})
    [wire] = [compiled.plan.wire[out.wire] for out in compiled.plan.outputs]
    assert 2.0**wire.bits / float(wire.scale) <= 4 * 4**0.5  # no element is more than the root of their number


@pytest.mark.parametrize(
    "names",
    [
        ("u", "s", "m", "a", "r"),
        ("square x", "mean 0 square x", "above 1 mean 1 square x", "root x", "over root x"),
        ("top x", "exp x", "1 + exp x", "softplus x", "beyond x"),
        ("a, b", "12*batch", "batch", "second/1", "mean/1"),
        ("first/1", "square/2", "square/1", "over/1", "over/2"),
        ("\n", "\t \n", "mean 1,1 square", "above nan ", "\u2028"),
    ],
)
def test_a_norm_under_any_names(tmp_path: Path, names: tuple[str, ...]) -> None:
    """As precise, as cheap and as right as under plain names."""
    constants = {"epsilon": np.float32(0.01)}
    compiled = assert_agrees(
        save_model(tmp_path, _spelt_out_norm(*names), constants), {"x": DATA}, {"x": (-2.0, 2.0)}, 1e-3
    )
    plain = compile_model(save_model(tmp_path, _spelt_out_norm(*"usmar"), constants), {"x": (-2.0, 2.0)})
    assert compiled.plan.digest == plain.plan.digest


@pytest.mark.parametrize("name", ["square u", "square x", "mean 1 square x", "above 1.0 mean 1 square x"])
def test_a_value_that_is_called_a_square_is_none(tmp_path: Path, name: str) -> None:
    """1 / (mean + 1) of negative numbers: taken for a mean of squares it would be cut at 1."""
    nodes = [
        node("Identity", ["x"], [name], "first"),
        node("ReduceMean", [name], ["m"], "mean", axes=[1], keepdims=1),
        node("Add", ["m", "one"], ["above"], "above"),
        node("Reciprocal", ["above"], ["y"], "inverse"),
    ]
    path = save_model(tmp_path, nodes, {"one": np.float32(1)})
    data = np.full((2, 4), -3.0, np.float32)
    compiled = compile_model(path, {"x": (-4.0, -2.5)})
    [found], [right] = encrypted(compiled, {"x": data}), plaintext(path, {"x": data})
    assert right[0, 0] == pytest.approx(-0.5)
    np.testing.assert_allclose(found, right, atol=1e-3)


def test_names_that_the_compiler_would_have_chosen(tmp_path: Path) -> None:
    """Helpers that an operator needs stand under names that the model does not use."""
    nodes = [
        node("Identity", ["x"], ["abs/1"], "first"),
        node("Abs", ["x"], ["abs/2"], "abs"),
        node("Where", ["c", "abs/1", "abs/2"], ["where"], "where"),
        node("Einsum", ["where", "einsum/1"], ["y"], "einsum", equation="bi,ij->b"),
    ]
    constants = {"c": np.array([True, False, True, False]), "einsum/1": np.ones((4, 2), np.float32)}
    assert_agrees(save_model(tmp_path, nodes, constants), {"x": DATA}, {"x": (-2.0, 2.0)})


# ------------------------------------------------------------- a fact holds for the shape that it was found for


def test_an_exponential_in_another_shape(tmp_path: Path) -> None:
    nodes = [
        node("Exp", ["x"], ["e"]),
        node("Reshape", ["e", "shape"], ["turned"]),
        node("Add", ["turned", "one"], ["above"]),
        node("Reciprocal", ["above"], ["y"]),
    ]
    constants = {"shape": np.array([-1, 2, 2]), "one": np.float32(1)}
    assert_agrees(save_model(tmp_path, nodes, constants), {"x": DATA}, {"x": (-2.0, 2.0)})


def test_one_plus_an_exponential_of_more_axes(tmp_path: Path) -> None:
    nodes = [node("Exp", ["x"], ["e"]), node("Add", ["e", "one"], ["above"]), node("Reciprocal", ["above"], ["y"])]
    path = save_model(tmp_path, nodes, {"one": np.ones((1, 1, 1), np.float32)}, shape=(3, 4))
    assert_agrees(path, {"x": DATA}, {"x": (-2.0, 2.0)})


@pytest.mark.parametrize("inverse", ["Reciprocal", "Pow"])
def test_a_root_in_another_shape(tmp_path: Path, inverse: str) -> None:
    nodes = [
        node("Sqrt", ["x"], ["r"]),
        node("Reshape", ["r", "shape"], ["turned"]),
        node("Pow", ["turned", "minus"], ["y"]) if inverse == "Pow" else node("Reciprocal", ["turned"], ["y"]),
    ]
    constants = {"shape": np.array([-1, 2, 2]), "minus": np.float32(-1)}
    assert_agrees(save_model(tmp_path, nodes, constants), {"x": np.abs(DATA) + 0.5}, {"x": (0.5, 2.5)})


def test_means_of_other_rows_than_they_divide(tmp_path: Path) -> None:
    """x over the root of the mean square of its columns, laid out as rows: no longer bounded by the root of 4."""
    nodes = [
        node("Mul", ["x", "x"], ["square"]),
        node("ReduceMean", ["square"], ["mean"], axes=[1], keepdims=1),
        node("Add", ["mean", "epsilon"], ["above"]),
        node("Reshape", ["above", "shape"], ["turned"]),
        node("Sqrt", ["turned"], ["root"]),
        node("Reciprocal", ["root"], ["over"]),
        node("Mul", ["x", "over"], ["y"], "last"),
    ]
    data = np.full((4, 4), 0.01, np.float32)
    data[:, 0] = data[0, :] = 2.0
    constants = {"epsilon": np.float32(1e-3), "shape": np.array([1, 4])}
    path = save_model(tmp_path, nodes, constants, shape=(4, 4))
    assert_agrees(path, {"x": data}, {"x": (-2.0, 2.0)}, 2e-3)


def test_shares_of_another_axis_are_normalised(tmp_path: Path) -> None:
    """A softmax along the columns; a Normalizer behind it divides by the sums of rows, which are not one."""
    nodes = [
        node("Softmax", ["x"], ["p"], axis=0),
        node("Normalizer", ["p"], ["y"], domain="ai.onnx.ml", norm="L1"),
    ]
    assert_agrees(save_model(tmp_path, nodes, shape=(3, 4)), {"x": DATA}, {"x": (-2.0, 2.0)})


def test_strings_that_look_like_sizes(tmp_path: Path) -> None:
    """Class names such as 'batch' are text, in constants that are computed with too."""
    nodes = [
        node("ArgMax", ["x"], ["i"], axis=1, keepdims=0),
        node("Identity", ["names"], ["labels"]),
        node("ArrayFeatureExtractor", ["labels", "i"], ["y"], domain="ai.onnx.ml"),
    ]
    path = save_model(tmp_path, nodes, {"names": np.array(["batch", "2*batch", "12*batch", "a"], dtype=object)})
    model = onnx.load(path)
    model.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info("y", TensorProto.STRING, [None, None]))
    path.write_bytes(model.SerializeToString())
    [found] = encrypted(compile_model(path, {"x": (-2.0, 2.0)}), {"x": DATA})
    [right] = plaintext(path, {"x": DATA})
    assert np.asarray(found).reshape(-1).tolist() == np.asarray(right).reshape(-1).tolist()


INFINITE = np.array(np.inf, np.float32)
LEAST = np.array(np.finfo(np.float32).min, np.float32)
NEVER_BEYOND = {
    "max": ([node("Max", ["low", "t"], ["u"])], -INFINITE),
    "max of the least": ([node("Max", ["t", "low"], ["u"])], LEAST),
    "min": ([node("Min", ["t", "high"], ["u"])], -INFINITE),
    "clip": ([node("Clip", ["t", "low", "high"], ["u"])], -INFINITE),
    "where": ([node("IsInf", ["t"], ["c"]), node("Where", ["c", "zero", "t"], ["u"])], -INFINITE),
    "where not": (
        [node("IsInf", ["t"], ["i"]), node("Not", ["i"], ["c"]), node("Where", ["c", "t", "zero"], ["u"])],
        -INFINITE,
    ),
}


@pytest.mark.parametrize("form", NEVER_BEYOND)
def test_what_bounds_nothing_hides_no_maximum(form: str, tmp_path: Path) -> None:
    """Softmax as JAX has it: the largest of minus infinity and scores, once for each of them."""
    bounded, low = NEVER_BEYOND[form]
    nodes = [
        node("ReduceMax", ["x"], ["t"], "top", axes=[1], keepdims=0),
        *bounded,
        node("Reshape", ["u", "column"], ["v"]),
        node("Expand", ["v", "whole"], ["z"]),
        node("Sub", ["x", "z"], ["d"]),
        node("Exp", ["d"], ["p"]),
        node("ReduceSum", ["p", "last"], ["s"], "sum"),
        node("Expand", ["s", "whole"], ["r"], "repeated"),
        node("Div", ["p", "r"], ["y"]),
    ]
    shapes = {"column": np.array([-1, 1]), "whole": np.array([1, 4]), "last": np.array([1])}
    constants = {**shapes, "low": low, "high": INFINITE, "zero": np.array(0, np.float32)}
    path = save_model(tmp_path, nodes, constants)
    compiled = assert_agrees(path, {"x": 20 * DATA}, {"x": (-40.0, 40.0)})
    plain = save_model(tmp_path, [node("Softmax", ["x"], ["y"], axis=1)])
    assert plan_cost(compiled.plan).sent <= 1.1 * plan_cost(compile_model(plain, (-40.0, 40.0)).plan).sent
