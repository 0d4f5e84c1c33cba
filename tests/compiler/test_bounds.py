"""Bounds are proved: the worst inputs stay inside, and the scales they lead to keep the answer right."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from mpc import fixedpoint
from mpc.compiler.compile import compile_model
from mpc.compiler.functions import FUNCTIONS
from mpc.compiler.lowering.intervals import Interval
from mpc.compiler.series import fit
from mpc.errors import InputError
from mpc.plan.cost import plan_cost
from tests.support.graphs import node, save_model
from tests.support.models import assert_agrees, clear, encrypted, plaintext

RNG = np.random.default_rng(11)


def _worst(weight: np.ndarray, low: float, high: float) -> np.ndarray:
    """For each column the inputs that reach its highest and its lowest value."""
    up = np.where(weight > 0, high, low).T
    down = np.where(weight > 0, low, high).T
    return np.concatenate([up, down]).astype(np.float32)


@pytest.mark.parametrize("size", [1e-4, 1.0, 300.0])
@pytest.mark.parametrize("ends", [(0.0, 1.0), (-32.0, 32.0), (-5000.0, 3000.0), (0.001, 0.002)])
def test_inputs_at_the_worst_corner(tmp_path: Path, ends: tuple[float, float], size: float) -> None:
    weight = (RNG.standard_normal((4, 3)) * size).astype(np.float32)
    bias = (RNG.standard_normal(3) * size).astype(np.float32)
    nodes = [node("Gemm", ["x", "w", "b"], ["h"]), node("Relu", ["h"], ["y"])]
    path = save_model(tmp_path, nodes, {"w": weight, "b": bias})
    x = _worst(weight, *ends)
    largest = max(1.0, float(np.abs(x @ weight + bias).max()))
    assert_agrees(path, {"x": x}, {"x": ends}, tolerance=1e-4 + 1e-6 * largest)


def test_a_root_of_what_may_be_below_zero_is_zero_there_and_says_so(tmp_path: Path) -> None:
    """Rounding may bring a difference of squares below zero; numpy has NaN there, and no private number is NaN."""
    path = save_model(tmp_path, [node("Sqrt", ["x"], ["y"])], shape=("batch", 1))
    compiled = compile_model(path, {"x": (-0.001, 4.0)})
    [note] = compiled.notes
    assert "argument of sqrt is not negative; below 0 it counts as 0" in note
    x = np.array([[4.0], [1.0], [0.0], [-0.001]], np.float32)
    [found] = encrypted(compiled, {"x": x})
    np.testing.assert_allclose(found[:2], [[2.0], [1.0]], atol=1e-3)
    assert np.abs(found[2:]).max() < 0.02
    assert not compile_model(path, {"x": (0.0, 4.0)}).notes


def test_one_over_a_root_of_zero_counts_from_a_floor_and_says_which(tmp_path: Path) -> None:
    path = save_model(tmp_path, [node("Sqrt", ["x"], ["h"]), node("Reciprocal", ["h"], ["y"])], shape=("batch", 1))
    notes = compile_model(path, {"x": (0.0, 4.0)}).notes
    floors = [re.search(r"can be 0; what is below ([0-9.e-]+) counts as about that", each) for each in notes]
    assert any(found is not None and 0 < float(found[1]) < 0.01 for found in floors)


def test_one_note_says_what_of_a_small_argument_is_lost(tmp_path: Path) -> None:
    """There were two, of which one said that it can be 0, and the other that it can be 6e-08 at least."""
    nodes = [node("ReduceL2", ["x"], ["n"], axes=[1], keepdims=1), node("Div", ["x", "n"], ["y"])]
    notes = compile_model(save_model(tmp_path, nodes), {"x": (-1000.0, 1000.0)}).notes
    [said] = [note for note in notes if "argument of rsqrt" in note]
    assert re.search(r"can be 0; what is below .* counts as about that, and below .* keeps few of its digits", said)


MEAN_SQUARE = [node("Mul", ["x", "x"], ["q"]), node("ReduceMean", ["q"], ["m"], axes=[1], keepdims=1)]


@pytest.mark.parametrize(
    ("nodes", "ends", "few", "least"),
    [
        ([*MEAN_SQUARE, node("Sqrt", ["m"], ["s"]), node("Reciprocal", ["s"], ["y"])], (0.0113, 95661.0), 2e-3, 0.3),
        ([*MEAN_SQUARE, node("Reciprocal", ["m"], ["y"])], (4e-6, 62.0), 1e-10, 1e-7),
        ([*MEAN_SQUARE, node("Log", ["m"], ["y"])], (0.02395, 28978.0), 1e-3, 0.3),
        ([*MEAN_SQUARE, node("Reciprocal", ["m"], ["y"])], (0.0, 5e4), 1e-3, 0.3),
    ],
)
def test_a_least_argument_that_a_wire_cannot_tell_is_noted(
    nodes: list, ends: tuple[float, float], few: float, least: float, tmp_path: Path
) -> None:
    """It came out at the wire's resolution, and nothing said so; what the note says it does tell is near."""
    made = compile_model(save_model(tmp_path, nodes, shape=("batch", 1)), {"x": ends})
    said = re.search(r"below ([0-9.e-]+) it keeps few of its digits", " ".join(made.notes))
    assert said is not None and few < float(said[1]) < least
    x = np.sqrt(np.geomspace(1.05 * float(said[1]), ends[1] ** 2, 200))[:-1, None].astype(np.float32)
    [right] = plaintext(tmp_path / "model.onnx", {"x": x})
    np.testing.assert_allclose(clear(made, x), right, rtol=0.1, atol=0.1)


def test_an_argument_that_bounds_have_below_zero_is_said_to_be(tmp_path: Path) -> None:
    [note] = compile_model(
        save_model(tmp_path, [node("Reciprocal", ["x"], ["y"])], shape=("batch", 1)), {"x": (-0.006, 10.0)}
    ).notes
    assert "-0.006 as far as bounds tell" in note and "each negative number, counts as about that" in note


@pytest.mark.parametrize("weight", [np.eye(4), np.zeros((4, 4))])
@pytest.mark.parametrize("operator", ["Gemm", "Mul"])
def test_whole_numbers_and_weights_leave_room_for_a_real_bias(
    tmp_path: Path, operator: str, weight: np.ndarray
) -> None:
    constants = {"w": weight.astype(np.float32) * 3, "b": RNG.standard_normal(4).astype(np.float32)}
    product = [node("Gemm", ["r", "w", "b"], ["y"])]
    if operator == "Mul":
        constants["w"] = np.array([1, 2, -3, 0], np.float32)
        product = [node("Mul", ["r", "w"], ["m"]), node("Add", ["m", "b"], ["y"])]
    path = save_model(
        tmp_path, [node("Cast", ["x"], ["r"], to=TensorProto.FLOAT), *product], constants, element=TensorProto.INT64
    )
    assert_agrees(path, {"x": RNG.integers(-5, 6, (6, 4))}, {"x": (-5.0, 5.0)}, tolerance=1e-4)


def test_a_bias_of_real_data_and_zero_weights(tmp_path: Path) -> None:
    constants = {"w": np.zeros((4, 3), np.float32), "b": RNG.standard_normal(3).astype(np.float32)}
    path = save_model(tmp_path, [node("Gemm", ["x", "w", "b"], ["y"])], constants)
    assert_agrees(path, {"x": RNG.uniform(-3, 3, (6, 4)).astype(np.float32)}, tolerance=1e-4)


def test_a_value_outside_is_refused_and_one_on_the_edge_is_not(tmp_path: Path) -> None:
    path = save_model(tmp_path, [node("Relu", ["x"], ["y"])])
    compiled = compile_model(path, {"x": (-1.0, 2.0)})
    encrypted(compiled, {"x": np.array([[-1, 2, 0, 1]], np.float32)})
    for bad in (-1.0001, 2.0001, np.nan, np.inf, -np.inf):
        with pytest.raises(InputError, match="'x'"):
            encrypted(compiled, {"x": np.array([[0, 0, bad, 0]], np.float32)})


def test_ranges_of_columns_are_checked_column_by_column(tmp_path: Path) -> None:
    path = save_model(tmp_path, [node("Relu", ["x"], ["y"])])
    compiled = compile_model(path, {"x": ((0.0, -8.0, 0.0, 0.0), (1.0, 8.0, 1.0, 1.0))})
    encrypted(compiled, {"x": np.array([[1, -8, 1, 1]], np.float32)})
    with pytest.raises(InputError, match="column 3"):
        encrypted(compiled, {"x": np.array([[1, -8, 1, 2]], np.float32)})


def test_narrower_ranges_cost_less_and_never_more_precision(tmp_path: Path) -> None:
    weight = RNG.standard_normal((4, 3)).astype(np.float32)
    path = save_model(tmp_path, [node("MatMul", ["x", "w"], ["h"]), node("Relu", ["h"], ["y"])], {"w": weight})
    wide, narrow = (compile_model(path, {"x": (-r, r)}) for r in (10_000.0, 1.0))
    assert plan_cost(narrow.plan).dealt < plan_cost(wide.plan).dealt
    assert narrow.errors["y"] <= wide.errors["y"]


def test_metadata_declares_and_the_caller_wins(tmp_path: Path) -> None:
    path = save_model(tmp_path, [node("Relu", ["x"], ["y"])], metadata={"mpc.range.x": "0:4"})
    [given] = compile_model(path).plan.inputs
    assert (given.low, given.high) == ((0,), (4,))
    [given] = compile_model(path, {"x": (-1.0, 1.0)}).plan.inputs
    assert (given.low, given.high) == ((-1,), (1,))


@pytest.mark.parametrize("function", ["Sigmoid", "Tanh"])
@pytest.mark.parametrize("reach", [2.0, 9.0, 40.0, 5000.0])
def test_functions_inside_and_far_outside_their_interval(tmp_path: Path, function: str, reach: float) -> None:
    path = save_model(tmp_path, [node(function, ["x"], ["y"])], shape=("batch", 1))
    x = np.concatenate([np.linspace(-reach, reach, 301), np.linspace(-12, 12, 301).clip(-reach, reach)])
    assert_agrees(path, {"x": x.astype(np.float32)[:, None]}, {"x": (-reach, reach)}, tolerance=2e-4)


@pytest.mark.parametrize("classes", [2, 3, 10, 20, 100])
def test_softmax_of_flat_steep_and_tied_rows(tmp_path: Path, classes: int) -> None:
    path = save_model(tmp_path, [node("Softmax", ["x"], ["y"], axis=-1)], shape=("batch", classes))
    rows = [np.zeros(classes), np.full(classes, 30.0), np.linspace(-30, 30, classes), np.eye(classes)[0] * 30]
    rows += list(RNG.standard_normal((40, classes)) * 4)
    assert_agrees(path, {"x": np.array(rows, np.float32)}, {"x": (-32.0, 32.0)}, tolerance=5e-4)


@pytest.mark.parametrize("last", [0, 1])
def test_argmax_and_its_ties(tmp_path: Path, last: int) -> None:
    nodes = [node("ArgMax", ["x"], ["y"], axis=1, keepdims=0, select_last_index=last)]
    path = save_model(tmp_path, nodes, shape=("batch", 5))
    x = RNG.integers(-3, 4, (60, 5)).astype(np.float32)
    [ours] = encrypted(compile_model(path), {"x": x})
    assert (ours == plaintext(path, {"x": x})[0]).all()


# name -> (interval, largest error of its series, how far the constants beyond it are off)
DOCUMENTED = {
    "sigmoid": ((-11.0, 11.0), 1e-5, 1.7e-5),
    "tanh": ((-6.0, 6.0), 3e-6, 1.3e-5),
}


@pytest.mark.parametrize("name", DOCUMENTED)
def test_series_are_as_good_as_their_documentation_says(name: str) -> None:
    (low, high), error, beyond = DOCUMENTED[name]
    function = FUNCTIONS[name]()
    assert (function.low, function.high) == (low, high)
    assert fit(name, (), low, high, 2e-5, 2.0**-20).error < error
    for end, limit in ((low, -600.0), (high, 600.0)):
        assert abs(float(function.value(np.array(end)) - function.value(np.array(limit)))) < beyond


def test_expected_error_is_of_the_size_of_the_measured_one(tmp_path: Path) -> None:
    w1, w2 = (RNG.standard_normal(s).astype(np.float32) for s in ((16, 32), (32, 4)))
    nodes = [
        node("MatMul", ["x", "a"], ["h"]),
        node("Relu", ["h"], ["r"]),
        node("MatMul", ["r", "b"], ["y"], name="out"),
    ]
    path = save_model(tmp_path, nodes, {"a": w1, "b": w2}, shape=("batch", 16))
    x = RNG.uniform(-1, 1, (200, 16)).astype(np.float32)
    compiled = compile_model(path, {"x": (-1.0, 1.0)})
    exact = np.maximum(x.astype(np.float64) @ w1.astype(np.float64), 0) @ w2.astype(np.float64)
    [ours] = encrypted(compiled, {"x": x})
    measured = float(np.sqrt(np.square(ours - exact).mean()))
    assert measured / 4 < compiled.errors["y"] < measured * 8


def test_encoding_rounds_to_nearest_and_refuses_what_does_not_fit() -> None:
    assert fixedpoint.encode(np.array([0.5, -0.5, 0.26]), 4).tolist() == [2, -2, 1]
    with pytest.raises(InputError):
        fixedpoint.encode(np.array([2.0**40]), 1 << 20)


def test_signs_have_room_for_their_rounding(tmp_path: Path) -> None:
    """ReLU and maximum need |x| < 2^k - 2^shift; the compiler leaves a shift at least eight bits below the bound."""
    weight = RNG.standard_normal((4, 6)).astype(np.float32)
    nodes = [node("MatMul", ["x", "w"], ["h"]), node("Relu", ["h"], ["r"]), node("Softmax", ["r"], ["y"], axis=-1)]
    path = save_model(tmp_path, nodes, {"w": weight})
    for reach in (1e-3, 1.0, 32.0, 1e4):
        plan = compile_model(path, {"x": (-reach, reach)}).plan
        signed = [gate for gate in plan.gates if gate.kind in ("relu", "maximum")]
        assert len(signed) == 2
        assert all(plan.wire[gate.x].bits - gate.shift >= 8 for gate in signed)


def test_an_input_that_is_revealed_is_exactly_itself(tmp_path: Path) -> None:
    path = save_model(tmp_path, [node("Identity", ["x"], ["y"])])
    x = RNG.uniform(-32, 32, (500, 4)).astype(np.float32)
    [ours] = encrypted(compile_model(path), {"x": x})
    assert np.abs(ours - x).max() <= 2.0**-20


@pytest.mark.parametrize(
    ("operators", "exponent", "low"),
    [
        (("Reciprocal",), 1.0, 0.0),
        (("Sqrt", "Reciprocal"), 1.0, 0.0),
        (("Pow",), -1.5, 0.0),
        (("Pow",), -2.5, 2.0**-6),
        (("Pow",), 1.5, 0.0),
        (("Log",), 1.0, 0.0),
        (("Sqrt",), 1.0, 0.0),
        (("Sqrt",), 1.0, -1.0),
        (("Sqrt",), 1.0, -(2.0**22)),
    ],
)
@pytest.mark.parametrize("factor", [1.7, 1.8, 1.895, 1.97])
def test_arguments_below_the_least_octave_keep_their_bounds(
    operators: tuple[str, ...], exponent: float, low: float, factor: float, tmp_path: Path
) -> None:
    """There a series means nothing: of 1/u it is up to 1.13 beside the least octave.  Of these factors one at least
    brings the bound of what is behind close below a power of two, which is as far as a wire reaches."""
    weights = {"e": np.array(exponent, np.float32), "w": np.eye(2, dtype=np.float32) * np.float32(factor)}
    names = ["x", *(f"h{place}" for place, _ in enumerate(operators))]
    nodes = [
        node(operator, [x, "e"] if operator == "Pow" else [x], [y], y)
        for operator, x, y in zip(operators, names, names[1:], strict=False)
    ]
    path = save_model(tmp_path, [*nodes, node("MatMul", [names[-1], "w"], ["y"], "last")], weights, ("batch", 2))
    made = compile_model(path, {"x": (low, 1.0)})
    rows = np.concatenate([np.linspace(low, 1, 200), np.linspace(low, low + 2**-13, 1500), np.linspace(0, 2**-13, 300)])
    clear(made, np.stack([rows, rows], axis=1).astype(np.float32))  # no value leaves the bound of its wire


@pytest.mark.parametrize(
    ("norm", "reach"),
    [("L1", 8.0), ("L1", 1000.0), ("L1", 1e6), ("L2", 8.0), ("L2", 1e6), ("MAX", 8.0), ("MAX", 1000.0)],
)
def test_rows_that_are_shorter_than_any_norm_that_is_divided_by(norm: str, reach: float, tmp_path: Path) -> None:
    """A norm was taken to be at least 2^-12; of a shorter one the inverse went round, and a row with it."""
    path = save_model(tmp_path, [node("Normalizer", ["x"], ["y"], domain="ai.onnx.ml", norm=norm)], shape=("batch", 4))
    made = compile_model(path, {"x": (-reach, reach)})
    assert "counts as about that" in made.notes[0]
    sizes = np.geomspace(1e-7, reach, 600)[:, None]
    rows = (sizes * np.concatenate([np.eye(4), np.tril(np.ones((4, 4)))])[:, None]).reshape(-1, 4).astype(np.float32)
    found = clear(made, rows)  # no value leaves the bound of its wire
    long = np.abs(rows).max(axis=1) > 2.0**-9 + reach / 2**14
    [expected] = plaintext(path, {"x": rows})
    seen = long & np.isfinite(expected).all(axis=1) & (np.abs(expected).max(axis=1) <= 1)
    np.testing.assert_allclose(found[seen], expected[seen], atol=0.05)
    assert made.rehearsal.expected["y"].error < 0.05


@pytest.mark.parametrize("reach", [1e6, 1e9])
def test_rows_over_their_deviation_in_a_wide_range(reach: float, tmp_path: Path) -> None:
    """One over a deviation is tiny there; its last digit, times a number of a row, was more than the result is."""
    weights = {"g": np.ones(4, np.float32), "b": np.zeros(4, np.float32)}
    nodes = [node("LayerNormalization", ["x", "g", "b"], ["y"], "normal", epsilon=1e-5)]
    path = save_model(tmp_path, nodes, weights, ("batch", 4))
    made = compile_model(path, {"x": (-reach, reach)})
    assert "keeps few of its digits" in made.notes[0]
    rows = np.array([[1, -1, 0, 0], [1, 1, 1, -1], [0.3, -0.2, 0.1, 0.9]]) * reach
    rows = np.concatenate([rows, rows / 16, np.tril(np.ones((4, 4)))]).astype(np.float32)
    found = clear(made, rows)  # no value leaves the bound of its wire
    np.testing.assert_allclose(found[:6], plaintext(path, {"x": rows})[0][:6], atol=1e-3)
    assert made.rehearsal.expected["y"].error < 1e-3


@pytest.mark.parametrize(("low", "high"), [(2.0**58, 2.0**58), (-(2.0**58), -(2.0**58)), (0.0, 0.0), (-1.0, 1.0)])
def test_what_a_relu_leaves_is_estimated_without_overflow(low: float, high: float) -> None:
    """Of a constant, whose deviation is nothing, too."""
    with np.errstate(all="raise", under="ignore"):
        found = Interval.between(low, high, (2,)).rectified()
    assert np.all(found.mean >= max(0.0, low))
    assert np.all(found.mean <= max(0.0, high) + 1e-12)


@pytest.mark.parametrize(("low", "high"), [(0.0, 0.0), (0.0, 2.0**-600), (-(2.0**58), 2.0**58), (3.0, 3.0)])
@pytest.mark.parametrize(("least", "most"), [(2.0**40, 2.0**58), (-1.0, 1.0), (0.0, 0.0), (-(2.0**58), -(2.0**57))])
def test_what_is_known_of_a_constant_is_estimated_without_overflow(
    low: float, high: float, least: float, most: float
) -> None:
    """Something that is always 0, as far as its interval shows, may be known to be large."""
    with np.errstate(all="raise", under="ignore"):
        found = Interval.between(low, high, (2,), error=0.5).within(least, most)
    assert np.all((found.error >= 0) & (found.error <= 0.5))
    assert np.all((least <= found.low) & (found.low <= found.high) & (found.high <= most))
