"""Pipelines for tables, as companies have them, on columns of very different size."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import skl2onnx.common.tree_ensemble
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType, Int64TensorType
from sklearn import ensemble, linear_model, svm
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.impute import SimpleImputer
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    KBinsDiscretizer,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    RobustScaler,
    StandardScaler,
)
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from tests.support.tables import generator, payments

NAMES = ("when", "amount", "rate", "age", "code", "count")
ROWS = 400
OPSETS = {"": 18, "ai.onnx.ml": 3}
NUMBERS, CODE = [0, 1, 2, 3, 5], [4]


@dataclass(frozen=True)
class Table:
    """Six columns in float32, a class of two, one of three, and a value for each row."""

    x: np.ndarray
    two: np.ndarray
    three: np.ndarray
    value: np.ndarray


def table(rows: int = ROWS) -> Table:
    x, two, value = payments(5, rows)
    rng = generator(6)
    age, code = rng.integers(18, 95, rows), rng.integers(0, 4, rows)
    more = np.stack([age, code, rng.poisson(300, rows)], 1).astype(np.float32)
    value = value + 2 * age - 40 * (code == 2)
    return Table(np.concatenate([x, more], 1), two, np.digitize(value, np.quantile(value, [0.3, 0.7])), value)


def scaled(model: Any) -> Any:
    return make_pipeline(StandardScaler(), model)


def mixed(model: Any) -> Any:
    """Every kind of column its own way."""
    steps = [
        ("scaled", StandardScaler(), [0, 1, 3, 5]),
        ("least and largest", MinMaxScaler(), [2]),
        ("code", OneHotEncoder(sparse_output=False), CODE),
    ]
    return make_pipeline(ColumnTransformer(steps), model)


def some() -> list[tuple[str, Any]]:
    return [
        ("a", scaled(linear_model.LogisticRegression())), ("b", DecisionTreeClassifier(max_depth=4, random_state=0)),
    ]  # fmt: skip


def regressors() -> list[tuple[str, Any]]:
    return [("a", scaled(linear_model.Ridge())), ("b", DecisionTreeRegressor(max_depth=4, random_state=0))]


Logistic = linear_model.LogisticRegression
PIPELINES: dict[str, tuple[Callable[[], Any], str]] = {
    "logistic regression": (lambda: scaled(Logistic()), "two"),
    "logistic regression, three classes": (lambda: scaled(Logistic()), "three"),
    "columns, logistic regression": (lambda: mixed(Logistic()), "two"),
    "columns, linear regression": (lambda: mixed(linear_model.LinearRegression()), "value"),
    "robust scaler, ridge": (lambda: make_pipeline(RobustScaler(), linear_model.Ridge()), "value"),
    "ridge on raw columns": (lambda: linear_model.Ridge(), "value"),
    "lasso": (lambda: scaled(linear_model.Lasso(0.1)), "value"),
    "forest": (lambda: ensemble.RandomForestClassifier(20, max_depth=7, random_state=0), "two"),
    "forest, three classes": (lambda: ensemble.RandomForestClassifier(15, max_depth=6, random_state=0), "three"),
    "forest of values": (lambda: ensemble.RandomForestRegressor(15, max_depth=6, random_state=0), "value"),
    "extra trees": (lambda: ensemble.ExtraTreesClassifier(15, max_depth=6, random_state=0), "two"),
    "columns, forest": (lambda: mixed(ensemble.RandomForestClassifier(10, max_depth=5, random_state=0)), "three"),
    "boosting": (lambda: ensemble.GradientBoostingClassifier(n_estimators=20, random_state=0), "two"),
    "boosting, three classes": (lambda: ensemble.GradientBoostingClassifier(n_estimators=8, random_state=0), "three"),
    "boosting of values": (lambda: ensemble.GradientBoostingRegressor(n_estimators=20, random_state=0), "value"),
    "histogram boosting": (lambda: ensemble.HistGradientBoostingClassifier(max_iter=10, max_leaf_nodes=15), "two"),
    "histogram boosting of values": (
        lambda: ensemble.HistGradientBoostingRegressor(max_iter=10, max_leaf_nodes=15), "value",
    ),
    "ada boost": (
        lambda: ensemble.AdaBoostClassifier(DecisionTreeClassifier(max_depth=2), n_estimators=5, random_state=0), "two",
    ),
    "bagging": (
        lambda: ensemble.BaggingClassifier(DecisionTreeClassifier(max_depth=4), n_estimators=5, random_state=0), "two",
    ),
    "isolation forest": (lambda: ensemble.IsolationForest(n_estimators=10, max_samples=32, random_state=0), "none"),
    "sgd": (lambda: scaled(linear_model.SGDClassifier(loss="log_loss", random_state=0)), "two"),
    "svr, rbf": (lambda: make_pipeline(StandardScaler(), svm.SVR(C=10.0)), "few values"),
    "svc, rbf": (lambda: make_pipeline(StandardScaler(), svm.SVC()), "few"),
    "neighbours": (lambda: make_pipeline(StandardScaler(), KNeighborsClassifier(3)), "few"),
    "neighbours of values": (lambda: make_pipeline(StandardScaler(), KNeighborsRegressor(3)), "few values"),
    "mlp": (lambda: scaled(MLPClassifier(hidden_layer_sizes=(12,), max_iter=80, random_state=0)), "three"),
    "mlp of values": (lambda: scaled(MLPRegressor(hidden_layer_sizes=(12,), activation="tanh", max_iter=80)), "value"),
    "pca": (lambda: make_pipeline(StandardScaler(), PCA(3), Logistic()), "two"),
    "polynomials, scaled": (lambda: make_pipeline(MinMaxScaler(), PolynomialFeatures(2), Logistic()), "two"),
    "bins": (
        lambda: make_pipeline(KBinsDiscretizer(4, encode="onehot-dense", strategy="uniform"), Logistic()), "two",
    ),
    "ordinal code": (
        lambda: make_pipeline(
            ColumnTransformer([("n", StandardScaler(), NUMBERS), ("c", OrdinalEncoder(), CODE)]), Logistic()
        ),
        "two",
    ),
    "imputer of zeros": (lambda: make_pipeline(SimpleImputer(missing_values=0.0), StandardScaler(), Logistic()), "two"),
    "lda": (lambda: scaled(LinearDiscriminantAnalysis()), "three"),
    "gaussian bayes": (lambda: scaled(GaussianNB()), "two"),
    "k-means": (lambda: scaled(KMeans(3, random_state=0, n_init=1)), "none"),
    "calibrated": (lambda: scaled(CalibratedClassifierCV(svm.LinearSVC(random_state=0), cv=2)), "two"),
    "soft votes": (lambda: ensemble.VotingClassifier(some(), voting="soft", flatten_transform=False), "two"),
    "stacked": (lambda: ensemble.StackingClassifier(some(), cv=2), "two"),
    "votes of regressors": (lambda: ensemble.VotingRegressor(regressors()), "value"),
    "stacked regressors": (lambda: ensemble.StackingRegressor(regressors(), cv=2), "value"),
}  # fmt: skip


def fitted(name: str) -> tuple[Any, np.ndarray]:
    """(the fitted model, rows that it has not seen)"""
    make, kind = PIPELINES[name]
    known = table()
    step = 8 if kind.startswith("few") else 1
    y = {"two": known.two, "three": known.three, "value": known.value, "few": known.two, "few values": known.value}
    x = known.x.astype(np.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        half = slice(0, ROWS // 2 if step == 1 else ROWS, step)
        model = make().fit(x[half], *([y[kind][half]] if kind in y else []))
    return model, known.x[ROWS // 2 :]


def exported(model: Any, x: np.ndarray, folder: Path, apart: bool = False) -> tuple[Path, dict[str, np.ndarray]]:
    """The model as a file, and its feeds; `apart`: one input a column, whole numbers as int64, as of a data frame."""
    options = {id(model): {"zipmap": False}} if hasattr(model, "predict_proba") else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if apart:
            kinds = [
                Int64TensorType([None, 1]) if n in ("age", "code", "count") else FloatTensorType([None, 1])
                for n in NAMES
            ]
            made = skl2onnx.convert_sklearn(
                model, initial_types=list(zip(NAMES, kinds, strict=True)), options=options, target_opset=OPSETS
            )
            feeds = {
                name: x[:, [i]].astype(np.int64 if isinstance(kind, Int64TensorType) else np.float32)
                for i, (name, kind) in enumerate(zip(NAMES, kinds, strict=True))
            }
        else:
            made, feeds = to_onnx(model, x[:1], options=options, target_opset=OPSETS), {"X": x}
    path = folder / "model.onnx"
    path.write_bytes(made.SerializeToString())
    return path, feeds
