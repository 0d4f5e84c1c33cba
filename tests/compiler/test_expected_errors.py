"""Expected errors of labels and forests count what rounding does at thresholds, and nobody is left without a word."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from skl2onnx import to_onnx
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LogisticRegression

from mpc.compiler.compile import Compiled, compile_model
from mpc.compiler.graph.calibrate import ranges_around
from mpc.compiler.lowering import ends
from mpc.compiler.operators import trees
from parties.client.running.feeds import coarse_columns
from tests.support.graphs import ml_model, node, save_model
from tests.support.models import clear, plaintext
from tests.support.tables import computed, payments, save

RNG = np.random.Generator(np.random.PCG64(7))
SPREAD = RNG.uniform(-1, 1, (2000, 3)).astype(np.float32)
SCORE = SPREAD @ np.array([1.0, -2.0, 0.7]) + 0.3 * np.sin(9 * SPREAD[:, 0])
THREE = np.digitize(SCORE, [-0.7, 0.7])
OPSET = {"": 18, "ai.onnx.ml": 3}


def converted(model, y: np.ndarray, folder: Path) -> Path:  # type: ignore[no-untyped-def]
    model.fit(SPREAD[:1000].astype(np.float64), y[:1000])
    options = {id(model): {"zipmap": False}} if y.dtype.kind == "i" else None
    return save(folder, to_onnx(model, SPREAD[:1], options=options, target_opset=OPSET))


def measured(compiled: Compiled, path: Path) -> list[float]:
    """Labels: the part that differs; values: the root mean square error."""
    feeds = {"X": SPREAD[1000:]}
    return [
        float(np.mean(ours != theirs))
        if theirs.dtype.kind == "i"
        else float(np.sqrt(np.mean(np.square(ours - theirs))))
        for ours, theirs in zip(computed(compiled, feeds), plaintext(path, feeds), strict=True)
    ]


@pytest.mark.parametrize("bits", [9, 12])
@pytest.mark.parametrize("classes", [2, 3])
def test_a_forest_that_compares_few_bits(
    classes: int, bits: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With so few bits, rounding is seen on a thousand rows: what is expected is about what happens."""
    y = THREE if classes == 3 else (SCORE > 0).astype(np.int64)
    path = converted(RandomForestClassifier(20, max_depth=6, random_state=0), y, tmp_path)
    monkeypatch.setattr(trees, "THRESHOLD_BITS", bits)
    compiled = compile_model(path, {"X": (-1.0, 1.0)})
    label, probabilities = compiled.errors.values()
    wrong, off = measured(compiled, path)
    assert wrong / 5 < label < 10 * wrong + 0.01
    assert off / 3 < probabilities < 4 * off
    assert any("expected to change" in text for text in compiled.messages) == (label > 0.01)


def test_a_forest_of_values_that_compares_few_bits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = converted(RandomForestRegressor(20, max_depth=6, random_state=0), SCORE, tmp_path)
    monkeypatch.setattr(trees, "THRESHOLD_BITS", 10)
    compiled = compile_model(path, {"X": (-1.0, 1.0)})
    [expected], [off] = compiled.errors.values(), measured(compiled, path)
    assert off / 3 < expected < 4 * off
    assert any("expected error" in text for text in compiled.messages)


@pytest.mark.parametrize("classes", [2, 3])
def test_a_regression_whose_input_has_few_bits(classes: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    y = THREE if classes == 3 else (SCORE > 0).astype(np.int64)
    path = converted(LogisticRegression(C=100.0), y, tmp_path)
    monkeypatch.setattr(ends, "INPUT_FRACTION", 5)
    compiled = compile_model(path, {"X": (-1.0, 1.0)})
    label, wrong = compiled.errors["label"], measured(compiled, path)[0]
    assert wrong / 4 < label < 4 * wrong


@pytest.mark.parametrize("tracks", [0, 1])
@pytest.mark.parametrize("mode", ["BRANCH_LEQ", "BRANCH_LT", "BRANCH_GT"])
def test_thresholds_beside_missing_numbers_are_not_missed(mode: str, tracks: int, tmp_path: Path) -> None:
    """As LightGBM is exported: what is far away where numbers are missing was taken for an error of the others."""
    nodes = {
        "nodes_treeids": [0] * 3, "nodes_nodeids": [0, 1, 2], "nodes_featureids": [0] * 3,
        "nodes_modes": [mode, "LEAF", "LEAF"], "nodes_values": [0.5, 0.0, 0.0], "nodes_truenodeids": [1, 0, 0],
        "nodes_falsenodeids": [2, 0, 0], "nodes_missing_value_tracks_true": [tracks, 0, 0],
        "target_treeids": [0] * 2, "target_nodeids": [1, 2], "target_ids": [0] * 2, "target_weights": [1.0, 2.0],
    }  # fmt: skip
    path = ml_model(tmp_path, "TreeEnsembleRegressor", {"y": TensorProto.FLOAT}, n_targets=1, **nodes)
    [expected] = compile_model(path, {"x": (-4.0, 4.0)}).rehearsal.expected.values()
    assert expected.changed < 1e-6 and expected.error < 1e-6


def test_places_in_a_table_are_as_likely_as_each_other(tmp_path: Path) -> None:
    """Small numbers were drawn for tokens too, so that the padding's row, a zero, stood in half of all places."""
    table = np.ones((64, 1), np.float32)
    table[0] = 0.0
    path = save_model(
        tmp_path, [node("Gather", ["table", "x"], ["y"])], {"table": table}, ("batch", 8), element=TensorProto.INT64
    )
    [expected] = compile_model(path).rehearsal.expected.values()
    assert expected.size**2 == pytest.approx(63 / 64, abs=0.02)


def test_labels_that_are_right_are_expected_to_be(tmp_path: Path) -> None:
    path = converted(RandomForestClassifier(20, max_depth=6, random_state=0), THREE, tmp_path)
    compiled = compile_model(path, {"X": (-1.0, 1.0)})
    assert measured(compiled, path)[0] == 0 and 0 < compiled.errors["label"] < 1e-4
    assert not compiled.messages


# ------------------------------------------------------------------ rows of equal numbers


def below_the_largest(folder: Path, columns: int) -> Path:
    """e to the power of x^2 - max x^2, which is 1 where x is largest."""
    nodes = [node("Mul", ["x", "x"], ["s"]), node("ReduceMax", ["s"], ["m"], axes=[-1])]
    nodes += [node("Sub", ["s", "m"], ["d"]), node("Exp", ["d"], ["y"])]
    return save_model(folder, nodes, {}, ("batch", columns))


def test_what_equal_numbers_are_off_by_is_told(tmp_path: Path) -> None:
    """Each square of a row is rounded by itself, so none is the largest: 0.1 to 0.9 instead of 1, and no word of it."""
    path, rng = below_the_largest(tmp_path, 6), np.random.default_rng(8)
    compiled = compile_model(path, (-1e5, 1e5))
    x = np.exp2(rng.uniform(4, 16, (400, 1))).astype(np.float32).repeat(6, 1)
    off = np.abs(clear(compiled, x) - 1)
    lost = off > 0.01
    assert 0.5 < compiled.rehearsal.expected["y"].alike / np.sqrt(np.square(off[lost]).mean()) < 2
    assert any("where the numbers of a row are all equal" in text for text in compiled.messages)


@pytest.mark.parametrize(("reach", "columns"), [(1e5, 1), (10.0, 6)])
def test_nothing_is_told_of_equal_numbers_that_lose_nothing(reach: float, columns: int, tmp_path: Path) -> None:
    roots = [node("Mul", ["x", "x"], ["s"]), node("Sqrt", ["s"], ["y"])]
    alone = save_model(tmp_path, roots, {}, ("batch", 1)) if columns == 1 else None
    compiled = compile_model(alone or below_the_largest(tmp_path, columns), (-reach, reach))
    assert not compiled.rehearsal.expected["y"].alike
    assert not any("all equal" in text for text in compiled.messages)


NORMALISED = """<ir_version: 8, opset_import: ["": 17]>
masked (float[batch, 8, 4] x, float[batch, 8] m) => (float[batch, 8, 4] y)
<float one = {1}, float small = {1e-5}, int64[1] places = {1}, int64[1] last = {2}>
{
    count = ReduceSum <keepdims = 1> (m, places)
    some = Clip (count, one)
    n = Unsqueeze (some, last)
    marks = Unsqueeze (m, last)
    left = Mul (x, marks)
    sum = ReduceSum <keepdims = 1> (left, places)
    mean = Div (sum, n)
    apart = Sub (x, mean)
    of = Mul (apart, marks)
    square = Mul (of, of)
    squares = ReduceSum <keepdims = 1> (square, places)
    variance = Div (squares, n)
    more = Add (variance, small)
    deviation = Sqrt (more)
    y = Div (of, deviation)
}
"""


def test_what_equal_numbers_at_marked_places_are_off_by_is_told(tmp_path: Path) -> None:
    """Numbers that are equal along one axis alone, beside marks that are all alike, are off by far less."""
    path, rng = save(tmp_path, onnx.parser.parse_model(NORMALISED)), np.random.default_rng(8)
    compiled = compile_model(path, {"x": (-32.0, 32.0), "m": (0.0, 1.0)})
    levels, number = rng.uniform(-32, 32, (400, 1, 1)), rng.integers(1, 9, (400, 1))
    feeds = {"x": np.broadcast_to(levels, (400, 8, 4)).astype(np.float32), "m": np.float32(np.arange(8) < number)}
    expected, [ours], [right] = compiled.rehearsal.expected["y"], computed(compiled, feeds), plaintext(path, feeds)
    off = np.abs(ours - right)
    lost = off > max(0.01, 2 * expected.smooth)
    assert 0.5 < expected.alike / np.sqrt(np.square(off[lost]).mean()) < 2
    assert any("where the numbers of a row are all equal" in text for text in compiled.messages)


# ------------------------------------------------------------------ rows of small numbers


def norm(folder: Path, columns: int, *, divided: bool) -> Path:
    nodes = [node("ReduceL2", ["x"], ["n" if divided else "y"], axes=[1], keepdims=1)]
    nodes += [node("Div", ["x", "n"], ["y"])] if divided else []
    return save_model(folder, nodes, {}, ("batch", columns))


def test_a_root_of_less_than_a_millionth_is_expected_to_be_what_it_is(tmp_path: Path) -> None:
    """It was compared with the root of 2^-20, and seemed to be off by 3e-4."""
    path = norm(tmp_path, 6, divided=False)
    compiled = compile_model(path, (-0.01, 0.01))
    x = (np.random.default_rng(8).uniform(-0.01, 0.01, (400, 6)) / 64).astype(np.float32)
    [right] = plaintext(path, {"x": x})
    off = np.sqrt(np.square(clear(compiled, x) - right).mean())
    assert 0.3 * off < compiled.errors["y"] < 4 * off
    assert not compiled.messages


@pytest.mark.parametrize("columns", [6, 64, 1024])
def test_a_long_row_of_tiny_numbers_is_told(columns: int, tmp_path: Path) -> None:
    """Of many numbers, each small by chance, some are large; rows that were small as a whole were never tried."""
    path = norm(tmp_path, columns, divided=True)
    compiled = compile_model(path, (-0.01, 0.01))
    x = (np.random.default_rng(8).uniform(-0.01, 0.01, (40, columns)) * 2.0**-20).astype(np.float32)
    [right] = plaintext(path, {"x": x})
    off = np.sqrt(np.square(clear(compiled, x) - right).mean())
    assert 0.5 < compiled.rehearsal.expected["y"].tiny / off < 2
    [text] = [text for text in compiled.messages if "inputs that are all very small" in text]
    assert "in ordinary rows" in text and "data without such rows are not affected" in text


POOLED = """<ir_version: 8, opset_import: ["": 17]>
pooled (float[batch, 6, 8] x, float[batch, 6] m) => (float[batch, 8] y)
<float half = {0.5}, float far = {-1e9}, int64[1] last = {2}>
{
    marks = Unsqueeze (m, last)
    pad = Less (marks, half)
    seen = Where (pad, far, x)
    top = ReduceMax <axes = [1], keepdims = 0> (seen)
    n = ReduceL2 <axes = [1], keepdims = 1> (top)
    y = Div (top, n)
}
"""


def test_marks_beside_tiny_numbers_are_not_tiny(tmp_path: Path) -> None:
    """They hid whole rows then, of which nothing could be off."""
    path, rng = save(tmp_path, onnx.parser.parse_model(POOLED)), np.random.default_rng(8)
    compiled = compile_model(path, {"x": (-1.0, 1.0), "m": (0.0, 1.0)})
    x = rng.uniform(-1, 1, (200, 6, 8)) * np.exp2(-rng.uniform(0, 24, (200, 1, 1)))
    feeds = {"x": x.astype(np.float32), "m": np.float32(np.arange(6) < rng.integers(1, 7, (200, 1)))}
    [ours], [right] = computed(compiled, feeds), plaintext(path, feeds)
    off = np.abs(ours - right)
    lost = off > 0.01 * np.abs(right)
    assert 0.5 < compiled.rehearsal.expected["y"].tiny / np.sqrt(np.square(off[lost]).mean()) < 2


def test_one_wide_column_among_others_is_told(tmp_path: Path) -> None:
    """It was said that all columns had to be tiny for anything to be lost."""
    weight = np.array([[1.0], [-1.0], [0.01]], np.float32)
    nodes = [node("MatMul", ["x", "w"], ["z"]), node("Sigmoid", ["z"], ["y"])]
    path = save_model(tmp_path, nodes, {"w": weight}, ("batch", 3))
    rng = np.random.default_rng(8)
    x = np.column_stack([rng.uniform(-1, 1, (400, 2)), rng.uniform(-300, 300, 400)]).astype(np.float32)
    [right] = plaintext(path, {"x": x})
    for top, is_told in ((300.0, False), (2.0**33, True)):
        compiled = compile_model(path, {"x": ([-1.0, -1.0, -top], [1.0, 1.0, top])})
        off = float(np.abs(clear(compiled, x) - right).max())
        assert (off > 1e-3) == is_told == any("one column of a table" in text for text in compiled.messages)


def test_nothing_is_told_of_tiny_numbers_that_are_off_by_nearly_nothing(tmp_path: Path) -> None:
    weight = np.random.default_rng(8).standard_normal((6, 3)).astype(np.float32)
    path = save_model(tmp_path, [node("MatMul", ["x", "w"], ["y"])], {"w": weight}, ("batch", 6))
    assert not compile_model(path, (-1.0, 1.0)).messages


# ------------------------------------------------------------------ rows of zeros


@pytest.mark.parametrize(
    "operators", [("Abs", "Sign", "Exp", "Floor"), ("Mish", "Ceil"), ("Erf", "Sign")], ids="-".join
)
def test_a_jump_at_exact_zeros_is_told(operators: tuple[str, ...], tmp_path: Path) -> None:
    """It was expected to be off by 0, and off by 1 at zeros: no row that was rehearsed had one."""
    names = ["x", *map(str, range(len(operators) - 1)), "y"]
    nodes = [node(op, [names[i]], [names[i + 1]], name=f"node {i}") for i, op in enumerate(operators)]
    path = save_model(tmp_path, nodes, opset=20)
    compiled = compile_model(path, (-8.0, 8.0))
    [right] = plaintext(path, {"x": np.zeros((40, 4), np.float32)})
    off = np.sqrt(np.square(clear(compiled, np.zeros((40, 4), np.float32)) - right).mean())
    assert off <= 2 * compiled.rehearsal.expected["y"].empty
    assert any("where inputs are exactly 0" in text for text in compiled.messages)


@pytest.mark.parametrize("operators", [("Relu",), ("Abs", "Floor"), ("Softmax",), ("Tanh",)], ids="-".join)
def test_nothing_is_told_of_zeros_that_lose_nothing(operators: tuple[str, ...], tmp_path: Path) -> None:
    names = ["x", *map(str, range(len(operators) - 1)), "y"]
    nodes = [node(op, [names[i]], [names[i + 1]], name=f"node {i}") for i, op in enumerate(operators)]
    compiled = compile_model(save_model(tmp_path, nodes), (-8.0, 8.0))
    assert not compiled.rehearsal.expected["y"].empty
    assert not any("exactly 0" in text for text in compiled.messages)


# ------------------------------------------------------------------ data in a small part of their range


def test_a_column_that_its_range_hardly_resolves_is_named(tmp_path: Path) -> None:
    x, y, _ = payments()
    model = RandomForestClassifier(10, max_depth=5, random_state=0).fit(x.astype(np.float64), y)
    path = save(tmp_path, to_onnx(model, x[:1], options={id(model): {"zipmap": False}}, target_opset=OPSET))
    feeds = {"X": x}
    [text] = coarse_columns(compile_model(path, {"X": (-(2.0**31), 2.0**31)}).plan, feeds)
    assert "column 2 (the first is column 0) of input 'X'" in text and "a range a column" in text
    assert not coarse_columns(compile_model(path, ranges_around(feeds, columns=True)).plan, feeds)
    x[:5, 1] = np.nan
    assert not coarse_columns(compile_model(path, ranges_around(feeds, columns=True)).plan, feeds)


def test_places_that_a_mask_makes_equal_are_no_ties(tmp_path: Path) -> None:
    """Where a mask hides all of a row the first place is found, here and in the model: 40 % were said to be others."""
    nodes = [
        node("Less", ["m", "one"], ["pad"]),
        node("Where", ["pad", "fill", "x"], ["s"]),
        node("ArgMax", ["s"], ["y"], axis=1, keepdims=0),
    ]
    constants = {"one": np.float32(1.0), "fill": np.float32(-5.0)}
    inputs = {name: onnx.helper.make_tensor_value_info(name, 1, ["batch", 4]) for name in "xm"}
    out = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.INT64, ["batch"])
    given = [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = onnx.helper.make_graph(nodes, "hidden", [*inputs.values()], [out], given)
    path = save(tmp_path, onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8))
    compiled = compile_model(path, {"x": (-4.0, 4.0), "m": (-3.0, 3.0)})
    marks = RNG.integers(-3, 2, (500, 4)).astype(np.float32)
    feeds = {"x": RNG.uniform(-4, 4, (500, 4)).astype(np.float32), "m": marks}
    assert (computed(compiled, feeds)[0] == plaintext(path, feeds)[0]).all()
    assert compiled.errors["y"] < 1e-5 and not compiled.messages
