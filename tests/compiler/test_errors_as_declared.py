"""Expected errors hold on a broad grid: estimators, networks of both PyTorch exporters, and what testers found wrong.

Outputs are off by at most twice what is declared; where they are smooth, by a thirtieth of it at least.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from skl2onnx import to_onnx
from sklearn.calibration import CalibratedClassifierCV
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import NearestNeighbors
from sklearn.svm import SVR

from mpc.compiler.compile import DEFAULT_RANGE, compile_model
from tests.compiler import test_sklearn, test_torch, test_torch_networks
from tests.support import mobile
from tests.support.declared import misjudged
from tests.support.estimators import columns, converted
from tests.support.graphs import node, save_model
from tests.support.tables import generator, save

ESTIMATORS = {**test_sklearn.OFTEN, **test_sklearn.RARELY}
SAMPLE = ("logistic regression", "gaussian bayes", "qda", "soft votes", "neighbours", "calibrated", "bins")
OTHERWISE = {
    "normalizer by the largest": "its result is infinite where the largest of a row is 0",
    "neighbours, absolute": "sums of absolute differences are equal over whole regions, where float32 decides",
    "sgd, modified huber": "two scores of 0 are shares of 0",
}
"""Estimators of which onnxruntime itself gives answers that hang on its own last digits."""
ROWS = 400


def assert_as_declared(path: Path, *data: dict[str, np.ndarray], ranges: object, **settings: object) -> None:
    """Of the first data, which are spread over their ranges; others may be off by less."""
    compiled = compile_model(path, ranges, **settings)  # type: ignore[arg-type]
    wrong = [text for i, feeds in enumerate(data) for text in misjudged(compiled, path, feeds, alike=i == 0)]
    assert not wrong, wrong


def spread(x: np.ndarray, ranges: tuple[tuple[float, ...], tuple[float, ...]]) -> np.ndarray:
    """Rows that fill the range of each column; of whole numbers only what is not negative."""
    low, high = map(np.array, ranges)
    rows = generator(11).uniform(low, high, (ROWS, x.shape[1]))
    return (np.abs(np.rint(rows)) if x.dtype.kind in "iu" else rows).astype(x.dtype)


def assert_estimator_is_as_declared(name: str, folder: Path) -> None:
    path, x = converted(ESTIMATORS[name], folder)
    ranges = columns(x)
    assert_as_declared(path, {"X": spread(x, ranges)}, {"X": x}, ranges={"X": ranges})


@pytest.mark.parametrize("name", SAMPLE)
def test_estimator(name: str, tmp_path: Path) -> None:
    assert_estimator_is_as_declared(name, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(ESTIMATORS.keys() - OTHERWISE.keys() - set(SAMPLE)))
def test_another_estimator(name: str, tmp_path: Path) -> None:
    assert_estimator_is_as_declared(name, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", test_torch.MODELS)
def test_exported_model(name: str) -> None:
    """Their own data fill a tenth of the range that is taken for granted: of what errors grow with they have less."""
    path = test_torch.VECTORS / name
    own = test_torch.data_of(path, 48)
    filled = generator(11).uniform(*DEFAULT_RANGE, own.shape).astype(own.dtype)
    assert_as_declared(path, {"x": filled}, {"x": own}, ranges=None)


@pytest.mark.parametrize("name", ["activations_script.onnx", "norms_script.onnx", "two_script.onnx"])
def test_exported_network(name: str) -> None:
    assert_network_is_as_declared(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", test_torch_networks.MODELS)
def test_another_exported_network(name: str) -> None:
    assert_network_is_as_declared(name)


def assert_network_is_as_declared(name: str) -> None:
    path = test_torch_networks.VECTORS / name
    feeds = test_torch_networks.feeds_of(path, rows=24)
    assert_as_declared(path, feeds, ranges=dict.fromkeys(feeds, test_torch_networks.RANGE))


@pytest.mark.slow
@pytest.mark.parametrize("bounded", ["proved", "by samples"])
@pytest.mark.parametrize("name", sorted(mobile.NETWORKS))
def test_mobile_network(name: str, bounded: str, tmp_path: Path) -> None:
    if (name, bounded) == ("mobilenet_v3", "proved"):
        pytest.skip("its bounds cannot be proved")
    samples = {"x": mobile.images(32, 9)} if bounded == "by samples" else None
    path = mobile.save(name, tmp_path)
    assert_as_declared(path, {"x": mobile.images(32)}, ranges={"x": (-2.0, 2.0)}, samples=samples)


# ------------------------------------------------------------------ what testers found wrong


RNG = generator(5)
X = RNG.normal(size=(300, 4)).clip(-3.9, 3.9)
VALUE = X @ np.array([1.0, -2.0, 0.5, 0.3]) + np.sin(3 * X[:, 0])
CLASS = (VALUE + RNG.normal(size=len(X)) > 0).astype(np.int64)


def isotonic() -> object:
    return CalibratedClassifierCV(GaussianNB(), method="isotonic", cv=2).fit(X, CLASS)


def process() -> object:
    kernel = ConstantKernel(1.0) * RBF(1.0) + WhiteKernel(0.1)
    return GaussianProcessRegressor(kernel, optimizer=None, normalize_y=True).fit(X[:150], VALUE[:150])


TABULAR: dict[str, Callable[[], object]] = {
    "isotonic calibration": isotonic,
    "gaussian process": process,
    "distances to neighbours": lambda: NearestNeighbors(n_neighbors=3, radius=None).fit(X[:40]),
    "support vectors": lambda: SVR().fit(X, VALUE),
}


@pytest.mark.parametrize("name", TABULAR)
def test_tabular(name: str, tmp_path: Path) -> None:
    """Also of data that fill a small part of the range only."""
    model = TABULAR[name]()
    options = {id(model): {"zipmap": False}} if name.startswith("isotonic") else None
    opsets = {"": 18, "ai.onnx.ml": 3}
    path = save(tmp_path, to_onnx(model, X[:1].astype(np.float32), options=options, target_opset=opsets))
    drawn = RNG.uniform(-4, 4, (ROWS, X.shape[1])).astype(np.float32)
    own = RNG.normal(size=(ROWS, X.shape[1])).clip(-3.9, 3.9).astype(np.float32)
    for reach in (4.0, 32.0):  # of which the second is not filled
        assert_as_declared(path, {"X": drawn}, {"X": own}, ranges={"X": (-reach, reach)})


def direction(build: mobile.Builder) -> None:
    """A small classifier with hard swishes and hard logistic gates, as text-direction classifiers are."""
    x, width = build.hard_swish(build.conv("x", mobile.CHANNELS, 8, 3, 2)), 8
    for after, stride, factor, swishes in ((8, 1, 2, 0), (12, 2, 4, 0), (16, 2, 4, 1), (16, 1, 4, 1)):
        inner = width * factor
        y = build.conv(x, width, inner)
        y = build.hard_swish(y) if swishes else build.add("Relu", y)
        y = build.add("Relu", build.conv(y, inner, inner, 3, stride, inner))
        gate = build.conv(build.add("Relu", build.conv(build.add("GlobalAveragePool", y), inner, 4)), 4, inner)
        y = build.add("Mul", y, build.add("HardSigmoid", gate, alpha=1 / 6, beta=0.5))
        y = build.conv(y, inner, after)
        x, width = (build.add("Add", x, y) if stride == 1 and after == width else y), after
    flat = build.add("Flatten", build.add("GlobalAveragePool", build.hard_swish(x)))
    build.nodes.append(node("Softmax", [build.dense(flat, width, 2)], ["y"], "end", axis=1))


def head(build: mobile.Builder) -> None:
    """Places, sizes and scores of boxes from a few layers, as detectors of one stage give them."""
    x = build.swish(build.conv("x", mobile.CHANNELS, 8, 3, 2))
    x = build.conv(build.swish(build.conv(x, 8, 16, 3, 2)), 16, 16)
    boxes = build.add("Reshape", x, build.constant([-1, 2, 8, 16], np.int64))
    boxes = build.add("Transpose", boxes, perm=[0, 1, 3, 2])

    def part(start: int, end: int) -> str:
        ends = (build.constant([value], np.int64) for value in (start, end, 3))
        return build.add("Slice", boxes, *ends)

    place = build.add("Mul", build.add("Sigmoid", part(0, 2)), build.constant(8.0))
    size = build.add("Mul", build.add("Exp", build.clip(part(2, 4), -8, 8)), build.constant([10.0, 13.0]))
    build.nodes.append(node("Concat", [place, size, build.add("Sigmoid", part(4, 8))], ["y"], "end", axis=3))


@pytest.mark.parametrize("make", [direction, head])
def test_network(make: Callable[[mobile.Builder], None], tmp_path: Path) -> None:
    build = mobile.Builder(2)
    make(build)
    path, x = build.save(tmp_path), {"x": mobile.images(48)}
    assert_as_declared(path, x, ranges={"x": (-2.0, 2.0)}, samples={"x": mobile.images(32, 9)})


# ------------------------------------------------------------------ what is told


def test_an_output_that_jumps_is_told_to(tmp_path: Path) -> None:
    """A real that is [x > 0.3] times 5: what rounding does there is no error to speak of, and no number to rely on."""
    nodes = [
        node("Tanh", ["x"], ["t"]),
        node("Greater", ["t", "level"], ["bit"]),
        node("Cast", ["bit"], ["real"], to=1),
        node("Mul", ["real", "much"], ["y"]),
    ]
    constants = {"level": np.float32(0.3), "much": np.float32(5)}
    compiled = compile_model(save_model(tmp_path, nodes, constants), (-0.01, 0.62))
    expected = compiled.rehearsal.expected["y"]
    assert expected.smooth < 1e-6 and 1 < expected.jumps / expected.changed**0.5 < 5
    compiled = compile_model(save_model(tmp_path, nodes, constants), (-300.0, 300.0))
    assert compiled.rehearsal.expected["y"].changed < 1e-4 and not compiled.messages
    nodes[0] = node("Mul", ["x", "tiny"], ["t"])
    constants |= {"tiny": np.float32(0.3e-3), "level": np.float32(1e-6)}
    [text] = compile_model(save_model(tmp_path, nodes, constants), (-0.01, 0.01)).messages
    assert "output 'y'" in text and "jumps" in text and "cannot be estimated" in text


def test_a_label_is_told_in_parts_that_differ(tmp_path: Path) -> None:
    """A plan that has no digit of what a label hangs on says how often the label differs, not of which digits."""
    nodes = [
        node("MatMul", ["x", "w"], ["a"], name="alike"),
        node("Mul", ["x", "little"], ["b"]),
        node("Add", ["a", "b"], ["s"]),
        node("ArgMax", ["s"], ["y"], axis=1, keepdims=0),
    ]
    weights = {"w": np.full((4, 4), 0.7, np.float32), "little": np.full(4, 1.3e-10, np.float32)}
    [text] = compile_model(save_model(tmp_path, nodes, weights), (-3e4, 3e4)).messages
    assert "% of output 'y'" in text and "digit" not in text and "e+" not in text


def test_a_value_that_is_compared_with_its_own_maximum_is_told_what_finds_that_exactly(tmp_path: Path) -> None:
    nodes = [
        node("MatMul", ["x", "w"], ["v"]),
        node("ReduceMax", ["v"], ["m"], axes=[-1], keepdims=1),
        node("Equal", ["v", "m"], ["e"]),
        node("Cast", ["e"], ["y"], to=1),
    ]
    weights = {"w": np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)}
    [text] = compile_model(save_model(tmp_path, nodes, weights), (-3.0, 3.0)).messages
    assert "its own maximum" in text and "Hardmax" in text and "e+" not in text


def test_what_is_rehearsed_is_rehearsed_alike(tmp_path: Path) -> None:
    path = save_model(tmp_path, [node("Sigmoid", ["x"], ["y"])])
    first, second = (compile_model(path).rehearsal.expected for _ in range(2))
    assert first == second and 1e-7 < first["y"].error < 1e-4


def test_numbers_may_be_missing_where_a_plan_is_rehearsed(tmp_path: Path) -> None:
    case = test_sklearn.OFTEN["imputer"]
    path, x = converted(case, tmp_path)
    assert_as_declared(path, {"X": x}, ranges={"X": columns(x)})
