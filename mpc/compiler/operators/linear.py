"""Linear models of ai.onnx.ml, as skl2onnx writes those of scikit-learn."""

from __future__ import annotations

import numpy as np

from mpc.compiler.operators.context import Context, ModelNode, Settings
from mpc.compiler.operators.labels import ML, labels_of, read_as
from mpc.compiler.operators.registry import handles
from mpc.compiler.operators.scores import above, largest, pair, require_classes, transform_of, transformed


def table(state: Context, x: str) -> tuple[str, int]:
    """Return a table (a value of one row an example, its number of columns)."""
    shape = state.secret(x)
    if len(shape) != 2:
        raise state.origin.refuse(
            f"its input has shape {shape}; rows and columns are needed",
            remedy=(
                "put a Reshape or Flatten before it that gives (rows, features); --shape "
                "NAME=batch,FEATURES, if the model leaves the shape open"
            ),
        )
    return x, state.size(shape, 1, "a model's features")


@handles("LinearClassifier", domain=ML)
def linear_classifier(state: Context, node: ModelNode, settings: Settings) -> None:
    """Classify; two opposite scores, as of a logistic regression, are computed once."""
    labels = labels_of(settings, "classlabels_ints", "classlabels_strings")
    require_classes(state, labels, "classlabels_ints")
    transform = transform_of(state, settings)
    weight, bias = _coefficients(state, node, settings, None)
    number = weight.shape[1]
    opposite = number == 2 and (weight[:, 0] == -weight[:, 1]).all() and bias[0] == -bias[1]
    if number == 1 or (opposite and transform != "SOFTMAX"):
        if len(labels) != 2:
            raise state.origin.refuse(
                f"one row of coefficients for {len(labels)} classes",
                attribute="coefficients",
                remedy="give one row of coefficients a class; one row is enough for two classes only",
            )
        score = state.affine(node.input[0], weight[:, -1:], bias[-1:])
        index = above(state, score)
        pair(state, score, transform, node.output[1], whole=number == 1)
    else:
        if number > len(labels):
            raise state.origin.refuse(
                f"{number} rows of coefficients for {len(labels)} classes",
                remedy="give one class label for each row of coefficients",
            )
        scores = state.affine(node.input[0], weight, bias)
        index = largest(state, scores, exact=False)
        transformed(state, scores, transform, node.output[1])
    read_as(state, node.output[0], index, labels, state.shapes[index][:-1])


@handles("LinearRegressor", domain=ML)
def linear_regressor(state: Context, node: ModelNode, settings: Settings) -> None:
    """Regress; one target alone is not transformed, in onnxruntime."""
    targets, transform = int(settings.get("targets", 1)), transform_of(state, settings)
    weight, bias = _coefficients(state, node, settings, targets)
    result = state.affine(node.input[0], weight, bias)
    transformed(state, result, transform if targets > 1 else "NONE", node.output[0])


def _coefficients(
    state: Context, node: ModelNode, settings: Settings, number: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """(features, scores), (scores,)"""
    _, features = table(state, node.input[0])
    weight = np.array(settings.get("coefficients", ()), dtype=np.float64)
    rows = weight.size // features if number is None else number
    if rows < 1 or weight.size != rows * features:
        raise state.origin.refuse(
            f"{weight.size} coefficients for {features} features" + (f" and {number} targets" if number else ""),
            attribute="coefficients",
            remedy=(
                "give one coefficient for each feature and score, and check the input's number of "
                "columns (--shape NAME=batch,FEATURES)"
            ),
        )
    bias = np.array(settings.get("intercepts") or np.zeros(rows), dtype=np.float64)
    if bias.size != rows:
        raise state.origin.refuse(
            f"{bias.size} intercepts for {rows} scores",
            attribute="intercepts",
            remedy=f"give {rows} intercepts, or none",
        )
    return weight.reshape(rows, features).T, bias
