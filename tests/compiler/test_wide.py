"""Divisions and powers over many octaves: what they are off by is what the compiler expects, or a note says so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from mpc.compiler.compile import Compiled, compile_model
from mpc.compiler.graph.graph import Range
from mpc.errors import ModelError
from tests.support.graphs import node, save_model
from tests.support.models import clear, encrypted, plaintext

RNG = np.random.default_rng(5)
_LARGEST = 5
"""Of 200 rows the one that is off by most, in units of what is expected: 2.0 to 4.1 in a dozen draws."""
ROWS = 200
DIVISORS = [(1e-3, 1.0), (1e-3, 1e3), (1.0, 1e3), (1e-3, 1e7), (1.0, 1e7), (1e3, 1e7), (0.1, 1e5)]
DIVIDENDS = [(1e-3, 1.0), (-1e3, 1e3), (1.0, 1e7), (1e-3, 1e7)]
EXPONENTS = [-2.0, -1.5, -0.5, 0.25, 0.5, 1.5]


def _model(folder: Path, nodes: list, sizes: dict[str, int], constants: dict[str, np.ndarray] | None = None) -> Path:
    """Inputs of those numbers of columns."""
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", size]) for name, size in sizes.items()]
    stored = [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 1])
    graph = helper.make_graph(nodes, "wide", inputs, [output], stored)
    path = folder / "wide.onnx"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def _drawn(rng: np.random.Generator, around: tuple[float, float], evenly: bool) -> np.ndarray:
    """Numbers of a range; their logarithms are uniform unless told `evenly`."""
    low, high = around
    if evenly or low <= 0:
        return rng.uniform(low, high, (ROWS, 1)).astype(np.float32)
    return np.exp(rng.uniform(np.log(low * 1.001), np.log(high * 0.999), (ROWS, 1))).astype(np.float32)


def _assert_covered(compiled: Compiled, given: dict[str, tuple[float, float]], exact) -> None:  # type: ignore[no-untyped-def]
    """Seven in eight even values are off by what is expected; all others by little beside themselves, or noted."""
    expected, rng = compiled.errors["y"], np.random.default_rng(23)  # of its own: tests run in any order
    for evenly in (True, False):
        feeds = {name: _drawn(rng, around, evenly) for name, around in given.items()}
        right = exact(*(value.astype(np.float64) for value in feeds.values()))
        off = np.abs(encrypted(compiled, feeds)[0] - right)
        if evenly:
            assert np.quantile(off, 7 / 8) <= 3 * expected
        close = off <= 0.02 * np.abs(right)
        usual, fine = close | (off <= 4 * expected), close | (off <= _LARGEST * expected)
        assert (fine.all() and np.sum(~usual) <= 1) or compiled.messages, (off[~usual], right[~usual])


@pytest.mark.parametrize("divisor", DIVISORS)
@pytest.mark.parametrize("dividend", DIVIDENDS)
def test_division(tmp_path: Path, dividend: tuple[float, float], divisor: tuple[float, float]) -> None:
    given = {"a": dividend, "b": divisor}
    path = _model(tmp_path, [node("Div", ["a", "b"], ["y"])], {"a": 1, "b": 1})
    _assert_covered(compile_model(path, given), given, np.divide)


@pytest.mark.parametrize("divisor", DIVISORS)
def test_reciprocal(tmp_path: Path, divisor: tuple[float, float]) -> None:
    path = _model(tmp_path, [node("Reciprocal", ["b"], ["y"])], {"b": 1})
    _assert_covered(compile_model(path, {"b": divisor}), {"b": divisor}, np.reciprocal)


@pytest.mark.parametrize("base", DIVISORS)
@pytest.mark.parametrize("exponent", EXPONENTS)
def test_power(tmp_path: Path, exponent: float, base: tuple[float, float]) -> None:
    """Or a refusal by name, where results differ too much in size."""
    path = _model(tmp_path, [node("Pow", ["b", "e"], ["y"])], {"b": 1}, {"e": np.array(exponent, np.float32)})
    try:
        compiled = compile_model(path, {"b": base})
    except ModelError as refusal:
        assert "node 'pow'" in str(refusal)
        assert max(base[1] ** exponent, (base[1] / base[0]) ** abs(exponent)) > 1e8
        return
    _assert_covered(compiled, {"b": base}, lambda x: np.power(x, exponent))


@pytest.mark.parametrize("divisor", [(1e-6, 1.0), (1e-6, 1e3)])
def test_a_weighted_mean_of_weights_from_tiny_to_huge(tmp_path: Path, divisor: tuple[float, float]) -> None:
    """As neighbours are weighed by their distance: sum y / d over sum 1 / d."""
    axes = {"axes": np.array([1], np.int64)}
    nodes = [
        node("Reciprocal", ["d"], ["w"]),
        node("Mul", ["w", "v"], ["p"]),
        node("ReduceSum", ["p", "axes"], ["above"], "above"),
        node("ReduceSum", ["w", "axes"], ["below"], "below"),
        node("Div", ["above", "below"], ["y"]),
    ]
    path = _model(tmp_path, nodes, {"d": 3, "v": 3}, axes)
    around: dict[str, Range] = {"d": divisor, "v": (-400.0, 300.0)}
    compiled = compile_model(path, around)
    near, far = (np.full((1, 3), end, np.float32) for end in divisor)
    rng = np.random.default_rng(23)
    usual = np.exp(rng.uniform(np.log(0.05), np.log(divisor[1]), (ROWS, 3))).astype(np.float32)
    d = np.concatenate([near * 1.0001, far * 0.999, usual])
    feeds = {"d": d, "v": rng.uniform(-400, 300, d.shape).astype(np.float32)}
    weights = 1 / d.astype(np.float64)
    right = (weights * feeds["v"]).sum(axis=1, keepdims=True) / weights.sum(axis=1, keepdims=True)
    off = np.abs(encrypted(compiled, feeds)[0] - right)
    assert off.max() < 0.2
    assert np.sqrt(np.square(off).mean()) < compiled.errors["y"] < 1.0


@pytest.mark.parametrize("reach", [8.0, 64.0, 4000.0, 1e6, 4e6])
def test_no_rounding_of_a_hard_swish_is_multiplied_by_its_argument(reach: float, tmp_path: Path) -> None:
    path = save_model(tmp_path, [node("HardSwish", ["x"], ["y"])])
    made = compile_model(path, {"x": (-reach, reach)})
    ends = np.array([-reach, -4, -3, -1.5, 0, 2, 3, 4, reach])
    rows = np.concatenate([np.linspace(-reach, reach, 300), np.linspace(-6, 6, 300), ends])[:, None].repeat(4, 1)
    found, expected = clear(made, rows.astype(np.float32)), plaintext(path, {"x": rows.astype(np.float32)})[0]
    assert np.abs(found - expected).max() < 1e-3 + 2.0**-20 * reach


@pytest.mark.parametrize("operator", ["Sin", "Cos"])
@pytest.mark.parametrize("ends", [(-0.5, 0.5), (-8.0, 8.0), (-32.0, 32.0), (-200.0, 200.0), (500.0, 1000.0)])
def test_waves_of_any_number_of_turns(operator: str, ends: tuple[float, float], tmp_path: Path) -> None:
    """A wave is its own series, of one term: fitted ones have dozens, and none reaches over a hundred turns."""
    path = save_model(tmp_path, [node(operator, ["x"], ["y"])])
    made = compile_model(path, {"x": ends})
    [gate] = [gate for gate in made.plan.online if gate.kind == "fourier"]
    assert gate.terms == 1
    rows = np.concatenate([RNG.uniform(*ends, (300, 4)), np.array(ends)[:, None].repeat(4, 1)]).astype(np.float32)
    expected = getattr(np, operator.lower())(rows.astype(np.float64))
    assert np.abs(clear(made, rows) - expected).max() < 1.5e-5
    assert made.errors["y"] < 5e-6
