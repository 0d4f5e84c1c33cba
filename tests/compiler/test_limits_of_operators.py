"""What once had no way out: many operands, many places, large tables, padding below everything, roots in divisors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from mpc.compiler.compile import compile_model
from mpc.errors import ModelError
from tests.support.graphs import node, save_model
from tests.support.models import assert_agrees, encrypted, plaintext

RNG = np.random.default_rng(3)
DATA = RNG.uniform(-2, 2, (5, 4)).astype(np.float32)
RANGE = {"x": (-2.0, 2.0)}


@pytest.mark.parametrize("operator", ["Sum", "Mean", "Max", "Min", "Concat"])
def test_a_hundred_operands(tmp_path: Path, operator: str) -> None:
    scaled = [node("Mul", ["x", f"k{i}"], [f"h{i}"], f"m{i}") for i in range(100)]
    settings = {"axis": 1} if operator == "Concat" else {}
    constants = {f"k{i}": RNG.normal(size=4).astype(np.float32) for i in range(100)}
    last = node(operator, [f"h{i}" for i in range(100)], ["y"], **settings)
    assert_agrees(save_model(tmp_path, [*scaled, last], constants), {"x": DATA}, RANGE, 2e-3)


def test_columns_over_their_deviations(tmp_path: Path) -> None:
    nodes = [
        node("ReduceMean", ["x"], ["m"], "mean", axes=[1], keepdims=1),
        node("Sub", ["x", "m"], ["d"]),
        node("Mul", ["d", "d"], ["q"]),
        node("ReduceMean", ["q"], ["v"], "variance", axes=[1], keepdims=1),
        node("Sqrt", ["v"], ["s"]),
        node("Add", ["s", "tiny"], ["t"]),
        node("Div", ["d", "t"], ["y"]),
    ]
    assert_agrees(save_model(tmp_path, nodes, {"tiny": np.float32(1e-6)}), {"x": DATA}, RANGE, 2e-3)


@pytest.mark.parametrize("reach", [4.0, 1e3, 1e6])
@pytest.mark.parametrize(("operator", "bounds"), [("Clip", (-1.5, 2.5)), ("Min", (2.5,))])
def test_a_clip_bounds_what_follows(tmp_path: Path, operator: str, bounds: tuple[float, ...], reach: float) -> None:
    """An exponential of a wide range is possible behind it; its ends and their neighbours come out right."""
    constants = {f"c{i}": np.float32(value) for i, value in enumerate(bounds)}
    nodes = [node(operator, ["x", *constants], ["p"]), node("Exp", ["p"], ["y"])]
    path = save_model(tmp_path, nodes, constants)
    low = -1.5 if operator == "Clip" else -3.0
    data = np.array([[-reach, low, 2.5, reach], [low + 0.01, 2.49, 0, 2.51]], np.float32)
    assert_agrees(path, {"x": data}, {"x": (-reach, reach)}, max(5e-3, 1e-5 * reach))


@pytest.mark.parametrize("value", [-np.inf, -3.4e38])
def test_padding_that_only_a_maximum_reads(tmp_path: Path, value: float) -> None:
    nodes = [
        node("Pad", ["x", "pads", "v"], ["p"]),
        node("MaxPool", ["p"], ["y"], kernel_shape=[3, 3], strides=[2, 2]),
    ]
    constants = {"pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "v": np.float32(value)}
    path = save_model(tmp_path, nodes, constants, ("batch", 2, 5, 5))
    data = RNG.uniform(-2, -1, (3, 2, 5, 5)).astype(np.float32)
    assert_agrees(path, {"x": data}, RANGE, 1e-4)


def test_padding_that_others_read_is_refused_with_a_remedy(tmp_path: Path) -> None:
    nodes = [node("Pad", ["x", "pads", "v"], ["p"]), node("Relu", ["p"], ["y"])]
    path = save_model(tmp_path, nodes, {"pads": np.array([0, 1, 0, 1]), "v": np.float32(-np.inf)})
    with pytest.raises(ModelError, match="minus infinity") as caught:
        compile_model(path, RANGE)
    assert caught.value.remedy is not None and "MaxPool" in caught.value.remedy


@pytest.mark.parametrize("last", [0, 1])
@pytest.mark.parametrize("columns", [129, 300])
def test_the_place_of_the_largest_of_many(tmp_path: Path, columns: int, last: int) -> None:
    path = save_model(
        tmp_path, [node("ArgMax", ["x"], ["y"], axis=1, select_last_index=last)], shape=("batch", columns)
    )
    data = RNG.choice(np.array([-1.7, 0.3, 1.1, 1.9], np.float32), (20, columns))
    data[:10] = RNG.uniform(-2, 2, (10, columns))
    assert_agrees(path, {"x": data}, RANGE)


def test_a_ranking_of_a_hundred(tmp_path: Path) -> None:
    nodes = [node("TopK", ["x", "k"], ["v", "i"], axis=1), node("Identity", ["v"], ["y"])]
    path = save_model(tmp_path, nodes, {"k": np.array([5])}, ("batch", 100))
    assert_agrees(path, {"x": RNG.uniform(-2, 2, (2, 100)).astype(np.float32)}, RANGE, 1e-4)


def test_a_table_of_six_thousand_rows(tmp_path: Path) -> None:
    table = RNG.normal(size=(6000, 2)).astype(np.float32)
    path = save_model(
        tmp_path, [node("Gather", ["t", "x"], ["y"])], {"t": table}, ("batch", 1), element=TensorProto.INT64
    )
    data = {"x": np.array([[0], [5999], [4097]])}
    [found] = encrypted(compile_model(path, {"x": (0.0, 5999.0)}), data)
    np.testing.assert_allclose(found, plaintext(path, data)[0], atol=1e-4)


@pytest.mark.parametrize("exponents", [[2.0, 0.5, 2.0, -1.3], [[3.0, 1.0, -0.5, 0.25]]])
def test_a_power_of_its_own_for_each_column(exponents: list[float], tmp_path: Path) -> None:
    e = np.array(exponents, np.float32)
    path = save_model(tmp_path, [node("Pow", ["x", "e"], ["y"])], {"e": e}, ("batch", 4))
    assert_agrees(path, {"x": RNG.uniform(0.25, 2, (5, 4)).astype(np.float32)}, (0.25, 2.0), 1e-3)


def test_an_imputer_of_infinities_leaves_what_has_none(tmp_path: Path) -> None:
    impute = node("Imputer", ["x"], ["y"], domain="ai.onnx.ml", imputed_value_floats=[7.0], replaced_value_float=np.inf)
    path = save_model(tmp_path, [impute], {}, ("batch", 4))
    assert_agrees(path, {"x": RNG.uniform(-2, 2, (5, 4)).astype(np.float32)}, RANGE, 1e-5)
