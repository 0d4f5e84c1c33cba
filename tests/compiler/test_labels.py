"""Labels, categories, look-ups and the simple transformers of ai.onnx.ml, node by node; and what is damaged."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, TensorProto
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import KBinsDiscretizer, OrdinalEncoder, StandardScaler
from sklearn.svm import SVC

from mpc.compiler.compile import compile_model
from mpc.compiler.graph.graph import Shape
from mpc.compiler.operators.context import Context
from mpc.errors import ModelError, MpcError, PlanError
from mpc.plan.parse import parse_plan
from tests.support.effort import FULL
from tests.support.estimators import CANCER, NAMED, WHOLE, WINE, Case, columns, converted
from tests.support.graphs import ml_model, node, save_model
from tests.support.models import assert_agrees, encrypted, plaintext

FLOAT, INT64, STRING = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING
X = np.random.default_rng(1).uniform(-3, 3, (24, 4)).astype(np.float32)
N = np.random.default_rng(2).integers(-3, 4, (24, 4))
RANGE = {"x": (-4.0, 4.0)}
ML = {"domain": "ai.onnx.ml"}

ON_REALS: dict[str, tuple[str, dict[str, Any]]] = {
    "scaler": ("Scaler", {"offset": [1.0, 2.0, -3.0, 0.5], "scale": [0.1, -20.0, 3.0, 1.0]}),
    "scaler, one for all": ("Scaler", {"offset": [0.5], "scale": [3.0]}),
    "largest of a row, with its sign": ("Normalizer", {"norm": "MAX"}),
    "sum of a row": ("Normalizer", {"norm": "L1"}),
    "length of a row": ("Normalizer", {"norm": "L2"}),
    "binarizer": ("Binarizer", {"threshold": 0.75}),
    "imputer of what is not there": ("Imputer", {"imputed_value_floats": [9.0], "replaced_value_float": np.nan}),
    "one regression": ("LinearRegressor", {"coefficients": [0.5, -1.0, 2.0, 0.25], "intercepts": [0.1]}),
    "one regression, transformed": (
        "LinearRegressor",
        {"coefficients": [0.5, -1.0, 2.0, 0.25], "intercepts": [0.1], "post_transform": "LOGISTIC"},
    ),
    "two regressions, transformed": (
        "LinearRegressor",
        {
            "coefficients": [0.5, -1.0, 2.0, 0.25] * 2,
            "intercepts": [0.1, -1.0],
            "targets": 2,
            "post_transform": "SOFTMAX",
        },
    ),
}


@pytest.mark.parametrize("name", ON_REALS)
def test_on_reals(name: str, tmp_path: Path) -> None:
    operator, attributes = ON_REALS[name]
    assert_agrees(ml_model(tmp_path, operator, {"y": FLOAT}, **attributes), {"x": X}, RANGE)


@pytest.mark.parametrize("kind", [FLOAT, INT64])
def test_an_imputer_of_a_number(kind: int, tmp_path: Path) -> None:
    whole = kind == INT64
    names = (
        ("imputed_value_int64s", "replaced_value_int64") if whole else ("imputed_value_floats", "replaced_value_float")
    )
    attributes = {names[0]: [9, 8, 7, 6] if whole else [9.5, 8.5, 7.5, 6.5], names[1]: 2 if whole else 2.0}
    path = ml_model(tmp_path, "Imputer", {"y": kind}, element=kind, **attributes)
    data = N if whole else N.astype(np.float32) + np.where(N == 1, 0.125, 0.0).astype(np.float32)
    assert_agrees(path, {"x": data}, RANGE)


LINEAR: dict[str, tuple[list[float], list[float], list[Any]]] = {
    "one score": ([0.5, -1.0, 2.0, 0.25], [0.1], ["no", "yes"]),
    "two opposite scores": ([0.5, -1.0, 2.0, 0.25, -0.5, 1.0, -2.0, -0.25], [0.1, -0.1], [5, 7]),
    "two scores": ([0.5, -1.0, 2.0, 0.25, 1.0, 1.0, 0.5, -2.0], [0.1, 0.4], [5, 7]),
    "three scores": ([0.5, -1.0, 2.0, 0.25, 1.0, 1.0, 0.5, -2.0, 0.0, 1.0, -1.0, 1.0], [0.1, 0.4, 0.0], [5, 7, 9]),
}


@pytest.mark.parametrize("transform", ["NONE", "LOGISTIC", "SOFTMAX"])
@pytest.mark.parametrize("name", LINEAR)
def test_linear_classifiers(name: str, transform: str, tmp_path: Path) -> None:
    coefficients, intercepts, labels = LINEAR[name]
    text = isinstance(labels[0], str)
    names = {"classlabels_strings" if text else "classlabels_ints": labels, "post_transform": transform}
    outputs = {"label": STRING if text else INT64, "y": FLOAT}
    path = ml_model(tmp_path, "LinearClassifier", outputs, coefficients=coefficients, intercepts=intercepts, **names)
    assert_agrees(path, {"x": X}, RANGE)


# ------------------------------------------------------------------- look-ups


def test_categories_of_reals_are_cut_towards_zero(tmp_path: Path) -> None:
    path = ml_model(tmp_path, "OneHotEncoder", {"y": FLOAT}, cats_int64s=[-2, 0, 3, 1, 2])
    [compiled] = [compile_model(path, RANGE)]
    data = np.concatenate([X, N.astype(np.float32), np.full((1, 4), -0.9, np.float32)])
    [ours] = encrypted(compiled, {"x": data})
    assert (ours == np.stack([np.trunc(data) == c for c in (-2, 0, 3, 1, 2)], axis=-1)).all()


def _encoder(folder: Path, kind: int, **attributes: Any) -> Path:
    return ml_model(folder, "LabelEncoder", {"y": kind}, element=INT64, **attributes)


@pytest.mark.parametrize("keys", [[-2, 1, 3], [0, 1, 2], [3, -3, 0, 1]])
def test_numbers_instead_of_numbers(keys: list[int], tmp_path: Path) -> None:
    values = [0.5 * k - 1 for k in range(len(keys))]
    path = _encoder(tmp_path, FLOAT, keys_int64s=keys, values_floats=values, default_float=7.25)
    assert_agrees(path, {"x": N}, RANGE, tolerance=1e-6)
    path = _encoder(tmp_path, INT64, keys_int64s=keys, values_int64s=[10 * k for k in keys], default_int64=-77)
    assert_agrees(path, {"x": N}, RANGE)


def test_names_instead_of_numbers(tmp_path: Path) -> None:
    path = _encoder(tmp_path, STRING, keys_int64s=[-2, 1, 3], values_strings=["a", "b", "c"], default_string="none")
    [ours], [theirs] = encrypted(compile_model(path, RANGE), {"x": N}), plaintext(path, {"x": N})
    assert (ours == theirs).all() and "none" in ours


def test_many_categories_are_looked_up_in_parts(tmp_path: Path) -> None:
    keys = list(range(-100, 100, 2))
    path = _encoder(tmp_path, INT64, keys_int64s=keys, values_int64s=[k * k for k in keys])
    data = np.random.default_rng(0).integers(-110, 110, (40, 4))
    assert_agrees(path, {"x": data}, {"x": (-128.0, 127.0)})


def _chain(folder: Path, *nodes: onnx.NodeProto, **constants: np.ndarray) -> Path:
    """A classifier of three classes and what is computed from its place."""
    weight = np.random.default_rng(4).standard_normal((4, 3)).astype(np.float32)
    first = [node("MatMul", ["x", "w"], ["s"]), node("ArgMax", ["s"], ["i"], axis=1, keepdims=0)]
    return save_model(folder, [*first, *nodes], {"w": weight, **constants})


def test_entries_of_a_table_of_numbers(tmp_path: Path) -> None:
    take = node("ArrayFeatureExtractor", ["t", "i"], ["y"], **ML)
    for rows in (1, 2):
        t = np.array([[0.5, -1.25, 7.0], [1.0, 2.0, 3.5]], dtype=np.float32)[:rows]
        path = _chain(tmp_path, take, node("Transpose", ["y"], ["z"], perm=[1, 0]), t=t)
        model = onnx.load(path)
        model.graph.output[0].name = "z"
        path.write_bytes(model.SerializeToString())
        assert_agrees(path, {"x": X}, RANGE, tolerance=1e-6)


def test_class_numbers_are_computed_with(tmp_path: Path) -> None:
    """A label is a place until something reads it as a number."""
    take = node("ArrayFeatureExtractor", ["t", "i"], ["l"], **ML)
    cast, flat = node("Cast", ["l"], ["f"], to=FLOAT), node("Reshape", ["h", "rows"], ["y"])
    constants = {"t": np.array([3, 10, -4]), "half": np.array(0.5, np.float32), "rows": np.array([-1])}
    path = _chain(tmp_path, take, cast, node("Mul", ["f", "half"], ["h"]), flat, **constants)
    assert_agrees(path, {"x": X}, RANGE)


def test_a_question_adds_no_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Handlers find numbers where labels stood; asking for a shape makes none."""
    asked, ask = [], Context.secret

    def secret(state: Context, name: str) -> Shape:
        before = len(state.nodes)
        shape = ask(state, name)
        asked.append((name, len(state.nodes) - before, name in state.decoded))
        return shape

    monkeypatch.setattr(Context, "secret", secret)
    take = node("ArrayFeatureExtractor", ["t", "i"], ["l"], **ML)
    constants = {"t": np.array([3, 10, -4]), "two": np.array(2), "rows": np.array([-1])}
    doubled, flat = node("Mul", ["l", "two"], ["d"]), node("Reshape", ["d", "rows"], ["y"])
    path = _chain(tmp_path, take, doubled, flat, **constants)
    compile_model(path, ranges=RANGE)
    assert {added for _, added, _ in asked} == {0} and ("l", 0, False) in asked


PRINTABLE = ["", " a  b ", "größe", "日本語", "نعم", "e\u0301", "no\u00a0break", "👍", "'[bold]\"\\", "ﬁ", "x" * 300]
STEERING = [
    "x\x1b[2K",
    "x\ny",
    "\x00",
    "\t",
    "x\u202eyx",
    "a\u200bb",
    "\u2066",
    "\ufeff",
    "a\u2028b",
    "\ue000",
    "\x9b1m",
]


def test_labels_are_any_printable_text(tmp_path: Path) -> None:
    """As they are in the model, spaces, marks and all; as class names and as keys of dictionaries."""
    weights = np.random.default_rng(3).uniform(-1, 1, (len(PRINTABLE), 4)).astype(np.float32)
    given = {"coefficients": weights.ravel().tolist(), "intercepts": [0.0] * len(PRINTABLE)}
    path = ml_model(tmp_path, "LinearClassifier", {"label": STRING, "y": FLOAT}, classlabels_strings=PRINTABLE, **given)
    assert_agrees(path, {"x": X}, RANGE)
    plan = compile_model(path, RANGE).plan
    assert plan.outputs[0].labels == tuple(PRINTABLE) and parse_plan(plan.canonical) == plan
    keys = PRINTABLE[:4]
    path = ml_model(tmp_path, "ZipMap", {"y": FLOAT}, classlabels_strings=keys)
    assert compile_model(path, RANGE).plan.outputs[0].keys == tuple(keys)


@pytest.mark.parametrize("bad", STEERING)
def test_security_34_labels_that_steer_are_refused(bad: str, tmp_path: Path) -> None:
    """When the model is compiled, and by everyone who reads a plan: programs print labels as they are."""
    linear = {"coefficients": [0.5, -1.0, 2.0, 0.25], "intercepts": [0.1]}
    classes: list[tuple[str, dict[str, int], dict[str, Any], str]] = [
        ("LinearClassifier", {"label": STRING, "y": FLOAT}, linear, "labels"),
        ("ZipMap", {"y": FLOAT}, {}, "keys"),
    ]
    for operator, outputs, attributes, place in classes:
        names = ["good", *(["fair", "poor"] if place == "keys" else [])]
        path = ml_model(tmp_path, operator, outputs, classlabels_strings=[*names, bad], **attributes)
        with pytest.raises(ModelError, match="class label") as caught:
            compile_model(path, RANGE)
        assert caught.value.remedy and str(caught.value).isascii() and str(caught.value).isprintable()
        path = ml_model(tmp_path, operator, outputs, classlabels_strings=[*names, "last"], **attributes)
        content = json.loads(compile_model(path, RANGE).plan.canonical)
        content["outputs"][0][place][-1] = bad
        with pytest.raises(PlanError, match="is refused") as refused:
            parse_plan(json.dumps(content, sort_keys=True, separators=(",", ":")).encode())
        assert str(refused.value).isascii() and str(refused.value).isprintable()


def test_class_names_are_not(tmp_path: Path) -> None:
    take = node("ArrayFeatureExtractor", ["t", "i"], ["l"], **ML)
    path = _chain(tmp_path, take, node("Concat", ["l", "l"], ["y"], axis=0), t=np.array(["a", "b", "c"]))
    with pytest.raises(ModelError, match="class names"):
        compile_model(path)


def test_labels_in_other_words(tmp_path: Path) -> None:
    take = node("ArrayFeatureExtractor", ["t", "i"], ["l"], **ML)
    names = {"keys_int64s": [3, 10], "values_strings": ["three", "ten"]}
    path = _chain(tmp_path, take, node("LabelEncoder", ["l"], ["y"], **ML, **names), t=np.array([3, 10, -4]))
    model = onnx.load(path)
    model.graph.output[0].type.tensor_type.elem_type = STRING
    path.write_bytes(model.SerializeToString())
    [ours], [theirs] = encrypted(compile_model(path, RANGE), {"x": X}), plaintext(path, {"x": X})
    assert (ours == theirs).all() and set(ours.reshape(-1)) <= {"three", "ten", "_Unused"}


REFUSED: dict[str, tuple[str, dict[str, Any]]] = {
    "a scale too few": ("Scaler", {"offset": [1.0] * 4, "scale": [1.0] * 3}),
    "an infinite scale": ("Scaler", {"offset": [1.0], "scale": [np.inf]}),
    "a norm that is none": ("Normalizer", {"norm": "L3"}),
    "a value too few": ("Imputer", {"imputed_value_floats": [1.0, 2.0], "replaced_value_float": 1.0}),
    "no categories": ("OneHotEncoder", {}),
    "a category twice": ("OneHotEncoder", {"cats_int64s": [1, 2, 1]}),
    "categories that are strings": ("OneHotEncoder", {"cats_strings": ["a"]}),
    "no keys": ("LabelEncoder", {"values_floats": [1.0]}),
    "a key twice": ("LabelEncoder", {"keys_floats": [1.0, 1.0], "values_floats": [1.0, 2.0]}),
    "a value too many": ("LabelEncoder", {"keys_floats": [1.0], "values_floats": [1.0, 2.0]}),
    "values that would be rounded": ("LabelEncoder", {"keys_floats": [1.0, 2.0], "values_floats": [1.0, 2.0**40]}),
    "keys for names": ("LabelEncoder", {"keys_strings": ["a"], "values_floats": [1.0]}),
    "columns too many": ("FeatureVectorizer", {"inputdimensions": [5]}),
    "a coefficient too few": ("LinearRegressor", {"coefficients": [1.0] * 3}),
    "an intercept too many": ("LinearRegressor", {"coefficients": [1.0] * 4, "intercepts": [1.0, 2.0]}),
    "probits": ("LinearRegressor", {"coefficients": [1.0] * 4, "post_transform": "PROBIT"}),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str, tmp_path: Path) -> None:
    operator, attributes = REFUSED[name]
    with pytest.raises(ModelError) as caught:
        compile_model(ml_model(tmp_path, operator, {"y": FLOAT}, **attributes), RANGE)
    assert caught.value.node is None or caught.value.operator == operator


@pytest.mark.parametrize("places", [[4], [-1], [0, 7]])
def test_columns_that_are_not_there(places: list[int], tmp_path: Path) -> None:
    path = ml_model(tmp_path, "ArrayFeatureExtractor", {"y": FLOAT}, constants={"i": np.array(places)})
    with pytest.raises(ModelError, match="columns"):
        compile_model(path)


# ------------------------------------------------------------------- damage

DAMAGED = {
    "forest": Case(lambda: RandomForestClassifier(3, max_depth=3, random_state=0), WINE, zipmap=True),
    "boosting": Case(lambda: GradientBoostingClassifier(n_estimators=3, random_state=0), CANCER, zipmap=False),
    "vectors": Case(lambda: make_pipeline(StandardScaler(), SVC(kernel="linear")), CANCER, zipmap=False),
    "classes": Case(LogisticRegression, NAMED, zipmap=True),
    "categories": Case(OrdinalEncoder, WHOLE),
    "bins": Case(lambda: KBinsDiscretizer(3, encode="onehot-dense"), NAMED),
}
_WORDS = [b"", b"LEAF", b"BRANCH_EQ", b"\xff\xfe", b"SOFTMAX", b"RBF", b"x" * 100]


def _damage(made: onnx.NodeProto, draw: random.Random) -> None:
    """One attribute of a node, or one entry of it."""
    if not made.attribute:
        return
    one = draw.choice(list(made.attribute))
    entries = {AttributeProto.INTS: one.ints, AttributeProto.FLOATS: one.floats, AttributeProto.STRINGS: one.strings}
    values: dict[int, list[Any]] = {
        AttributeProto.INTS: [-1, 0, 1, 2, 1 << 40, -(1 << 62)],
        AttributeProto.FLOATS: [np.nan, np.inf, 0.0, -1e30, 3e38],
        AttributeProto.STRINGS: _WORDS,
    }
    kind = draw.randrange(6)
    if kind == 0:
        made.attribute.remove(one)
    elif one.type == AttributeProto.INT:
        one.i = draw.choice([-1, 0, 1, 7, 1 << 40])
    elif one.type == AttributeProto.FLOAT:
        one.f = draw.choice([np.nan, np.inf, -1.0, 1e38])
    elif one.type == AttributeProto.STRING:
        one.s = draw.choice(_WORDS)
    elif one.type in entries and len(entries[one.type]):
        place = draw.randrange(len(entries[one.type]))
        if kind == 1:
            del entries[one.type][place]
        elif kind == 2:
            entries[one.type].append(entries[one.type][place])
        else:
            entries[one.type][place] = draw.choice(values[one.type])


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_attributes_are_refused_or_compile(name: str, tmp_path: Path) -> None:
    """Whatever an attribute says: a refusal in our own words, or a plan."""
    path, x = converted(DAMAGED[name], tmp_path)
    whole, draw = path.read_bytes(), random.Random(7)
    for _ in range(400 if FULL else 40):
        model = onnx.load_model_from_string(whole)
        made = [n for n in model.graph.node if n.domain == "ai.onnx.ml"]
        for _ in range(draw.choice([1, 1, 2])):
            _damage(draw.choice(made), draw)
        path.write_bytes(model.SerializeToString())
        try:
            compile_model(path, {"X": columns(x)})
        except MpcError as error:
            assert str(error)
