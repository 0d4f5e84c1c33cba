"""scikit-learn models as skl2onnx converts them: labels, probabilities, dictionaries."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from skl2onnx import to_onnx
from sklearn import datasets
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LinearRegression, LogisticRegression, Perceptron, Ridge, SGDClassifier
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from tests.support.models import assert_agrees

IRIS, DIGITS, CANCER, DIABETES = (
    getattr(datasets, f"load_{name}")(return_X_y=True) for name in ("iris", "digits", "breast_cancer", "diabetes")
)
NAMED = (IRIS[0], np.array(["setosa", "versicolor", "virginica"])[IRIS[1]])

MODELS: dict[str, tuple[Any, tuple[np.ndarray, np.ndarray]]] = {
    "binary": (make_pipeline(StandardScaler(), LogisticRegression()), CANCER),
    "binary raw": (LogisticRegression(max_iter=50), CANCER),
    "multinomial": (LogisticRegression(), IRIS),
    "named classes": (LogisticRegression(), NAMED),
    "ten classes": (LogisticRegression(max_iter=50), DIGITS),
    "sgd": (make_pipeline(StandardScaler(), SGDClassifier(loss="log_loss", random_state=0)), CANCER),
    "perceptron": (make_pipeline(StandardScaler(), Perceptron()), CANCER),
    "mlp binary": (make_pipeline(StandardScaler(), MLPClassifier((8,), max_iter=40, random_state=0)), CANCER),
    "mlp tanh": (
        make_pipeline(StandardScaler(), MLPClassifier((8, 4), activation="tanh", max_iter=40, random_state=0)),
        CANCER,
    ),
    "mlp logistic": (MLPClassifier((8,), activation="logistic", max_iter=40, random_state=0), IRIS),
    "mlp deep": (make_pipeline(MinMaxScaler(), MLPClassifier((16, 8, 8), max_iter=40, random_state=0)), IRIS),
    "linear": (LinearRegression(), DIABETES),
    "ridge": (make_pipeline(StandardScaler(), Ridge()), DIABETES),
    "mlp regressor": (MLPRegressor(hidden_layer_sizes=(8,), max_iter=40, random_state=0), DIABETES),
}


CASES = [(name, True) for name in MODELS]
CASES += [(name, False) for name, (model, _) in MODELS.items() if hasattr(model, "predict_proba")]


@pytest.mark.parametrize(("name", "dictionaries"), CASES)
def test_converted_model(name: str, dictionaries: bool, tmp_path: Path) -> None:
    """Probabilities as dictionaries, skl2onnx's default, and as a tensor."""
    model, (x, y) = MODELS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(x, y)
    x = x[:: max(1, len(x) // 24)].astype(np.float32)
    options = {id(model): {"zipmap": dictionaries}} if hasattr(model, "predict_proba") else None
    path = tmp_path / "model.onnx"
    path.write_bytes(to_onnx(model, x[:1], options=options).SerializeToString())
    ends = np.exp2(np.ceil(np.log2(np.maximum(np.abs(x).max(axis=0), 2.0**-10))))
    columns = (tuple((-ends).tolist()), tuple(ends.tolist()))
    size = float(np.abs(y).max()) if y.dtype.kind == "f" else 1.0
    compiled = assert_agrees(path, {"X": x}, {"X": columns}, tolerance=1e-3 * size)
    assert max(compiled.errors.values()) < 1e-2 * size
