"""Random nodes of every family: parties = reference bit for bit, and both = onnxruntime within the compiler's error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from mpc.compiler.compile import compile_model
from mpc.errors import ModelError
from tests.support.effort import FULL
from tests.support.graphs import node, save_model
from tests.support.models import assert_agrees, encrypted, plaintext

Draw = Callable[[st.SearchStrategy], object]
Constants = dict[str, np.ndarray]
Family = tuple[list[onnx.NodeProto], Constants, tuple[int, ...], tuple[float, float]]
TOLERANCE = 1e-3
"""Of the largest value, 1 at least; a part of it is the series' error, which is about 1e-4."""


def constant(draw: Draw, shape: tuple[int, ...], size: float = 1.0) -> np.ndarray:
    rng = np.random.default_rng(draw(st.integers(0, 1 << 30)))
    return (rng.normal(size=shape) * size).astype(np.float32)


def ranges(draw: Draw, widest: float = 8.0) -> tuple[float, float]:
    low, high = sorted(draw(st.tuples(st.floats(-widest, widest), st.floats(-widest, widest))))
    assume(high - low > 0.25)
    return low, high


# ------------------------------------------------------------------------- the families


@st.composite
def convolutions(draw: Draw) -> Family:
    axes = draw(st.integers(1, 3))
    side = st.integers(1, 3)
    groups, per_group = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    kernel, strides, dilations = ([draw(side) for _ in range(axes)] for _ in range(3))
    pads = [draw(st.integers(0, 2)) for _ in range(2 * axes)]
    sizes = tuple(draw(st.integers(5, 8 if axes < 3 else 6)) for _ in range(axes))
    channels, filters = groups * per_group, groups * draw(st.integers(1, 2))
    attributes: dict[str, object] = {"strides": strides, "dilations": dilations, "group": groups}
    if draw(st.booleans()):
        attributes["pads"] = pads
    else:
        attributes["auto_pad"] = draw(st.sampled_from(["SAME_UPPER", "SAME_LOWER", "VALID"]))
        assume(attributes["auto_pad"] == "VALID" or dilations == [1] * axes)  # onnxruntime has no such mix
    weight = {"w": constant(draw, (filters, per_group, *kernel))}
    names = ["x", "w"]
    if draw(st.booleans()):
        weight["b"] = constant(draw, (filters,))
        names.append("b")
    return [node("Conv", names, ["y"], **attributes)], weight, (channels, *sizes), ranges(draw)


@st.composite
def transposed(draw: Draw) -> Family:
    axes = draw(st.integers(1, 2))
    groups, per_group = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    kernel = [draw(st.integers(1, 3)) for _ in range(axes)]
    strides = [draw(st.integers(1, 3)) for _ in range(axes)]
    dilations = [draw(st.integers(1, 2)) for _ in range(axes)]
    extra = [draw(st.integers(0, s - 1)) for s in strides]
    pads = [draw(st.integers(0, 1)) for _ in range(2 * axes)]
    channels = groups * draw(st.integers(1, 2))
    sizes = tuple(draw(st.integers(3, 5)) for _ in range(axes))
    weight = {"w": constant(draw, (channels, per_group, *kernel))}
    y = node(
        "ConvTranspose", ["x", "w"], ["y"], strides=strides, dilations=dilations, group=groups, pads=pads,
        output_padding=extra,
    )  # fmt: skip
    return [y], weight, (channels, *sizes), ranges(draw)


@st.composite
def pools(draw: Draw) -> Family:
    kind, axes = draw(st.sampled_from(["MaxPool", "AveragePool"])), draw(st.integers(1, 2))
    kernel = [draw(st.integers(1, 3)) for _ in range(axes)]
    attributes: dict[str, object] = {
        "kernel_shape": kernel,
        "strides": [draw(st.integers(1, 3)) for _ in range(axes)],
        "pads": [draw(st.integers(0, k - 1)) for k in kernel] * 2,
        "ceil_mode": draw(st.integers(0, 1)),
    }
    if kind == "AveragePool":
        attributes["count_include_pad"] = draw(st.integers(0, 1))
        assume(not attributes["ceil_mode"])  # onnxruntime and onnx differ there
    else:
        attributes["dilations"] = [draw(st.integers(1, 2)) for _ in range(axes)]
    nodes = [node(kind, ["x"], ["p"], **attributes)]
    nodes.append(node("Relu" if draw(st.booleans()) else "Identity", ["p"], ["y"], name="last"))
    return nodes, {}, (draw(st.integers(1, 3)), *(draw(st.integers(6, 9)) for _ in range(axes))), ranges(draw)


@st.composite
def elementwise(draw: Draw) -> Family:
    """Chains of a constant's arithmetic and a function of one variable."""
    shape = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=3)))
    wide = [
        "Sigmoid",
        "Tanh",
        "Erf",
        "Relu",
        "LeakyRelu",
        "Elu",
        "Selu",
        "Celu",
        "Softplus",
        "HardSigmoid",
        "HardSwish",
    ]
    wide += ["Abs", "Neg", "Softsign", "Gelu", "Mish"]
    function = draw(st.sampled_from(wide))
    operator = draw(st.sampled_from(["Add", "Sub", "Mul", "Div"]))
    beside = tuple(draw(st.sampled_from([size, 1])) for size in shape[draw(st.integers(0, len(shape))) :])
    c = constant(draw, beside) + (3.0 if operator == "Div" else 0.0)
    assume(operator != "Div" or np.abs(c).min() > 0.2)
    nodes = [node(operator, ["x", "c"], ["h"]), node(function, ["h"], ["y"])]
    return nodes, {"c": c.astype(np.float32)}, shape, ranges(draw)


@st.composite
def positive(draw: Draw) -> Family:
    """Functions that exist for positive arguments, on several octaves."""
    low = draw(st.floats(0.05, 4.0))
    high = low * draw(st.floats(2.0, 100.0))
    function = draw(st.sampled_from(["Log", "Sqrt", "Reciprocal"]))
    return [node(function, ["x"], ["y"])], {}, (draw(st.integers(1, 9)),), (low, high)


@st.composite
def reductions(draw: Draw) -> Family:
    shape = tuple(draw(st.lists(st.integers(1, 4), min_size=2, max_size=3)))
    kinds = ["ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2", "ReduceSumSquare"]
    kind = draw(st.sampled_from(kinds))
    axes = sorted(draw(st.sets(st.integers(1, len(shape)), min_size=1)))
    constants: Constants = {}
    keep = draw(st.integers(0, 1))
    if kind == "ReduceSum":
        y = node(kind, ["x", "axes"], ["y"], keepdims=keep)
        constants["axes"] = np.array(axes, dtype=np.int64)
    else:
        y = node(kind, ["x"], ["y"], axes=axes, keepdims=keep)
    return [y], constants, shape, ranges(draw, 4.0)


@st.composite
def softmaxes(draw: Draw) -> Family:
    shape = tuple(draw(st.lists(st.integers(2, 6), min_size=1, max_size=2)))
    axis = draw(st.integers(1, len(shape)))
    return [node(draw(st.sampled_from(["Softmax", "LogSoftmax"])), ["x"], ["y"], axis=axis)], {}, shape, ranges(draw)


@st.composite
def products(draw: Draw) -> Family:
    """Of two secrets made of one input, with broadcasting, and with constants from the left and the right."""
    m, k, n = (draw(st.integers(1, 5)) for _ in range(3))
    stack = tuple(draw(st.lists(st.integers(1, 2), max_size=1)))
    nodes = [node("Transpose", ["x"], ["t"], perm=[*range(len(stack) + 1), len(stack) + 2, len(stack) + 1])]
    constants = {"w": constant(draw, (k, n)), "v": constant(draw, (n, m))}
    nodes.append(node("MatMul", ["x", "t"], ["square"], name="both"))
    nodes.append(node("MatMul", ["square", "x"], ["again"], name="again"))
    nodes.append(node("MatMul", ["again", "w"], ["right"], name="right"))
    nodes.append(node("MatMul", ["v", "right"], ["y"], name="left"))
    return nodes, constants, (*stack, m, k), ranges(draw, 1.0)


@st.composite
def moves(draw: Draw) -> Family:
    """Slices, paddings, transpositions, joins: exact but for the encoding."""
    a, b = draw(st.integers(2, 4)), draw(st.integers(2, 4))
    start, step = draw(st.integers(-b, b - 1)), draw(st.sampled_from([1, 2, -1]))
    end = draw(st.integers(-b, b))
    assume(len(range(b)[slice(start, end, step)]) > 0)
    mode = draw(st.sampled_from(["constant", "edge", "reflect"]))
    constants = {
        "starts": np.array([start]),
        "ends": np.array([end]),
        "axes": np.array([2]),
        "steps": np.array([step]),
        "pads": np.array([0, 1, 0, 0, 0, 1]),
        "index": np.array(draw(st.lists(st.integers(-a, a - 1), min_size=1, max_size=5))),
        "times": np.array([1, 2, 1]),
    }
    nodes = [
        node("Slice", ["x", "starts", "ends", "axes", "steps"], ["s"]),
        node("Pad", ["x", "pads"], ["p"], mode=mode),
        node("Gather", ["p", "index"], ["g"], axis=1),
        node("Tile", ["g", "times"], ["t"]),
        node("Transpose", ["t"], ["u"], perm=[0, 2, 1]),
        node("Flatten", ["u"], ["f"]),
        node("Flatten", ["s"], ["e"], name="flatten2"),
        node("Concat", ["f", "e"], ["y"], axis=-1),
    ]
    return nodes, constants, (a, b), ranges(draw)


@st.composite
def normalisations(draw: Draw) -> Family:
    channels, size = draw(st.integers(2, 4)), draw(st.integers(2, 4))
    kind = draw(st.sampled_from(["LayerNormalization", "InstanceNormalization", "BatchNormalization"]))
    shape = (channels, size, size)
    features = size if kind == "LayerNormalization" else channels
    constants = {"g": constant(draw, (features,)) + 1, "b": constant(draw, (features,))}
    names = ["x", "g", "b"]
    if kind == "BatchNormalization":
        constants |= {"m": constant(draw, (features,)), "v": np.abs(constant(draw, (features,))) + 0.2}
        names += ["m", "v"]
    # A row whose elements are all alike is divided by the root of epsilon, and its rounding with it.
    settings_of = {"epsilon": 1e-2} if kind != "BatchNormalization" else {}
    return [node(kind, names, ["y"], **settings_of)], constants, shape, ranges(draw)


FAMILIES = {
    "convolutions": convolutions(),
    "elementwise": elementwise(),
    "moves": moves(),
    "normalisations": normalisations(),
    "pools": pools(),
    "positive": positive(),
    "products": products(),
    "reductions": reductions(),
    "softmaxes": softmaxes(),
    "transposed": transposed(),
}


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_node_is_what_onnxruntime_makes_of_it(family: str, tmp_path: Path) -> None:
    @settings(max_examples=200 if FULL else 15, suppress_health_check=list(HealthCheck))
    @given(case=FAMILIES[family], seed=st.integers(0, 1 << 30), fixed=st.booleans())
    def attempt(case: Family, seed: int, fixed: bool) -> None:
        nodes, constants, shape, (low, high) = case
        path = save_model(
            tmp_path, nodes, constants, (2 if fixed else "batch", *shape), opset=17 if not _new(nodes) else 20
        )
        rng = np.random.default_rng(seed)
        x = rng.uniform(low, high, size=(2, *shape)).astype(np.float32)
        ends = rng.random(x.shape) < 0.2
        x = np.clip(np.where(ends, rng.choice([low, high], size=x.shape), x), low, high).astype(np.float32)
        declared = (float(np.nextafter(np.float32(low), -np.inf)), float(np.nextafter(np.float32(high), np.inf)))
        try:
            expected = plaintext(path, {"x": x})
        except Exception:  # onnxruntime refuses some paddings that onnx defines
            assume(False)
        try:
            compiled = compile_model(path, {"x": declared})
        except ModelError as error:
            assert "padding" in str(error) or "empty" in str(error) or "larger than" in str(error), error
            return
        for ours, theirs in zip(encrypted(compiled, {"x": x}), expected, strict=True):
            assert ours.shape == theirs.shape
            assert np.abs(ours - theirs).max() <= TOLERANCE * max(1.0, float(np.abs(theirs).max()))

    attempt()


def _new(nodes: list[onnx.NodeProto]) -> bool:
    return any(each.op_type in ("Gelu", "Mish") for each in nodes)


@pytest.mark.parametrize(
    ("inner", "weight", "bias"), [((1, 5), (), (5, 5)), ((4, 1), (5,), (3, 1, 1)), ((1,), (), (5,))]
)
@pytest.mark.parametrize("factor", [0.37, -1e9])
def test_a_bias_may_repeat_what_a_constant_multiplies(
    inner: tuple[int, ...], weight: tuple[int, ...], bias: tuple[int, ...], factor: float, tmp_path: Path
) -> None:
    """As in (1 - m) -1e9 + causal: the multiplication was written with the shape of the sum, which it has not."""
    if len(bias) > len(inner):
        inner = (1,) * (len(bias) - len(inner)) + inner
    rng = np.random.default_rng(3)
    constants = {
        "w": (rng.uniform(0.5, 1, weight) * factor).astype(np.float32),
        "b": (rng.uniform(-1, 1, bias) * factor).astype(np.float32),
    }
    nodes = [node("Mul", ["x", "w"], ["m"]), node("Add", ["m", "b"], ["y"])]
    path = save_model(tmp_path, nodes, constants, ("batch", *inner))
    x = rng.uniform(-1, 1, (2, *inner)).astype(np.float32)
    assert_agrees(path, {"x": x}, {"x": (-1, 1)}, 1e-5 * max(1.0, abs(factor)))
