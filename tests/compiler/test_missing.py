"""Numbers that are missing: Imputers that fill them in, trees that route them; onnxruntime says what is right."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
import pytest
from onnx import TensorProto, helper
from skl2onnx import to_onnx
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from mpc.compiler.compile import Compiled, compile_model
from mpc.errors import InputError, PlanError
from mpc.plan.cost import plan_cost
from mpc.plan.ends import Missing
from mpc.plan.parse import parse_plan
from mpc.plan.verify import verify
from parties.client.running.feeds import check_feeds, to_integers
from tests.support import estimators  # noqa: F401 - mends the converter of histograms
from tests.support.graphs import ml_model, node, save_model
from tests.support.models import assert_agrees, encrypted, plaintext

FLOAT = TensorProto.FLOAT
SCALES = np.array([1.0, 30.0, 0.02, 4.0], np.float32)
RANGE = (tuple((-6.0 * SCALES.astype(float)).tolist()), tuple((6.0 * SCALES.astype(float)).tolist()))


def table(rows: int = 160, seed: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(rows of four columns of different size, those with holes, a class of two)"""
    rng = np.random.default_rng(seed)
    x = np.clip(rng.normal(size=(rows, 4)), -5, 5).astype(np.float32) * SCALES
    holes = np.where(rng.random(x.shape) < 0.25, np.float32(np.nan), x)
    return x, holes, (x[:, 0] / SCALES[0] + x[:, 3] / SCALES[3] + np.isnan(holes[:, 1]) > 0.3).astype(np.int64)


X, HOLES, Y = table()
PIPELINES: dict[str, tuple[Callable[[], Any], int]] = {
    "mean": (lambda: SimpleImputer(), 0),
    "constant": (lambda: SimpleImputer(strategy="constant", fill_value=3.5), 0),
    "scaled": (lambda: make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), 2),
    "linear": (lambda: make_pipeline(SimpleImputer(), StandardScaler(), LinearRegression()), 1),
    "logistic": (lambda: make_pipeline(SimpleImputer(strategy="median"), MinMaxScaler(), LogisticRegression()), 0),
    "forest": (lambda: make_pipeline(SimpleImputer(), StandardScaler(), RandomForestClassifier(5, max_depth=4)), 0),
    "before": (lambda: make_pipeline(StandardScaler(), SimpleImputer(strategy="median"), LinearRegression()), 1),
    "between": (lambda: make_pipeline(MinMaxScaler(), SimpleImputer(), StandardScaler(), LogisticRegression()), 0),
    "filled for trees": (lambda: make_pipeline(StandardScaler(), SimpleImputer(), RandomForestClassifier(4)), 0),
    "scaled for trees": (
        lambda: make_pipeline(StandardScaler(), HistGradientBoostingRegressor(max_iter=4, min_samples_leaf=4)),
        0,
    ),
    "columns": (
        lambda: make_pipeline(
            ColumnTransformer(
                [
                    ("a", make_pipeline(StandardScaler(), SimpleImputer()), [3, 0]),
                    ("b", make_pipeline(SimpleImputer(strategy="median"), MinMaxScaler()), [1]),
                    ("c", SimpleImputer(strategy="constant", fill_value=-1.0), [2]),
                ]
            ),
            LinearRegression(),
        ),
        3,
    ),
    "histograms": (lambda: HistGradientBoostingRegressor(max_iter=4, min_samples_leaf=4), 0),
    "histograms' classes": (lambda: HistGradientBoostingClassifier(max_iter=4, min_samples_leaf=4), 0),
}


def exported(name: str, folder: Path, fitted_to: np.ndarray) -> Path:
    model = PIPELINES[name][0]().fit(fitted_to, Y)
    options = {"zipmap": False} if hasattr(model, "predict_proba") else None
    path = folder / "model.onnx"
    path.write_bytes(to_onnx(model, X[:1], options=options, target_opset={"": 18, "ai.onnx.ml": 3}).SerializeToString())
    return path


def missing(compiled: Compiled) -> tuple[int, ...]:
    found = compiled.plan.inputs[0].missing
    return () if found is None else found.columns


@pytest.mark.parametrize("name", PIPELINES)
def test_pipelines_with_and_without_missing_numbers(name: str, tmp_path: Path) -> None:
    path = exported(name, tmp_path, HOLES)
    tolerance = 1e-3 * max(1.0, float(SCALES.max()))
    assert_agrees(path, {"X": X[:24]}, {"X": RANGE}, tolerance)
    compiled = assert_agrees(path, {"X": HOLES[:24]}, {"X": RANGE}, tolerance)
    assert missing(compiled) == (0, 1, 2, 3)
    if PIPELINES[name][1]:
        assert plan_cost(compiled.plan, 24).rounds == PIPELINES[name][1]


def test_a_row_of_which_every_number_is_missing(tmp_path: Path) -> None:
    assert_agrees(exported("forest", tmp_path, HOLES), {"X": np.full((2, 4), np.nan, np.float32)}, {"X": RANGE})


@pytest.mark.parametrize("name", ["logistic", "forest"])
def test_filling_in_costs_no_round(name: str, tmp_path: Path) -> None:
    """As many as of the pipeline without its Imputer."""
    path = exported(name, tmp_path, HOLES)
    filled = compile_model(path, {"X": RANGE}).plan
    bare = make_pipeline(*[step for _, step in PIPELINES[name][0]().steps[1:]]).fit(X, Y)
    onnx_model = to_onnx(bare, X[:1], options={"zipmap": False}, target_opset={"": 18, "ai.onnx.ml": 3})
    without = compile_model(onnx_model.SerializeToString(), {"X": RANGE}).plan
    assert plan_cost(filled, 8).rounds == plan_cost(without, 8).rounds
    [marked], [bare_input] = filled.inputs, without.inputs
    assert marked.missing is not None and len(marked.wires) == 2 and len(bare_input.wires) == 1


# ------------------------------------------------------------------- trees by hand

MODES = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ")
HARD = np.array(
    [[a, b, 0.0, 0.0] for a, b in itertools.product([np.nan, -4.0, 0.0, 0.5, 4.0], repeat=2)], dtype=np.float32
)


def trees(mode: str, tracks: tuple[int, int], thresholds: tuple[float, float] = (0.5, 0.0)) -> dict[str, Any]:
    """Two trees; each compares a column with a threshold, and on the false side the other one."""
    return {
        "nodes_treeids": [0] * 5,
        "nodes_nodeids": [0, 1, 2, 3, 4],
        "nodes_featureids": [0, 0, 1, 0, 0],
        "nodes_modes": [mode, "LEAF", mode, "LEAF", "LEAF"],
        "nodes_values": [thresholds[0], 0.0, thresholds[1], 0.0, 0.0],
        "nodes_truenodeids": [1, 0, 3, 0, 0],
        "nodes_falsenodeids": [2, 0, 4, 0, 0],
        "nodes_missing_value_tracks_true": [tracks[0], 0, tracks[1], 0, 0],
    }


def regressor(folder: Path, **settings: Any) -> Path:
    values = {
        "target_treeids": [0] * 3,
        "target_nodeids": [1, 3, 4],
        "target_ids": [0] * 3,
        "target_weights": [1.0, 2.0, 4.0],
    }
    return ml_model(folder, "TreeEnsembleRegressor", {"y": FLOAT}, n_targets=1, **settings, **values)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("tracks", [(1, 0), (0, 1), (1, 1), (0, 0)])
def test_each_node_says_where_missing_numbers_go(mode: str, tracks: tuple[int, int], tmp_path: Path) -> None:
    compiled = assert_agrees(regressor(tmp_path, **trees(mode, tracks)), {"x": HARD}, {"x": (-4, 4)}, 1e-5)
    assert missing(compiled) == (0, 1, 2, 3)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("thresholds", [(0.5, np.inf), (0.0, -np.inf), (9.0, -1e6)])
def test_thresholds_that_no_number_reaches(mode: str, thresholds: tuple[float, float], tmp_path: Path) -> None:
    for tracks in ((1, 0), (0, 1), (0, 0)):
        path = regressor(tmp_path, **trees(mode, tracks, thresholds))
        assert_agrees(path, {"x": HARD}, {"x": (-4, 4)}, 1e-5)


@pytest.mark.parametrize("tracks", [(1, 0), (0, 0)])
@pytest.mark.parametrize("declared", [(-4.0, 4.0), (-1e5, 1e5), (-4.0, 5e8)])
def test_ties_stay_exact_beside_missing_numbers(
    declared: tuple[float, float], tracks: tuple[int, int], tmp_path: Path
) -> None:
    """Numbers that are equal to a threshold, a threshold in any range."""
    for threshold in (0.1, 1 / 3, -3.7):
        tied = np.float32(threshold)
        x = np.array([[tied, tied, 0, 0], [np.nan, tied, 0, 0], [tied, np.nan, 0, 0], [1, 2, 0, 0]], np.float32)
        path = regressor(tmp_path, **trees("BRANCH_LEQ", tracks, (float(tied), float(tied))))
        assert_agrees(path, {"x": x}, {"x": declared}, 1e-5)


def test_a_classifier_of_two_trees(tmp_path: Path) -> None:
    one, values = trees("BRANCH_LEQ", (1, 0)), [0.75, 0.125, 0.25]
    other = {**trees("BRANCH_LEQ", (0, 1), (0.0, 0.25)), "nodes_treeids": [1] * 5}
    settings = {name: one[name] + other[name] for name in one}
    path = ml_model(
        tmp_path, "TreeEnsembleClassifier", {"label": TensorProto.INT64, "scores": FLOAT},
        classlabels_int64s=[0, 1, 2], class_treeids=[0] * 9 + [1] * 9, class_nodeids=[1, 1, 1, 3, 3, 3, 4, 4, 4] * 2,
        class_ids=[0, 1, 2] * 6,
        class_weights=[v * w for w in (0.5, 0.3) for s in range(3) for v in np.roll(values, s)],
        post_transform="NONE", **settings,
    )  # fmt: skip
    assert_agrees(path, {"x": HARD}, {"x": (-4, 4)}, 1e-4)


# ------------------------------------------------------------------- trees that say nothing of missing numbers


@pytest.mark.parametrize("mode", MODES)
def test_without_marks_missing_numbers_cost_nothing(mode: str, tmp_path: Path) -> None:
    """Numbers beyond the range stand for them, on the side where the comparison is false."""
    path = regressor(tmp_path, **trees(mode, (0, 0)))
    compiled = assert_agrees(path, {"x": HARD}, {"x": (-4, 4)}, 1e-5)
    [given] = compiled.plan.inputs
    assert given.missing is not None and given.wires == (given.wire,)
    assert given.missing.beyond == ("low" if mode in ("BRANCH_GTE", "BRANCH_GT") else "high")
    tracking = compile_model(regressor(tmp_path, **trees(mode, (0, 1))), {"x": (-4, 4)}).plan
    assert plan_cost(compiled.plan, 64).rounds == plan_cost(tracking, 64).rounds
    assert plan_cost(compiled.plan, 64).held < plan_cost(tracking, 64).held


def test_a_forest_whose_trees_disagree_about_a_side_has_marks(tmp_path: Path) -> None:
    settings = trees("BRANCH_LEQ", (0, 0))
    path = regressor(tmp_path, **{**settings, "nodes_modes": ["BRANCH_LEQ", "LEAF", "BRANCH_GT", "LEAF", "LEAF"]})
    compiled = assert_agrees(path, {"x": HARD}, {"x": (-4, 4)}, 1e-5)
    assert compiled.plan.inputs[0].missing is not None and compiled.plan.inputs[0].missing.wire is not None


@pytest.mark.parametrize("mode", ["BRANCH_LEQ", "BRANCH_GT"])
@pytest.mark.parametrize(
    "declared",
    [
        (-4.0, 4.0),
        (0.5, 0.5),
        (0.0, 0.0),
        (1e6, 1e6 + 8),
        (-3e-5, 1e-5),
        ((-4.0, 1e9, 0.5, 0.0), (4.0, 1.1e9, 0.5, 0.0)),
    ],
)
def test_what_stands_for_missing_numbers_is_apart_from_all_of_any_range(
    mode: str, declared: tuple[Any, Any], tmp_path: Path
) -> None:
    """Thresholds at and beyond both ends of the range, numbers at its ends and missing ones."""
    low, high = (np.broadcast_to(np.float32(end), (4,)) for end in declared)
    x = np.stack([low, high, np.full(4, np.nan, np.float32), np.where(np.arange(4) % 2, low, np.float32(np.nan))])
    step = max(float(high[0]) - float(low[0]), 1e-6 * abs(float(high[0])), 1e-6)
    for threshold in (low[0], high[0], high[0] + step, low[0] - step, 3e38, -3e38, np.inf, -np.inf):
        path = regressor(tmp_path, **trees(mode, (0, 0), (float(threshold), float(high[1]))))
        assert_agrees(path, {"x": x.astype(np.float32)}, {"x": declared}, 1e-5)


@pytest.mark.parametrize("read", ["gathered", "last column read too"])
@pytest.mark.parametrize("width", [1.0, 2e-8, 1e-12])
def test_what_stands_for_missing_numbers_is_apart_however_narrow_a_range_is(
    width: float, read: str, tmp_path: Path
) -> None:
    """Behind moves too; where no number beyond the range would be another integer, there are marks."""
    path = regressor(tmp_path, **trees("BRANCH_LEQ", (0, 0), (0.75 * width, 0.75 * width)))
    model = onnx.load(path)
    model.graph.node[0].input[0] = "g"
    made = [helper.make_node("Gather", ["x", "order"], ["g"], axis=1)]
    constants = {"order": np.array([0, 1, 2, 3])}
    if read != "gathered":
        constants |= {"last": np.array([3]), "much": np.array(1 / width, np.float32)}
        made += [
            helper.make_node("Gather", ["x", "last"], ["z"], axis=1),
            helper.make_node("Mul", ["z", "much"], ["m"]),
        ]
        model.graph.output.append(helper.make_tensor_value_info("m", FLOAT, [None, 1]))
    model.graph.node.extend(made)
    model.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in constants.items())
    path.write_bytes(model.SerializeToString())
    x = np.full((6, 4), 0.5 * width, np.float32)
    x[1, :3], x[2, :3], x[3, :3], x[4, 0], x[5, 1] = width, np.nan, 0, np.nan, np.nan
    model.graph.node.sort(key=lambda each: each.op_type == "TreeEnsembleRegressor")
    path.write_bytes(model.SerializeToString())
    compiled = compile_model(path, {"x": (0.0, float(np.float32(width)))})
    [given] = compiled.plan.inputs
    assert given.missing is not None
    assert np.abs(encrypted(compiled, {"x": x})[0] - plaintext(path, {"x": x})[0]).max() < 1e-4
    if width == 1.0 or read == "gathered":
        assert given.missing.beyond == "high" and given.wires == (given.wire,)
    assert not compiled.notes


def test_a_range_that_fixed_point_does_not_resolve_is_told_of(tmp_path: Path) -> None:
    path = regressor(tmp_path, **trees("BRANCH_LEQ", (0, 0), (0.75e-30, 0.75e-30)))
    [note] = compile_model(path, {"x": (0.0, 1e-30)}).notes
    assert "input 'x'" in note and "multiply" in note
    wide = ((0.0, 0.0, -1.0, -1.0), (1e-30, 1e-30, 1.0, 1.0))
    assert any("input 'x'" in note for note in compile_model(path, {"x": wide}).notes)
    assert not compile_model(path, {"x": ((0.0, 0.0, -1.0, 2.0), (0.0, 1e-6, 1.0, 2.0))}).notes


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_forest_of_scikit_learn_that_saw_no_missing_number(dtype: str, tmp_path: Path) -> None:
    model = RandomForestClassifier(8, max_depth=5, random_state=0).fit(X, Y)
    path = tmp_path / "model.onnx"
    given = [("X", (FloatTensorType if dtype == "float32" else DoubleTensorType)([None, 4]))]
    made = to_onnx(model, initial_types=given, options={"zipmap": False}, target_opset={"": 18, "ai.onnx.ml": 3})
    for node_ in made.graph.node:  # as of exporters that do not know of missing numbers
        for attribute in node_.attribute:
            if attribute.name == "nodes_missing_value_tracks_true":
                attribute.ints[:] = [0] * len(attribute.ints)
    path.write_bytes(made.SerializeToString())
    rows = np.concatenate([HOLES[:24], np.full((1, 4), np.nan)]).astype(dtype)
    compiled = assert_agrees(path, {"X": rows}, {"X": RANGE}, 1e-3)
    assert missing(compiled) == (0, 1, 2, 3) and len(compiled.plan.inputs[0].wires) == 1


def test_samples_of_a_forest_may_miss_numbers(tmp_path: Path) -> None:
    path = regressor(tmp_path, **trees("BRANCH_LEQ", (0, 0)))
    compiled = compile_model(path, samples={"x": HARD})
    assert np.abs(encrypted(compiled, {"x": HARD})[0] - plaintext(path, {"x": HARD})[0]).max() < 1e-4


# ------------------------------------------------------------------- behind scalings


def scaled(op: str, reads: str, out: str, values: list[float]) -> Any:
    return node(op, [reads, f"{out}-by"], [out], out), {f"{out}-by": np.array(values, np.float32)}


@pytest.mark.parametrize("factors", [[2.0, 0.5, 3.0, 1.5], [2.0, -0.5, 3.0, 1.5], [2.0, 0.0, 3.0, 1.5]])
@pytest.mark.parametrize("tracks", [(1, 0), (0, 0)])
def test_trees_behind_a_scaling(tracks: tuple[int, int], factors: list[float], tmp_path: Path) -> None:
    """A negative factor turns the side about; one of zero makes a number of what is missing, but for NaN itself."""
    (mul, by), (add, of) = scaled("Mul", "x", "m", factors), scaled("Add", "m", "s", [0.25, 1.0, -2.0, 0.0])
    path = regressor(tmp_path, **trees("BRANCH_LEQ", tracks))
    model = onnx.load(path)
    model.graph.node[0].input[0] = "s"
    for place, each in enumerate((mul, add)):
        model.graph.node.insert(place, each)
    model.graph.initializer.extend(onnx.numpy_helper.from_array(v, n) for n, v in {**by, **of}.items())
    onnx.save(model, path)
    compiled = assert_agrees(path, {"x": HARD}, {"x": (-4, 4)}, 1e-5)
    assert missing(compiled) == (0, 1, 2, 3)
    alone = tracks == (0, 0) and min(factors) > 0
    assert len(compiled.plan.inputs[0].wires) == (1 if alone else 2)


FIVE = HARD[[0, 7, 11, 18, 24]]
EACH = {
    "as it is": None,
    "columns": [2.0, 0.5, 3.0, 1.5],
    "rows": [[1.0], [2.0], [0.5], [-1.0], [4.0]],
    "both": (np.arange(20).reshape(5, 4) / 4 + 0.5).tolist(),
}


@pytest.mark.parametrize("how", EACH)
@pytest.mark.parametrize("tracks", [(1, 0), (0, 0)])
@pytest.mark.parametrize("filled", [False, True])
def test_rows_that_a_model_fixes(how: str, tracks: tuple[int, int], filled: bool, tmp_path: Path) -> None:
    """Such a model can scale each row differently; then trees and Imputers read the rows as they are scaled."""
    path = regressor(tmp_path, **trees("BRANCH_LEQ", tracks))
    model, reads = onnx.load(path), "x"
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = len(FIVE)
    nodes = []
    if EACH[how] is not None:
        mul, by = scaled("Mul", "x", "s", EACH[how])
        nodes, reads = [mul], "s"
        model.graph.initializer.extend(onnx.numpy_helper.from_array(v, n) for n, v in by.items())
    if filled:
        nodes, reads = [*nodes, imputer(reads, "f")], "f"
    model.graph.node[0].input[0] = reads
    for place, each in enumerate(nodes):
        model.graph.node.insert(place, each)
    onnx.save(model, path)
    assert_agrees(path, {"x": FIVE}, {"x": (-4, 4)}, 1e-5)
    whole = np.nan_to_num(FIVE)
    assert_agrees(path, {"x": whole}, {"x": (-4, 4)}, 1e-5)


@pytest.mark.parametrize("mode, threshold", [("BRANCH_LT", 0.5), ("BRANCH_LEQ", -0.5), ("BRANCH_GTE", 0.5)])
@pytest.mark.parametrize("large", [1e6, 3e8, 1e10])
def test_a_constant_column_beside_a_large_one(mode: str, threshold: float, large: float, tmp_path: Path) -> None:
    """What a range decides alone - 0 is below 0.5 - is decided so whatever the grid of the columns' common unit is."""
    path = regressor(tmp_path, **trees(mode, (1, 1), (threshold, large / 2)))
    model = onnx.load(path)
    model.graph.node[0].input[0] = "s"
    model.graph.node.insert(0, node("Gather", ["x", "o"], ["s"], axis=1))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([0, 1, 2, 3]), "o"))
    onnx.save(model, path)
    rows = np.array([[0, 0, 0, 0], [0, large, 1, 1], [np.nan, 1, 0.5, 0.5]], np.float32)
    assert_agrees(path, {"x": rows}, {"x": ((0.0, 0.0, 0.0, 0.0), (0.0, large, 1.0, 1.0))}, 1e-5)


# ------------------------------------------------------------------- what may be missing, and what may not


def imputer(reads: str, out: str) -> Any:
    return node(
        "Imputer", [reads], [out], domain="ai.onnx.ml",
        imputed_value_floats=[1.5, -2.0, 0.25, 7.0], replaced_value_float=float("nan"),
    )  # fmt: skip


def test_columns_that_something_else_reads_cannot_be_missing(tmp_path: Path) -> None:
    steps = [
        ("numbers", SimpleImputer(), [1, 3]),
        ("others", "passthrough", [0]),
    ]
    model = make_pipeline(ColumnTransformer(steps), LinearRegression()).fit(
        np.where(np.arange(4) == 0, X, HOLES), X[:, 1]
    )
    given = [("X", FloatTensorType([None, 4]))]
    path = tmp_path / "model.onnx"
    path.write_bytes(to_onnx(model, initial_types=given, target_opset={"": 18, "ai.onnx.ml": 3}).SerializeToString())
    fits = np.where(np.arange(4) % 2 == 0, X, HOLES)[:24]
    compiled = assert_agrees(path, {"X": fits}, {"X": RANGE}, 1e-2)
    assert set(missing(compiled)) >= {1, 3} and 0 not in missing(compiled)
    with pytest.raises(InputError, match=r"input 'X' holds NaN; cause: column 0 \("):
        check_feeds(compiled.plan, {"X": np.where(np.arange(4) == 0, np.float32(np.nan), fits)})
    with pytest.raises(InputError, match=r"holds infinity; cause: column 1 \("):
        check_feeds(compiled.plan, {"X": np.where(np.arange(4) == 1, np.float32(np.inf), fits)})


def test_an_input_that_is_read_beside_its_imputer(tmp_path: Path) -> None:
    """No column can be missing, so nothing is entered beside them."""
    path = save_model(tmp_path, [imputer("x", "filled"), node("Add", ["x", "filled"], ["y"])])
    compiled = assert_agrees(path, {"x": X[:4] / SCALES}, {"x": (-8, 8)})
    assert compiled.plan.inputs[0].missing is None
    assert b'"missing"' not in compiled.plan.canonical
    with pytest.raises(InputError, match="column"):
        check_feeds(compiled.plan, {"x": HOLES})


def test_what_enters_is_a_number_of_the_range_and_a_mark(tmp_path: Path) -> None:
    path = save_model(tmp_path, [imputer("x", "y")])
    low, high = (2.0, -8.0, -1.0, 1e9), (8.0, -4.0, 1.0, 1.001e9)
    compiled = compile_model(path, {"x": (low, high)})
    [given] = compiled.plan.inputs
    assert given.missing is not None
    x = np.array([[3, -5, 0.5, 1.0005e9], [np.nan] * 4], np.float32)
    assert check_feeds(compiled.plan, {"x": x}) == 2
    entered = to_integers(compiled.plan, {"x": x}, ["x"])
    assert entered[given.missing.wire].tolist() == [[0] * 4, [1] * 4]
    nearest = to_integers(compiled.plan, {"x": np.array([[2, -4, 0, 1e9]], np.float32)}, ["x"])
    assert entered[given.wire][1].tolist() == nearest[given.wire][0].tolist()
    [ours], [theirs] = encrypted(compiled, {"x": x}), plaintext(path, {"x": x})
    assert (np.abs(ours - theirs) <= [1e-4, 1e-4, 1e-4, 2e3]).all()


def test_samples_and_undeclared_ranges_may_miss_numbers(tmp_path: Path) -> None:
    path = exported("linear", tmp_path, HOLES)
    compiled = compile_model(path, samples=HOLES)
    theirs = plaintext(path, {"X": HOLES[:24]})[0]
    assert np.abs(encrypted(compiled, {"X": HOLES[:24]})[0] - theirs).max() < 1e-3


def test_a_plan_without_marks_survives_its_encoding_and_is_checked(tmp_path: Path) -> None:
    plan = compile_model(regressor(tmp_path, **trees("BRANCH_LEQ", (0, 0))), {"x": (-4, 4)}).plan
    assert parse_plan(plan.canonical).inputs == plan.inputs
    [given] = plan.inputs
    assert to_integers(plan, {"x": np.full((1, 4), np.nan, np.float32)}, ["x"])[given.wire].min() > 4 * float(
        plan.wire[given.wire].scale
    )
    for update, cause in (
        ({"dtype": "int64"}, "cannot be missing"),
        ({"missing": Missing(beyond="low", columns=(4,))}, "no such"),
        ({"missing": Missing(columns=(0,))}, "enter in one way"),
    ):
        with pytest.raises(PlanError, match=cause):
            verify(plan.model_copy(update={"inputs": (given.model_copy(update=update),)}))


def test_a_plan_with_marks_survives_its_encoding_and_is_checked(tmp_path: Path) -> None:
    plan = compile_model(exported("linear", tmp_path, HOLES), {"X": RANGE}).plan
    assert parse_plan(plan.canonical).inputs == plan.inputs
    [given] = plan.inputs
    assert given.missing is not None
    for columns in ((1, 0), (0, 0), (-1,), (4,)):
        wrong = given.model_copy(update={"missing": Missing(wire=given.missing.wire, columns=columns)})
        with pytest.raises(PlanError, match="no such columns"):
            verify(plan.model_copy(update={"inputs": (wrong,)}))
    with pytest.raises(PlanError, match="not the wires that its input gates write"):
        verify(plan.model_copy(update={"inputs": (given.model_copy(update={"missing": None}),)}))
    with pytest.raises(PlanError, match="cannot be missing"):
        verify(plan.model_copy(update={"inputs": (given.model_copy(update={"dtype": "int64"}),)}))
    both = {"wire": given.missing.wire, "beyond": "high", "columns": (0,)}
    with pytest.raises(PlanError, match="enter in one way"):
        verify(plan.model_copy(update={"inputs": (given.model_copy(update={"missing": Missing(**both)}),)}))
    absent = json.loads(plan.canonical)
    absent["inputs"][0]["missing"] = None
    with pytest.raises(PlanError):
        parse_plan(json.dumps(absent, sort_keys=True, separators=(",", ":")).encode())
