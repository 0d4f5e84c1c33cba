"""Support vector machines: scikit-learn's, and some made by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto
from sklearn import svm
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mpc.compiler.compile import compile_model
from mpc.errors import ModelError
from tests.support.estimators import CANCER, DIABETES, IRIS, NAMED, WINE, Case, assert_case_agrees, converted
from tests.support.graphs import ml_model
from tests.support.models import assert_agrees

FLOAT, INT64, STRING = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING


def scaled(model):  # type: ignore[no-untyped-def]
    return make_pipeline(StandardScaler(), model)


COUPLED = 6e-3
"""onnxruntime iterates for the probabilities of a pair, and stops at an error of 0.0025."""

OFTEN = {
    "linear": Case(lambda: scaled(svm.SVC(kernel="linear")), CANCER, zipmap=False),
    "linear, three named classes": Case(lambda: svm.SVC(kernel="linear"), NAMED, zipmap=False),
    "radial": Case(lambda: scaled(svm.SVC()), WINE, zipmap=False),
    "linear regressor": Case(lambda: svm.SVR(kernel="linear"), DIABETES),
    "radial regressor": Case(lambda: scaled(svm.SVR()), (DIABETES[0][::4], DIABETES[1][::4])),
    "one class": Case(lambda: svm.OneClassSVM(kernel="linear"), IRIS),
}

RARELY = {
    "pairs": Case(lambda: svm.SVC(kernel="linear", decision_function_shape="ovo"), IRIS, zipmap=False),
    "radial, two classes": Case(lambda: scaled(svm.SVC()), CANCER, zipmap=False),
    "polynomial": Case(lambda: scaled(svm.SVC(kernel="poly")), CANCER, zipmap=False),
    "polynomial of degree two": Case(lambda: svm.SVC(kernel="poly", degree=2, coef0=1.0), IRIS, zipmap=False),
    "sigmoid": Case(lambda: scaled(svm.SVC(kernel="sigmoid")), CANCER, zipmap=False),
    "nu": Case(lambda: scaled(svm.NuSVC(kernel="linear")), WINE, zipmap=False),
    "nu, radial": Case(lambda: scaled(svm.NuSVC()), CANCER, zipmap=False),
    "polynomial regressor": Case(lambda: scaled(svm.SVR(kernel="poly")), DIABETES),
    "nu regressor": Case(lambda: scaled(svm.NuSVR()), DIABETES),
    "probabilities": Case(
        lambda: scaled(svm.SVC(kernel="linear", probability=True, random_state=0)), CANCER, False, COUPLED
    ),
}


@pytest.mark.parametrize("name", OFTEN)
def test_estimator(name: str, tmp_path: Path) -> None:
    assert_case_agrees(OFTEN[name], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", RARELY)
def test_another_estimator(name: str, tmp_path: Path) -> None:
    assert_case_agrees(RARELY[name], tmp_path)


def test_a_linear_kernel_is_one_product(tmp_path: Path) -> None:
    """However many vectors there are."""
    compiled = assert_case_agrees(OFTEN["linear regressor"], tmp_path)
    assert [compiled.plan.wire[gate.out].shape for gate in compiled.plan.weights] == [(10, 1), (1,)]


def test_probabilities_of_three_classes_are_refused(tmp_path: Path) -> None:
    path, _ = converted(Case(lambda: svm.SVC(probability=True), IRIS, zipmap=False), tmp_path)
    with pytest.raises(ModelError, match="probability=False") as caught:
        compile_model(path)
    assert (caught.value.operator, caught.value.attribute) == ("SVMClassifier", "prob_a")


# ------------------------------------------------------------------- by hand

X = np.random.default_rng(1).uniform(-2, 2, (24, 4)).astype(np.float32)
VECTORS = np.random.default_rng(2).uniform(-1, 1, (6, 4)).reshape(-1).tolist()
WEIGHTS = np.random.default_rng(3).uniform(-1, 1, 12).tolist()


def machine(folder: Path, **changes: Any) -> Path:
    """Three classes of two vectors each, unless told."""
    settings: dict[str, Any] = {
        "classlabels_ints": [3, 5, 8],
        "coefficients": WEIGHTS,
        "kernel_params": [0.4, 0.5, 3.0],
        "kernel_type": "LINEAR",
        "rho": [0.1, -0.2, 0.3],
        "support_vectors": VECTORS,
        "vectors_per_class": [2, 2, 2],
        **changes,
    }
    kept = {name: value for name, value in settings.items() if value is not None}
    label = STRING if "classlabels_strings" in changes else INT64
    return ml_model(folder, "SVMClassifier", {"label": label, "y": FLOAT}, **kept)


def regressor(folder: Path, **changes: Any) -> Path:
    settings: dict[str, Any] = {
        "coefficients": WEIGHTS[:6],
        "kernel_params": [0.4, 0.5, 3.0],
        "kernel_type": "LINEAR",
        "n_supports": 6,
        "rho": [0.1],
        "support_vectors": VECTORS,
        **changes,
    }
    kept = {name: value for name, value in settings.items() if value is not None}
    return ml_model(folder, "SVMRegressor", {"y": FLOAT}, **kept)


@pytest.mark.parametrize("kernel", ["LINEAR", "RBF", "POLY", "SIGMOID"])
def test_kernels(kernel: str, tmp_path: Path) -> None:
    assert_agrees(machine(tmp_path, kernel_type=kernel), {"x": X}, {"x": (-2.0, 2.0)})
    assert_agrees(regressor(tmp_path, kernel_type=kernel), {"x": X}, {"x": (-2.0, 2.0)})


@pytest.mark.parametrize("transform", ["NONE", "LOGISTIC", "SOFTMAX"])
@pytest.mark.parametrize("classes", [2, 3])
def test_transforms(classes: int, transform: str, tmp_path: Path) -> None:
    two = {"classlabels_ints": [3, 5], "vectors_per_class": [2, 4], "coefficients": WEIGHTS[:6], "rho": [0.1]}
    path = machine(tmp_path, post_transform=transform, **(two if classes == 2 else {}))
    assert_agrees(path, {"x": X}, {"x": (-2.0, 2.0)})


def test_probabilities_of_two_classes_are_the_fitted_sigmoid_and_a_note_says_what_others_tell(tmp_path: Path) -> None:
    """onnxruntime's are up to 0.005 away from it."""
    two = {"classlabels_ints": [3, 5], "vectors_per_class": [2, 4], "coefficients": WEIGHTS[:6], "rho": [0.1]}
    path = machine(tmp_path, prob_a=[-1.5], prob_b=[0.3], **two)
    assert_agrees(path, {"x": X}, {"x": (-2.0, 2.0)}, tolerance=5.1e-3)
    [text] = compile_model(path, {"x": (-2.0, 2.0)}).messages
    assert "0.005" in text and "scikit-learn" in text


def test_without_vectors(tmp_path: Path) -> None:
    none = {"vectors_per_class": None, "support_vectors": None, "rho": [0.25]}
    assert_agrees(machine(tmp_path, **none), {"x": X}, {"x": (-2.0, 2.0)})
    none = {"n_supports": 0, "support_vectors": None, "coefficients": WEIGHTS[:4]}
    assert_agrees(regressor(tmp_path, **none), {"x": X}, {"x": (-2.0, 2.0)})


def test_one_class(tmp_path: Path) -> None:
    assert_agrees(regressor(tmp_path, one_class=1), {"x": X}, {"x": (-2.0, 2.0)})


BROKEN: dict[str, dict[str, Any]] = {
    "a vector too few": {"support_vectors": VECTORS[:-4]},
    "a coefficient too few": {"coefficients": WEIGHTS[:-1]},
    "a class too few": {"classlabels_ints": [3, 5]},
    "vectors of a class that is not there": {"vectors_per_class": [2, 2, 1, 1]},
    "fewer than no vectors": {"vectors_per_class": [4, 4, -2]},
    "no offsets": {"rho": [0.1]},
    "a kernel that is none": {"kernel_type": "WAVE"},
    "a kernel without parameters": {"kernel_type": "RBF", "kernel_params": [0.1]},
    "a negative width": {"kernel_type": "RBF", "kernel_params": [-0.1, 0.0, 3.0]},
    "a degree between": {"kernel_type": "POLY", "kernel_params": [0.4, 0.5, 2.5]},
    "an infinite vector": {"support_vectors": [np.inf, *VECTORS[1:]]},
    "probits": {"post_transform": "PROBIT"},
    "probabilities of three": {"prob_a": [1.0, 1.0, 1.0], "prob_b": [0.0, 0.0, 0.0]},
    "one class": {"classlabels_ints": [3]},
    "two classes without vectors": {
        "classlabels_ints": [3, 5],
        "vectors_per_class": None,
        "support_vectors": None,
        "coefficients": WEIGHTS[:8],
    },
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_machine_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        compile_model(machine(tmp_path, **BROKEN[name]), {"x": (-2.0, 2.0)})
    assert caught.value.operator == "SVMClassifier" and caught.value.node == "svmclassifier"


@pytest.mark.parametrize(
    "changes",
    [{"coefficients": WEIGHTS[:5]}, {"n_supports": 5}, {"support_vectors": None}, {"rho": None}],
)
def test_a_broken_regressor_is_refused(changes: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        compile_model(regressor(tmp_path, **changes), {"x": (-2.0, 2.0)})
