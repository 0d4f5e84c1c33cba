"""A small convolutional network for the images of handwritten digits that come with scikit-learn, trained in seconds.

Its filters are the principal components of what the training images are made of, 3 x 3 pixels at a time, and their
negatives (Coates and Ng 2012, Learning Feature Representations with K-means, has networks of one such layer); its last
layer is a logistic regression.  The examples take these images for scans.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

BRIGHT, SIZE, KERNEL, FILTERS, KNOWN = 16, 8, 3, 8, 1400
Arrays = dict[str, np.ndarray]


def images() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training images (1400, 8, 8) of 0 to 16 with their digits, and the other 397."""
    found = load_digits()
    x, y = found.images.astype(np.float32), found.target
    return x[:KNOWN], y[:KNOWN], x[KNOWN:], y[KNOWN:]


def features(x: np.ndarray, filters: np.ndarray) -> np.ndarray:
    """What the network's last layer reads: filtered, cut at zero, averaged over 2 x 2, in one row an image."""
    windows = np.lib.stride_tricks.sliding_window_view(x / BRIGHT, (KERNEL, KERNEL), axis=(1, 2))
    found = np.maximum(np.einsum("nijkl,fkl->nfij", windows, filters), 0)
    halves = found.reshape(len(x), len(filters), 3, 2, 3, 2)
    return halves.mean(axis=(3, 5)).reshape(len(x), -1)


@lru_cache(maxsize=1)
def trained() -> tuple[np.ndarray, LogisticRegression]:
    """The filters (16, 3, 3), and the last layer."""
    x, y, _, _ = images()
    windows = np.lib.stride_tricks.sliding_window_view(x / BRIGHT, (KERNEL, KERNEL), axis=(1, 2)).reshape(-1, KERNEL**2)
    _, _, axes = np.linalg.svd(windows[::7] - windows.mean(axis=0), full_matrices=False)
    filters = np.concatenate([axes[:FILTERS], -axes[:FILTERS]]).reshape(-1, KERNEL, KERNEL).astype(np.float32)
    return filters, LogisticRegression(C=3.0, max_iter=300).fit(features(x, filters), y)


def classifier() -> bytes:
    """An ONNX model from `image` [N, 8, 8] to `digit` [N], and to nothing else: the scores stay hidden."""
    _, last = trained()
    weights = {"w": last.coef_.T, "b": last.intercept_}
    ends = [helper.make_node("ArgMax", ["scores"], ["digit"], axis=1, keepdims=0)]
    return _model(weights, ends, helper.make_tensor_value_info("digit", TensorProto.INT64, ["N"]))


def detector(digit: int) -> bytes:
    """An ONNX model from `image` [N, 8, 8] to `alarm` [N, 1]: is it more likely that digit than all others together?"""
    _, last = trained()
    x, y, _, _ = images()
    one = LogisticRegression(C=3.0, max_iter=300).fit(features(x, trained()[0]), y == digit)
    weights = {"w": one.coef_.T, "b": one.intercept_, "zero": np.zeros(1)}
    ends = [helper.make_node("GreaterOrEqual", ["scores", "zero"], ["alarm"])]
    return _model(weights, ends, helper.make_tensor_value_info("alarm", TensorProto.BOOL, ["N", 1]))


def _model(weights: Arrays, ends: list, output: object) -> bytes:
    filters, _ = trained()
    arrays = {"filters": filters[:, None] / BRIGHT, "one": np.array([-1, 1, SIZE, SIZE]), **weights}
    nodes = [
        helper.make_node("Reshape", ["image", "one"], ["plane"]),
        helper.make_node("Conv", ["plane", "filters"], ["filtered"]),
        helper.make_node("Relu", ["filtered"], ["cut"]),
        helper.make_node("AveragePool", ["cut"], ["pooled"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w", "b"], ["scores"]),
    ]
    kept = [
        numpy_helper.from_array(value if value.dtype == np.int64 else value.astype(np.float32), name)
        for name, value in arrays.items()
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", SIZE, SIZE])
    graph = helper.make_graph([*nodes, *ends], "scan", [image], [output], kept)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return made.SerializeToString()
