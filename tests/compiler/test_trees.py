"""Trees and forests: scikit-learn's, and ensembles made by hand that try every attribute."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper
from skl2onnx import to_onnx
from sklearn import ensemble, tree
from sklearn.linear_model import LogisticRegression
from sklearn.multioutput import MultiOutputRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mpc.compiler.compile import Compiled, compile_model
from mpc.errors import ModelError
from mpc.plan.cost import plan_cost
from tests.support.estimators import (
    CANCER,
    DIABETES,
    DIGITS,
    IRIS,
    NAMED,
    NAMED_CANCER,
    TWO_TARGETS,
    WINE,
    Case,
    assert_case_agrees,
    converted,
)
from tests.support.graphs import ml_model
from tests.support.models import assert_agrees, encrypted, plaintext

FLOAT, INT64, STRING = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING
SEED = {"random_state": 0}

OFTEN = {
    "tree": Case(lambda: tree.DecisionTreeClassifier(**SEED), CANCER, zipmap=True),
    "tree of named classes": Case(lambda: tree.DecisionTreeClassifier(max_depth=4, **SEED), NAMED, zipmap=False),
    "tree regressor": Case(lambda: tree.DecisionTreeRegressor(**SEED), DIABETES),
    "scaled": Case(lambda: make_pipeline(StandardScaler(), tree.DecisionTreeClassifier(**SEED)), CANCER, zipmap=False),
    "extra trees": Case(lambda: ensemble.ExtraTreesClassifier(21, max_depth=6, **SEED), CANCER, zipmap=False),
    "forest": Case(lambda: ensemble.RandomForestClassifier(21, max_depth=6, **SEED), WINE, zipmap=True),
    "forest regressor": Case(lambda: ensemble.RandomForestRegressor(20, max_depth=6, **SEED), DIABETES),
    "boosting": Case(lambda: ensemble.GradientBoostingClassifier(n_estimators=20, **SEED), CANCER, zipmap=False),
    "boosting, three classes": Case(
        lambda: ensemble.GradientBoostingClassifier(n_estimators=10, **SEED), NAMED, zipmap=True
    ),
    "histograms": Case(lambda: ensemble.HistGradientBoostingClassifier(max_iter=10), NAMED_CANCER, zipmap=False),
    "adaptive boosting": Case(lambda: ensemble.AdaBoostClassifier(n_estimators=5, **SEED), CANCER, zipmap=False),
    "adaptive regressor": Case(lambda: ensemble.AdaBoostRegressor(n_estimators=5, **SEED), DIABETES),
}

RARELY = {
    "tree of digits": Case(lambda: tree.DecisionTreeClassifier(**SEED), DIGITS, zipmap=False),
    "tree, two targets": Case(lambda: tree.DecisionTreeRegressor(max_depth=5, **SEED), TWO_TARGETS),
    "extra tree": Case(lambda: tree.ExtraTreeClassifier(**SEED), IRIS, zipmap=False),
    "extra tree regressor": Case(lambda: tree.ExtraTreeRegressor(max_depth=6, **SEED), DIABETES),
    "extra trees regressor": Case(lambda: ensemble.ExtraTreesRegressor(20, max_depth=6, **SEED), DIABETES),
    "forest of named classes": Case(lambda: ensemble.RandomForestClassifier(21, **SEED), NAMED_CANCER, zipmap=False),
    "forest of digits": Case(lambda: ensemble.RandomForestClassifier(11, max_depth=8, **SEED), DIGITS, zipmap=False),
    "forest, two targets": Case(lambda: ensemble.RandomForestRegressor(10, max_depth=4, **SEED), TWO_TARGETS),
    "boosting regressor": Case(lambda: ensemble.GradientBoostingRegressor(n_estimators=20, **SEED), DIABETES),
    "boosting, exponential": Case(
        lambda: ensemble.GradientBoostingClassifier(n_estimators=10, loss="exponential", **SEED), CANCER, zipmap=False
    ),
    "histograms, three classes": Case(lambda: ensemble.HistGradientBoostingClassifier(max_iter=10), WINE, zipmap=False),
    "histograms, regressor": Case(lambda: ensemble.HistGradientBoostingRegressor(max_iter=20), DIABETES),
    "adaptive boosting, three classes": Case(
        lambda: ensemble.AdaBoostClassifier(n_estimators=10, **SEED), WINE, zipmap=False
    ),
    "bagging": Case(lambda: ensemble.BaggingClassifier(n_estimators=5, **SEED), CANCER, zipmap=False),
    "bagging of logistic regressions": Case(
        lambda: ensemble.BaggingClassifier(LogisticRegression(), n_estimators=5, **SEED), IRIS, zipmap=False
    ),
    "bagging regressor": Case(
        lambda: ensemble.BaggingRegressor(tree.DecisionTreeRegressor(max_depth=4), n_estimators=5, **SEED), DIABETES
    ),
    "several outputs": Case(lambda: MultiOutputRegressor(tree.DecisionTreeRegressor(max_depth=3)), TWO_TARGETS),
    "isolation": Case(lambda: ensemble.IsolationForest(n_estimators=5, **SEED), IRIS),
}


@pytest.mark.parametrize("name", OFTEN)
def test_estimator(name: str, tmp_path: Path) -> None:
    assert_case_agrees(OFTEN[name], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", RARELY)
def test_another_estimator(name: str, tmp_path: Path) -> None:
    assert_case_agrees(RARELY[name], tmp_path)


# ------------------------------------------------------------------- by hand

STUMP: dict[str, Any] = {
    "nodes_treeids": [0, 0, 0],
    "nodes_nodeids": [0, 1, 2],
    "nodes_featureids": [1, 0, 0],
    "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"],
    "nodes_values": [0.5, 0.0, 0.0],
    "nodes_truenodeids": [1, 0, 0],
    "nodes_falsenodeids": [2, 0, 0],
}
# The root, its right child, and that one's left child again.
CRANKED: dict[str, Any] = {
    "nodes_treeids": [7] * 7,
    "nodes_nodeids": [0, 1, 2, 3, 4, 5, 6],
    "nodes_featureids": [1, 0, 2, 0, 3, 0, 0],
    "nodes_modes": ["BRANCH_LEQ", "LEAF", "BRANCH_GT", "LEAF", "BRANCH_LT", "LEAF", "LEAF"],
    "nodes_values": [0.5, 0.0, -0.25, 0.0, 1.0, 0.0, 0.0],
    "nodes_truenodeids": [1, 0, 4, 0, 5, 0, 0],
    "nodes_falsenodeids": [2, 0, 3, 0, 6, 0, 0],
}


def regressor(folder: Path, weights: list[float], ids: list[int] | None = None, **changes: Any) -> Path:
    """Leaves in their order, one value each unless `ids` says otherwise."""
    settings = {**STUMP, **changes}
    leaves = [i for i, mode in enumerate(settings["nodes_modes"]) if mode == "LEAF"]
    each = len(weights) // len(leaves)
    values = {
        "target_treeids": [settings["nodes_treeids"][leaf] for leaf in leaves for _ in range(each)],
        "target_nodeids": [settings["nodes_nodeids"][leaf] for leaf in leaves for _ in range(each)],
        "target_ids": ids or [0] * len(weights),
        "target_weights": weights,
    }
    given = {"n_targets": 1, **settings, **values, **changes}
    kept = {name: value for name, value in given.items() if value is not None}
    return ml_model(folder, "TreeEnsembleRegressor", {"y": FLOAT}, **kept)


def classifier(folder: Path, weights: list[float], ids: list[int], labels: list[Any], **changes: Any) -> Path:
    settings = {**STUMP, **changes}
    leaves = [i for i, mode in enumerate(settings["nodes_modes"]) if mode == "LEAF"]
    each = len(weights) // len(leaves)
    text = isinstance(labels[0], str)
    values = {
        "class_treeids": [settings["nodes_treeids"][leaf] for leaf in leaves for _ in range(each)],
        "class_nodeids": [settings["nodes_nodeids"][leaf] for leaf in leaves for _ in range(each)],
        "class_ids": ids,
        "class_weights": weights,
        "classlabels_strings" if text else "classlabels_int64s": labels,
    }
    outputs = {"label": STRING if text else INT64, "y": FLOAT}
    return ml_model(folder, "TreeEnsembleClassifier", outputs, **{**settings, **values, **changes})


def table(values: list[float], dtype: Any = np.float32) -> np.ndarray:
    """Every value in every column."""
    return np.stack([np.roll(np.array(values, dtype=dtype), shift) for shift in range(4)], axis=1)


EDGES = table([0.5, np.nextafter(np.float32(0.5), np.float32(1)), 0.5 - 1e-6, -0.25, 0.0, 1.0, 0.75, -3.0])


@pytest.mark.parametrize("mode", ["LEQ", "LT", "GTE", "GT", "EQ", "NEQ"])
@pytest.mark.parametrize("threshold", [0.5, -0.25, 0.3, 1.0])
def test_every_comparison_at_its_threshold(mode: str, threshold: float, tmp_path: Path) -> None:
    """Equal reals are equal; one that is next to a threshold is on its right side, as far as the input's digits go."""
    path = regressor(
        tmp_path, [1.0, -2.0], nodes_modes=[f"BRANCH_{mode}", "LEAF", "LEAF"], nodes_values=[threshold, 0, 0]
    )
    x = table([threshold, threshold + 1e-6, threshold - 1e-6, 0.0, 2.0, -2.0])
    assert_agrees(path, {"x": x}, {"x": (-4.0, 4.0)}, tolerance=1e-6)


@pytest.mark.parametrize("mode", ["LEQ", "LT", "GTE", "GT", "EQ", "NEQ"])
@pytest.mark.parametrize("threshold", [2.0, 2.5, 3.5, -1.5, -2.0])
def test_whole_numbers(mode: str, threshold: float, tmp_path: Path) -> None:
    """They have no fractional bits; thresholds between them do."""
    changes = {"nodes_modes": [f"BRANCH_{mode}", "LEAF", "LEAF"], "nodes_values": [threshold, 0.0, 0.0]}
    path = classifier(tmp_path, [0.9, 0.2], [0, 0], [5, 7], element=INT64, **changes)
    assert_agrees(path, {"x": table([-3, -2, -1, 0, 1, 2, 3, 4], np.int64)}, {"x": (-8.0, 8.0)}, tolerance=1e-6)


def test_a_cranked_tree(tmp_path: Path) -> None:
    path = regressor(tmp_path, [1.0, 2.0, 4.0, 8.0], **CRANKED)
    assert_agrees(path, {"x": EDGES}, {"x": (-4.0, 4.0)}, tolerance=1e-6)


def test_columns_of_very_different_size(tmp_path: Path) -> None:
    """One feature is as small as the digits of another: each is compared with a part of its own range."""
    rng = np.random.default_rng(0)
    sizes = np.array([1e-4, 1.0, 1e4, 30.0])
    x = rng.uniform(-1, 1, (400, 4)) * sizes
    y = sum(np.sin(3 * x[:, i] / size) for i, size in enumerate(sizes))
    case = Case(lambda: ensemble.ExtraTreesRegressor(10, max_depth=7, **SEED), (x, y))
    path, _ = converted(case, tmp_path)
    ends = np.exp2(np.ceil(np.log2(sizes)))
    assert_agrees(path, {"X": x.astype(np.float32)}, {"X": (tuple(-ends), tuple(ends))}, tolerance=1e-5)


def test_one_range_for_all_columns(tmp_path: Path) -> None:
    path, x = converted(Case(lambda: ensemble.RandomForestClassifier(21, **SEED), CANCER, zipmap=False), tmp_path)
    assert_agrees(path, {"X": x}, {"X": (0.0, 5000.0)})


@pytest.mark.parametrize("value", [np.inf, -np.inf, 1e30, -1e30, 100.0])
def test_thresholds_that_no_value_reaches(value: float, tmp_path: Path) -> None:
    changes = {**CRANKED, "nodes_values": [0.5, 0.0, value, 0.0, 1.0, 0.0, 0.0]}
    path = regressor(tmp_path, [1.0, 2.0, 4.0, 8.0], **changes)
    assert_agrees(path, {"x": EDGES}, {"x": (-4.0, 4.0)}, tolerance=1e-6)


def test_trees_of_one_leaf_beside_others(tmp_path: Path) -> None:
    path = regressor(
        tmp_path,
        [1.0, 2.0, 10.0],
        nodes_treeids=[0, 0, 0, 1],
        nodes_nodeids=[0, 1, 2, 0],
        nodes_featureids=[1, 0, 0, 0],
        nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF", "LEAF"],
        nodes_values=[0.5, 0.0, 0.0, 0.0],
        nodes_truenodeids=[1, 0, 0, 0],
        nodes_falsenodeids=[2, 0, 0, 0],
    )
    assert_agrees(path, {"x": EDGES}, {"x": (-4.0, 4.0)}, tolerance=1e-6)


# Two classes, and what they are given: (weights of the two leaves, ids, base values).
TWO = {
    "probabilities": ([0.2, 0.9], [0, 0], None),
    "margins": ([-0.2, 0.9], [0, 0], None),
    "margins with a base": ([-0.2, 0.9], [0, 0], [0.3]),
    "probabilities with a base": ([0.2, 0.9], [0, 0], [-0.6]),
    "of the second class": ([0.2, 0.9], [1, 1], None),
    "margins of the second class": ([-0.2, 0.9], [1, 1], None),
}


@pytest.mark.parametrize("transform", ["NONE", "LOGISTIC", "SOFTMAX"])
@pytest.mark.parametrize("name", TWO)
def test_two_classes(name: str, transform: str, tmp_path: Path) -> None:
    """As onnxruntime reads one score: its threshold and its second column depend on the leaves' signs."""
    weights, ids, base = TWO[name]
    changes = {"post_transform": transform} | ({"base_values": base} if base else {})
    path = classifier(tmp_path, weights, ids, ["no", "yes"], **changes)
    assert_agrees(path, {"x": EDGES}, {"x": (-4.0, 4.0)}, tolerance=1e-4)


@pytest.mark.parametrize("transform", ["NONE", "LOGISTIC", "SOFTMAX"])
@pytest.mark.parametrize("base", [None, [0.5, -0.5, 0.25]])
def test_three_classes(transform: str, base: list[float] | None, tmp_path: Path) -> None:
    changes = {"post_transform": transform} | ({"base_values": base} if base else {})
    path = classifier(tmp_path, [0.8, -0.2, 0.3, 0.1, 0.9, 0.5], [0, 1, 2, 0, 1, 2], [5, 7, 9], **changes)
    assert_agrees(path, {"x": EDGES}, {"x": (-4.0, 4.0)}, tolerance=1e-4)


def test_equal_scores_go_to_the_first_class(tmp_path: Path) -> None:
    path = classifier(tmp_path, [0.1, 0.1, 0.1, 0.1, 0.3, 0.3], [0, 1, 2, 0, 1, 2], [5, 7, 9])
    assert_agrees(path, {"x": np.tile(EDGES, (8, 1))}, {"x": (-4.0, 4.0)})


@pytest.mark.parametrize("transform", ["NONE", "LOGISTIC", "SOFTMAX"])
@pytest.mark.parametrize("aggregate", ["SUM", "AVERAGE"])
@pytest.mark.parametrize("targets", [1, 2])
def test_regressors(targets: int, aggregate: str, transform: str, tmp_path: Path) -> None:
    """Two trees, the second the first one's mirror; one target alone is not transformed."""
    twice = {name: values * 2 for name, values in STUMP.items()}
    twice["nodes_treeids"] = [0, 0, 0, 1, 1, 1]
    twice["nodes_modes"] = ["BRANCH_LEQ", "LEAF", "LEAF", "BRANCH_GT", "LEAF", "LEAF"]
    path = regressor(
        tmp_path,
        [-0.2, 0.9, 0.4, 1.5, 0.3, 0.1, -0.7, 0.6][: 4 * targets],
        [0, 1] * 4 if targets == 2 else None,
        n_targets=targets,
        aggregate_function=aggregate,
        post_transform=transform,
        base_values=[1.0, -0.5][:targets],
        **twice,
    )
    assert_agrees(path, {"x": EDGES}, {"x": (-4.0, 4.0)}, tolerance=1e-4)


def places(folder: Path, **changes: Any) -> Path:
    """The operator of opset 5: x_1 <= 0.5, then on the left x_2 < 0.25; leaves 0, 1 and 2."""
    settings: dict[str, Any] = {
        "n_targets": 2,
        "tree_roots": [0],
        "nodes_featureids": [1, 2],
        "nodes_splits": [0.5, 0.25],
        "nodes_modes": [0, 1],
        "nodes_truenodeids": [1, 0],
        "nodes_trueleafs": [0, 1],
        "nodes_falsenodeids": [2, 1],
        "nodes_falseleafs": [1, 1],
        "leaf_targetids": [0, 1, 0],
        "leaf_weights": [1.0, 2.0, -4.0],
        "post_transform": 0,
        "aggregate_function": 1,
        **changes,
    }
    kinds = {"nodes_splits": FLOAT, "leaf_weights": FLOAT, "nodes_modes": TensorProto.UINT8}
    for name, kind in kinds.items():
        settings[name] = helper.make_tensor(name, kind, (len(settings[name]),), settings[name])
    return ml_model(folder, "TreeEnsemble", {"y": FLOAT}, ml=5, **settings)


@pytest.mark.parametrize("changes", [{}, {"aggregate_function": 0}, {"nodes_modes": [2, 5]}])
def test_the_newest_operator(changes: dict[str, Any], tmp_path: Path) -> None:
    assert_agrees(places(tmp_path, **changes), {"x": EDGES}, {"x": (-4.0, 4.0)}, tolerance=1e-4)


def test_double_precision_attributes(tmp_path: Path) -> None:
    values = helper.make_tensor("v", TensorProto.DOUBLE, (3,), [0.5, 0.0, 0.0])
    weights = helper.make_tensor("w", TensorProto.DOUBLE, (2,), [1.25, -3.0])
    path = ml_model(
        tmp_path,
        "TreeEnsembleRegressor",
        {"y": TensorProto.FLOAT},
        element=TensorProto.DOUBLE,
        **{name: values for name, values in STUMP.items() if name != "nodes_values"},
        nodes_values_as_tensor=values,
        target_treeids=[0, 0],
        target_nodeids=[1, 2],
        target_ids=[0, 0],
        target_weights_as_tensor=weights,
        n_targets=1,
    )
    assert_agrees(path, {"x": EDGES.astype(np.float64)}, {"x": (-4.0, 4.0)}, tolerance=1e-6)


# ------------------------------------------------------------------- refused

BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "a cycle": ({"nodes_modes": ["BRANCH_LEQ"] * 2 + ["LEAF"], "nodes_truenodeids": [1, 1, 0]}, "two"),
    "a cycle below": ({**CRANKED, "nodes_truenodeids": [1, 0, 4, 0, 2, 0, 0]}, "two"),
    "a cycle beside": (
        {**CRANKED, "nodes_truenodeids": [1, 0, 4, 0, 2, 0, 0], "nodes_falsenodeids": [3, 0, 5, 0, 6, 0, 0]},
        "cycle",
    ),
    "a missing child": ({"nodes_falsenodeids": [5, 0, 0]}, "not there"),
    "a negative child": ({"nodes_falsenodeids": [-1, 0, 0]}, "not there"),
    "two roots": (
        {**CRANKED, "nodes_falsenodeids": [3, 0, 5, 0, 6, 0, 0], "nodes_truenodeids": [1, 0, 4, 0, 5, 0, 0]},
        "two",
    ),
    "a second root": (
        {**CRANKED, "nodes_modes": CRANKED["nodes_modes"][:2] + ["LEAF"] + CRANKED["nodes_modes"][3:]},
        "two roots",
    ),
    "the root behind a leaf": (
        {
            "nodes_nodeids": [1, 2, 0],
            "nodes_modes": ["LEAF", "LEAF", "BRANCH_LEQ"],
            "nodes_truenodeids": [0, 0, 1],
            "nodes_falsenodeids": [0, 0, 2],
            "nodes_values": [0.0, 0.0, 0.5],
            "nodes_featureids": [0, 0, 1],
        },
        "no root",
    ),
    "a node twice": ({"nodes_nodeids": [0, 1, 1]}, "twice"),
    "scattered trees": ({"nodes_treeids": [0, 1, 0]}, "side by side"),
    "a shorter list": ({"nodes_values": [0.5, 0.0]}, "nodes_values"),
    "a longer list": ({"nodes_treeids": [0, 0, 0, 0]}, "entries"),
    "no thresholds": ({"nodes_values": None}, "nodes_values has 0 entries"),
    "a feature that is not there": ({"nodes_featureids": [4, 0, 0]}, "feature"),
    "a negative feature": ({"nodes_featureids": [-1, 0, 0]}, "feature"),
    "a comparison that is none": ({"nodes_modes": ["BRANCH_MAYBE", "LEAF", "LEAF"]}, "BRANCH_MAYBE"),
    "a threshold that is no number": ({"nodes_values": [np.nan, 0.0, 0.0]}, "not a number"),
    "an infinite leaf": ({"target_weights": [np.inf, 1.0]}, "infinite"),
    "a target that is not there": ({"target_ids": [0, 1]}, "column 1, and there are columns 0 to 0"),
    "values of an inner node": ({"target_nodeids": [0, 1]}, "no leaf"),
    "two values of one leaf": ({"target_nodeids": [1, 1]}, "two values"),
    "values of no node": ({"target_nodeids": [9, 1]}, "no leaf"),
    "a smallest tree": ({"aggregate_function": "MIN"}, "MIN"),
    "probits": ({"post_transform": "PROBIT"}, "PROBIT"),
    "base values of another number": ({"base_values": [1.0, 2.0]}, "base"),
    "no targets": ({"n_targets": 0}, "0 targets"),
    "nothing but leaves": (
        {
            "nodes_treeids": [0, 1],
            "nodes_nodeids": [0, 0],
            "nodes_modes": ["LEAF"] * 2,
            "nodes_featureids": [0, 0],
            "nodes_values": [0.0, 0.0],
            "nodes_truenodeids": [0, 0],
            "nodes_falsenodeids": [0, 0],
        },
        "decide nothing",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_ensemble_is_refused(name: str, tmp_path: Path) -> None:
    changes, word = BROKEN[name]
    leaves = [mode for mode in changes.get("nodes_modes", STUMP["nodes_modes"]) if mode == "LEAF"]
    path = regressor(tmp_path, [1.0] * len(leaves), **changes)
    with pytest.raises(ModelError, match=word) as caught:
        compile_model(path)
    assert caught.value.operator == "TreeEnsembleRegressor" and caught.value.node == "treeensembleregressor"


AMBIGUOUS: dict[str, tuple[list[float], list[int], list[Any], dict[str, Any]]] = {
    "two scores for two classes": ([0.8, 0.2, 0.1, 0.9], [0, 1, 0, 1], [0, 1], {}),
    "two base values": ([-0.2, 0.9], [0, 0], [0, 1], {"base_values": [0.1, 0.3]}),
    "a base of the first, scores of the second": ([-0.2, 0.9], [1, 1], [0, 1], {"base_values": [0.1]}),
    "one class": ([-0.2, 0.9], [0, 0], [1], {}),
    "a class without a score, and negative ones": ([-0.8, -0.2, -0.1, -0.9], [1, 2, 1, 2], [5, 7, 9], {}),
    "a class that is not there": ([0.8, 0.2], [0, 3], [5, 7, 9], {}),
    "zeros skipped in a softmax": ([0.8, 0.2], [0, 0], [0, 1], {"post_transform": "SOFTMAX_ZERO"}),
}


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_an_ambiguous_classifier_is_refused(name: str, tmp_path: Path) -> None:
    weights, ids, labels, changes = AMBIGUOUS[name]
    with pytest.raises(ModelError) as caught:
        compile_model(classifier(tmp_path, weights, ids, labels, **changes))
    assert caught.value.operator == "TreeEnsembleClassifier"


@pytest.mark.parametrize(
    "changes",
    [
        {"nodes_modes": [0, 6]},
        {"membership_values": [1.0]},
        {"tree_roots": [2]},
        {"tree_roots": [-1]},
        {"nodes_truenodeids": [0, 0]},
        {"nodes_truenodeids": [1, 3]},
        {"nodes_falseleafs": [1]},
        {"leaf_targetids": [0, 2, 0]},
        {"aggregate_function": 2},
        {"post_transform": 1},
        {"post_transform": 9},
        {"leaf_weights": [1.0, 2.0, -4.0, 5.0], "leaf_targetids": [0, 1, 0, 1]},
    ],
)
def test_a_broken_newest_ensemble_is_refused(changes: dict[str, Any], tmp_path: Path) -> None:
    if "membership_values" in changes:
        changes = {"membership_values": helper.make_tensor("m", FLOAT, (1,), [1.0])}
    with pytest.raises(ModelError):
        compile_model(places(tmp_path, **changes))


# ------------------------------------------------------------------- size and cost


def _compiled(case: Case, folder: Path) -> tuple[Compiled, float]:
    path, x = converted(case, folder)
    start = time.process_time()
    compiled = compile_model(path, {"X": (-8.0, 8.0)})
    return compiled, time.process_time() - start


def _noise() -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(0).standard_normal((2000, 20))
    return x, (x[:, :4].sum(axis=1) > 0).astype(np.int64)


def test_what_a_forest_costs(tmp_path: Path) -> None:
    """A hundred trees of depth six: nine rounds for the sum, less than a megabyte a row."""
    x, y = _noise()
    case = Case(lambda: ensemble.RandomForestRegressor(100, max_depth=6, **SEED), (x, y.astype(float)))
    compiled, seconds = _compiled(case, tmp_path)
    cost = plan_cost(compiled.plan, 1)
    assert cost.rounds == 9
    assert cost.sent < 250_000 and cost.dealt < 650_000
    assert seconds < 10


def test_a_plan_tells_no_more_of_a_forest_than_its_largest_tree(tmp_path: Path) -> None:
    """Other features, thresholds and shapes of the smaller trees: the same plan."""
    plans = []
    for feature, modes in ((0, ["BRANCH_LEQ", "LEAF", "LEAF"]), (3, ["BRANCH_GT", "LEAF", "LEAF"])):
        changes = {
            "nodes_treeids": STUMP["nodes_treeids"] + [1] * 7,
            "nodes_nodeids": STUMP["nodes_nodeids"] + CRANKED["nodes_nodeids"],
            "nodes_featureids": [feature, 0, 0] + CRANKED["nodes_featureids"],
            "nodes_modes": modes + CRANKED["nodes_modes"],
            "nodes_values": [0.25 * feature, 0.0, 0.0] + CRANKED["nodes_values"],
            "nodes_truenodeids": STUMP["nodes_truenodeids"] + CRANKED["nodes_truenodeids"],
            "nodes_falsenodeids": STUMP["nodes_falsenodeids"] + CRANKED["nodes_falsenodeids"],
        }
        path = regressor(tmp_path, [1.0 + feature, 2.0, 1.0, 2.0, 4.0, 8.0], **changes)
        plans.append(compile_model(path, {"x": (-4.0, 4.0)}).plan.canonical)
    assert plans[0] == plans[1]


def test_a_very_deep_tree_is_refused_soon(tmp_path: Path) -> None:
    """A chain of ten thousand decisions."""
    number = 10_000
    places = range(2 * number + 1)
    nodes = {
        "nodes_treeids": [0] * (2 * number + 1),
        "nodes_nodeids": list(places),
        "nodes_featureids": [0] * (2 * number + 1),
        "nodes_modes": ["BRANCH_LEQ", "LEAF"] * number + ["LEAF"],
        "nodes_values": np.linspace(1, 0, 2 * number + 1).tolist(),
        "nodes_truenodeids": [n + 2 if n % 2 == 0 and n < 2 * number else 0 for n in places],
        "nodes_falsenodeids": [n + 1 if n % 2 == 0 and n < 2 * number else 0 for n in places],
    }
    path = regressor(tmp_path, [1.0] * (number + 1), **nodes)
    start = time.process_time()
    with pytest.raises(ModelError, match="too large"):
        compile_model(path)
    assert time.process_time() - start < 20


@pytest.mark.slow
def test_a_hundred_boosted_trees(tmp_path: Path) -> None:
    x, y = _noise()
    case = Case(lambda: ensemble.GradientBoostingClassifier(n_estimators=100, **SEED), (x, y), zipmap=False)
    path, _ = converted(case, tmp_path)
    assert_agrees(path, {"X": x[:100].astype(np.float32)}, {"X": (-8.0, 8.0)})


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_a_forest_on_many_rows(seed: int, tmp_path: Path) -> None:
    """No row of a few hundred goes another way than in onnxruntime."""
    x, y = _noise()
    case = Case(lambda: ensemble.ExtraTreesRegressor(20, max_depth=8, random_state=seed), (x, y.astype(float)))
    path, _ = converted(case, tmp_path)
    data = np.random.default_rng(seed).standard_normal((300, 20)).astype(np.float32)
    assert_agrees(path, {"X": np.clip(data, -8, 8)}, {"X": (-8.0, 8.0)}, tolerance=1e-5)


def test_of_each_tree_one_leaf_counts(tmp_path: Path) -> None:
    """Boosted trees behind a logarithm's inverse, as of a Poisson loss: all leaves together reach far beyond it."""
    rng = np.random.default_rng(5)
    x = rng.uniform(-4, 4, (300, 4)).astype(np.float32)
    y = 5 + np.sin(x[:, 0]) + 0.3 * x[:, 1]
    model = ensemble.GradientBoostingRegressor(n_estimators=30, max_depth=4, random_state=0).fit(x, y)
    sizes = sum(np.abs(stage[0].tree_.value).sum() for stage in model.estimators_)
    assert sizes > 40  # more than an exponential takes
    boosted = to_onnx(model, x[:1], target_opset={"": 18, "ai.onnx.ml": 3})
    [out] = boosted.graph.output
    boosted.graph.node.append(helper.make_node("Exp", [out.name], ["rate"], name="inverse_link"))
    out.name = "rate"
    path = tmp_path / "boosted.onnx"
    path.write_bytes(boosted.SerializeToString())
    compiled = compile_model(path, {"X": (-4.0, 4.0)})
    [rates], [expected] = encrypted(compiled, {"X": x[:40]}), plaintext(path, {"X": x[:40]})
    assert np.abs(rates - expected).max() < 1e-3 * expected.max()
