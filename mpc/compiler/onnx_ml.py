"""scikit-learn's operators (ai.onnx.ml), as skl2onnx writes them.

Handlers are registered as in `onnx_nodes`; `HANDLERS`, taken from here, has all of both.
Labels and dictionaries are how a recipient reads an output; nothing can be computed from them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from mpc.compiler.onnx_nodes import HANDLERS, Settings, affine, handles, scale, softmax_of

if TYPE_CHECKING:
    from mpc.compiler.onnx_import import Importer

__all__ = ["HANDLERS"]

_ML = "ai.onnx.ml"


@handles("Scaler", domain=_ML)
def scaler(state: Importer, node: onnx.NodeProto, settings: Settings) -> None:
    weight = np.array(settings.get("scale", [1.0]), dtype=np.float64)
    offset = np.array(settings.get("offset", [0.0]), dtype=np.float64)
    scale(state, node.input[0], node.output[0], weight, -offset * weight)


def _labels(settings: Settings, integers: str, strings: str) -> tuple[int | str, ...]:
    if settings.get(strings):
        return tuple(entry.decode() for entry in settings[strings])
    return tuple(int(entry) for entry in settings.get(integers, ()))


@handles("LinearClassifier", domain=_ML)
def linear_classifier(state: Importer, node: onnx.NodeProto, settings: Settings) -> None:
    labels = _labels(settings, "classlabels_ints", "classlabels_strings")
    transform = settings.get("post_transform", b"NONE").decode()
    if transform not in ("NONE", "LOGISTIC", "SOFTMAX"):
        raise state.origin.refuse(f"the transform {transform} is not supported", attribute="post_transform")
    features = int(state.secret(node.input[0])[-1])
    weight = np.array(settings["coefficients"], dtype=np.float64).reshape(-1, features).T
    bias = np.array(settings.get("intercepts", np.zeros(weight.shape[1])), dtype=np.float64)
    if weight.shape[1] != len(labels):
        raise state.origin.refuse(f"{weight.shape[1]} rows of coefficients for {len(labels)} classes")
    scores = affine(state, node.input[0], None, weight, bias)
    out = node.output[1]
    if transform == "NONE":
        state.alias(out, scores)
    elif transform == "LOGISTIC":
        state.emit("function", (scores,), out, state.shapes[scores], name="sigmoid")
        opposite = len(labels) == 2 and (weight[:, 0] == -weight[:, 1]).all() and bias[0] == -bias[1]
        if opposite:
            state.facts[out] = "probabilities"
    else:
        softmax_of(state, scores, out)
    index = state.emit("argmax", (scores,), None, (*state.shapes[scores][:-1], 1), last=False)
    dtype = "string" if isinstance(labels[0], str) else "int64"
    state.decode(node.output[0], index, shape=state.shapes[scores][:-1], dtype=dtype, labels=labels)


@handles("LinearRegressor", domain=_ML)
def linear_regressor(state: Importer, node: onnx.NodeProto, settings: Settings) -> None:
    transform = settings.get("post_transform", b"NONE").decode()
    if transform != "NONE":
        raise state.origin.refuse(f"the transform {transform} is not supported", attribute="post_transform")
    targets = int(settings.get("targets", 1))
    weight = np.array(settings["coefficients"], dtype=np.float64).reshape(targets, -1).T
    bias = np.array(settings.get("intercepts", np.zeros(targets)), dtype=np.float64)
    affine(state, node.input[0], node.output[0], weight, bias)


@handles("Normalizer", domain=_ML)
def normalizer(state: Importer, node: onnx.NodeProto, settings: Settings) -> None:
    norm = settings.get("norm", b"MAX").decode()
    if norm != "L1" or state.facts.get(node.input[0]) != "probabilities":
        raise state.origin.refuse("only the L1 norm of what already sums to one is supported yet", attribute="norm")
    state.alias(node.output[0], node.input[0])


@handles("ArrayFeatureExtractor", domain=_ML)
def array_feature_extractor(state: Importer, node: onnx.NodeProto, settings: Settings) -> None:
    if not state.is_constant(node.input[0]) or state.facts.get(node.input[1]) != "index":
        raise state.origin.refuse("only class labels chosen by an ArgMax are supported yet")
    classes = state.constant(node.input[0], "the array").reshape(-1)
    text = classes.dtype.kind in "OSU"
    labels = tuple(_text(entry) if text else int(entry) for entry in classes.tolist())
    shape = state.secret(node.input[1])
    state.decode(
        node.output[0], node.input[1], shape=(1, *shape[:1]), dtype="string" if text else "int64", labels=labels
    )


def _text(entry: Any) -> str:
    return entry.decode() if isinstance(entry, bytes) else str(entry)


@handles("ZipMap", domain=_ML)
def zip_map(state: Importer, node: onnx.NodeProto, settings: Settings) -> None:
    keys = _labels(settings, "classlabels_int64s", "classlabels_strings")
    state.secret(node.input[0])
    state.decode(node.output[0], node.input[0], dtype="float32", keys=keys)
