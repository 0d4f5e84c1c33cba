"""Quantised models beside onnxruntime: its operators one by one, and files that its own quantiser writes."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static

from mpc.compiler.compile import Compiled, compile_model
from mpc.errors import ModelError
from mpc.plan.cost import plan_cost
from tests.support.effort import FULL
from tests.support.graphs import node
from tests.support.models import encrypted, plaintext

ROOT = Path(__file__).parents[2]
MICROSOFT = "com.microsoft"
RNG = np.random.default_rng(6)
CODES = {"float32": TensorProto.FLOAT, "uint8": TensorProto.UINT8, "int8": TensorProto.INT8, "bool": TensorProto.BOOL}
Arrays = dict[str, np.ndarray]


def save(folder: Path, nodes: list[onnx.NodeProto], constants: Arrays, feeds: Arrays, outputs: dict[str, str]) -> Path:
    """A model of several typed inputs, whose first axis stays open, and outputs of these types."""
    graph = helper.make_graph(
        nodes,
        "quantised",
        [
            helper.make_tensor_value_info(name, CODES[str(value.dtype)], ("batch", *value.shape[1:]))
            for name, value in feeds.items()
        ],
        [
            helper.make_tensor_value_info(name, CODES.get(kind, TensorProto.INT32), None)
            for name, kind in outputs.items()
        ],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(MICROSOFT, 1)]
    path = folder / "model.onnx"
    path.write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString())
    return path


def answers(path: Path, feeds: Arrays, real: tuple[float, float] = (-4, 4)) -> tuple[list[Any], list[Any], Compiled]:
    """Ours, onnxruntime's, and the plan."""
    ranges = {
        name: (float(np.iinfo(value.dtype).min), float(np.iinfo(value.dtype).max)) if value.dtype.kind in "iu" else real
        for name, value in feeds.items()
        if value.dtype != bool
    }
    compiled = compile_model(path, ranges)
    return encrypted(compiled, feeds), plaintext(path, feeds), compiled


def quanta(path: Path, feeds: Arrays, most: float = 0, real: tuple[float, float] = (-4, 4)) -> Compiled:
    """Outputs of an integer type differ by so many units at most."""
    ours, theirs, compiled = answers(path, feeds, real)
    for got, want in zip(ours, theirs, strict=True):
        assert (got.dtype, got.shape) == (want.dtype, want.shape)
        assert np.abs(got.astype(np.float64) - want.astype(np.float64)).max() <= most
    return compiled


def q(value: float, kind: str = "") -> np.ndarray:
    return np.array(value, kind or "float32")


# ------------------------------------------------------------------- there and back


@settings(max_examples=80 if FULL else 10, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    kind=st.sampled_from(["uint8", "int8"]),
    scale=st.sampled_from([0.5, 0.03125, 1.0, 0.0123, 0.1]),
    zero=st.integers(0, 127),
    columns=st.booleans(),
    wide=st.sampled_from([0.25, 4.0, 40.0]),
    seed=st.integers(0, 1 << 20),
)
def test_values_are_quantised_as_onnxruntime_does(
    tmp_path_factory: pytest.TempPathFactory, kind: str, scale: float, zero: int, columns: bool, wide: float, seed: int
) -> None:
    """Halves go to the even number, ends hold; a tie that a scale of no power of two makes is one by chance."""
    rng = np.random.default_rng(seed)
    x = (rng.integers(-128, 129, (4, 5)) / 128 * wide).astype(np.float32)
    if columns:
        constants = {"s": (scale * np.arange(1, 6)).astype(np.float32), "z": rng.integers(0, zero + 1, 5).astype(kind)}
    else:
        constants = {"s": q(scale), "z": q(zero, kind)}
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"], axis=1),
        node("DequantizeLinear", ["q", "s", "z"], ["y"], axis=1),
    ]
    folder = tmp_path_factory.mktemp("pairs")
    path = save(folder, nodes, constants, {"x": x}, {"q": kind, "y": "float32"})
    (got, real), (want, wanted), _ = answers(path, {"x": x}, (-wide, wide))
    ties = np.abs((x / constants["s"].astype(np.float64)) % 1 - 0.5) < 1e-5
    dyadic = scale in (0.5, 0.03125, 1.0) and not columns
    assert (np.abs(got.astype(int) - want.astype(int)) <= (ties & (not dyadic))).all()
    assert np.abs(real - wanted).max() <= (0 if dyadic else np.max(constants["s"])) + 1e-5


@pytest.mark.parametrize("reach", [1.0, 3.0, 6.0, 0.75, 127.5 / 32])
@pytest.mark.parametrize(("kind", "zero"), [("uint8", 128), ("uint8", 127), ("int8", 0)])
def test_ends_of_a_range_that_255_steps_cover_go_to_the_even_number(
    kind: str, zero: int, reach: float, tmp_path: Path
) -> None:
    """All that is black or white, say, lies half between two numbers.  It came out as another than onnxruntime's, or
    wrapped around: -127.5 and a zero point of 127 became 255.
    """
    x = {"x": (np.arange(-51, 52).reshape(-1, 103) / 51 * reach).astype(np.float32)[:, [0, 17, 34, 51, 68, 85, 102]]}
    nodes = [node("QuantizeLinear", ["x", "s", "z"], ["q"])]
    path = save(tmp_path, nodes, {"s": q(2 * reach / 255), "z": q(zero, kind)}, x, {"q": kind})
    quanta(path, x, 0, (-reach, reach))


@pytest.mark.parametrize(("scale", "zero"), [(0.0123, 128), (0.0123, 255), (2 / 255, 255), (2 / 255, 0)])
def test_half_a_step_beyond_a_types_ends_does_not_wrap_around(scale: float, zero: int, tmp_path: Path) -> None:
    """What is so little below the step to 256 that it is compared as 256 was 0."""
    ends = np.array([-zero - 0.5, 255 - zero + 0.5]) * scale
    x = {"x": np.linspace(*ends, 256).astype(np.float32).reshape(-1, 4)}
    nodes, constants = [node("QuantizeLinear", ["x", "s", "z"], ["q"])], {"s": q(scale), "z": q(zero, "uint8")}
    path = save(tmp_path, nodes, constants, x, {"q": "uint8"})
    quanta(path, x, 1, (float(x["x"].min()), float(x["x"].max())))


@pytest.mark.parametrize("beyond", [0.5, 60.0, 1e5])
@pytest.mark.parametrize("scale", [0.3, 0.7, 3.0, 1.7])
def test_a_range_beyond_a_types_ends_leaves_room_for_holding_it(scale: float, beyond: float, tmp_path: Path) -> None:
    """An integer that made the scale a power of two took the bits that the ends of the type needed on the wire."""
    inner = np.linspace(-1.9, 1.9, 9)
    steps = np.concatenate([-100 + inner, 155 + inner, [-100 - beyond, 155 + beyond]])
    x = {"x": (np.clip(steps, -100 - beyond, 155 + beyond) * scale).astype(np.float32).reshape(-1, 4)}
    path = save(
        tmp_path,
        [node("QuantizeLinear", ["x", "s", "z"], ["q"])],
        {"s": q(scale), "z": q(100, "uint8")},
        x,
        {"q": "uint8"},
    )
    quanta(path, x, 0, (float(x["x"].min()), float(x["x"].max())))


def test_zero_points_may_be_left_out(tmp_path: Path) -> None:
    x = {"x": RNG.uniform(-4, 4, (3, 4)).astype(np.float32)}
    nodes = [node("QuantizeLinear", ["x", "s"], ["q"]), node("DequantizeLinear", ["q", "s"], ["y"])]
    quanta(save(tmp_path, nodes, {"s": q(0.0312)}, x, {"q": "uint8"}), x)


@pytest.mark.parametrize("scale", [0.0987, 0.1, 1 / 255])
def test_halves_of_whole_numbers_that_are_quantised_anew_go_to_the_even_one(scale: float, tmp_path: Path) -> None:
    """At twice the scale every second number is half a unit off: a quarter of all came out as the next one.  To
    float32, and so to onnxruntime, some are a little beside the half.
    """
    nodes = [
        node("DequantizeLinear", ["x", "s", "z"], ["a"]),
        node("MaxPool", ["a"], ["b"], kernel_shape=[2]),
        node("QuantizeLinear", ["b", "s", "z"], ["c"], name="first"),
        node("DequantizeLinear", ["c", "s", "z"], ["d"], name="again"),
        node("QuantizeLinear", ["d", "t", "z"], ["y"], name="second"),
    ]
    constants = {"s": q(scale), "t": np.float32(scale) * np.float32(2), "z": q(0, "uint8")}
    feeds = {"x": np.arange(240, dtype=np.uint8).reshape(-1, 1, 6)}
    [ours], [theirs], _ = answers(save(tmp_path, nodes, constants, feeds, {"y": "uint8"}), feeds)
    assert (ours == np.rint(np.maximum(feeds["x"][..., 1:], feeds["x"][..., :-1]) / 2)).all()
    assert (ours != theirs).mean() < 0.08


def test_what_is_within_a_types_ends_is_not_compared_with_them(tmp_path: Path) -> None:
    x, constants = {"x": RNG.uniform(0, 1, (3, 4)).astype(np.float32)}, {"s": q(1 / 255), "z": q(0, "uint8")}
    path = save(tmp_path, [node("QuantizeLinear", ["x", "s", "z"], ["q"])], constants, x, {"q": "uint8"})
    inside, beyond = (compile_model(path, {"x": ends}).plan for ends in ((0, 1), (-1, 1)))
    assert "relu" not in {gate.kind for gate in inside.gates} and "relu" in {gate.kind for gate in beyond.gates}
    assert plan_cost(inside, 1).rounds < plan_cost(beyond, 1).rounds


@pytest.mark.parametrize("between", ["MaxPool", "Relu", "Reshape", "Transpose"])
def test_what_is_quantised_again_by_its_own_scale_is_not_rounded_again(between: str, tmp_path: Path) -> None:
    x = {"x": RNG.uniform(-4, 4, (2, 2, 4, 4)).astype(np.float32)}
    constants = {"s": q(0.0312), "z": q(100, "uint8"), "shape": np.array([0, 2, 16])}
    attributes: dict[str, object] = {"MaxPool": {"kernel_shape": [2, 2]}, "Transpose": {"perm": [0, 2, 3, 1]}}.get(
        between, {}
    )
    reads = ["d", "shape"] if between == "Reshape" else ["d"]
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"], "first"),
        node("DequantizeLinear", ["q", "s", "z"], ["d"], "back"),
        node(between, reads, ["m"], "between", **attributes),
        node("QuantizeLinear", ["m", "s", "z"], ["y"], "again"),
    ]
    compiled = quanta(save(tmp_path, nodes, constants, x, {"y": "uint8"}), x)
    assert sum(gate.kind == "step" for gate in compiled.plan.gates) == 1


# ------------------------------------------------------------------- operators of whole numbers


def levels(kind: str, *shape: int, most: int = 255) -> np.ndarray:
    low, high = max(-most, int(np.iinfo(kind).min)), min(most, int(np.iinfo(kind).max))
    return RNG.integers(low, high, shape, endpoint=True).astype(kind)


IMAGE = levels("uint8", 2, 3, 6, 6)
Q = {"xs": q(0.021), "xz": q(117, "uint8"), "ys": q(0.083), "yz": q(131, "uint8"), "rs": q(0.034), "rz": q(90, "uint8")}
CASES: dict[str, tuple[list[onnx.NodeProto], Arrays, Arrays, dict[str, str], float]] = {
    "MatMulInteger": (
        [node("MatMulInteger", ["x", "w", "xz", "wz"], ["y"])],
        {"w": levels("uint8", 6, 4), "wz": levels("uint8", 4), "xz": q(117, "uint8")},
        {"x": levels("uint8", 3, 6)}, {"y": "int32"}, 0,
    ),
    "ConvInteger": (
        [node("ConvInteger", ["x", "w", "xz", "wz"], ["y"], pads=[1, 1, 1, 1], strides=[2, 2])],
        {"w": levels("uint8", 2, 3, 3, 3), "wz": q(99, "uint8"), "xz": q(117, "uint8")},
        {"x": IMAGE}, {"y": "int32"}, 0,
    ),
    "QLinearMatMul": (
        [node("QLinearMatMul", ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz"], ["y"])],
        {"w": levels("uint8", 6, 4), "ws": np.float32([0.02, 0.03, 0.011, 0.007]), "wz": levels("uint8", 4), **Q},
        {"x": levels("uint8", 3, 6)}, {"y": "uint8"}, 0,
    ),
    "QLinearConv": (
        [node("QLinearConv", ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz", "b"], ["y"], pads=[1, 1, 1, 1])],
        {
            "w": levels("int8", 4, 3, 3, 3, most=60), "ws": np.array([0.01, 0.007, 0.02, 0.005], np.float32),
            "wz": np.zeros(4, "int8"), "b": levels("int32", 4, most=3000), **Q,
        },
        {"x": IMAGE}, {"y": "uint8"}, 0,
    ),
    "QGemm": (
        [node("QGemm", ["x", "xs", "xz", "w", "ws", "wz", "b", "ys", "yz"], ["y"], domain=MICROSOFT, transB=1)],
        {"w": levels("uint8", 4, 6), "ws": q(0.02), "wz": q(120, "uint8"), "b": levels("int32", 4, most=3000), **Q},
        {"x": levels("uint8", 3, 6)}, {"y": "uint8"}, 0,
    ),
    "QGemm to reals": (
        [node("QGemm", ["x", "xs", "xz", "w", "ws", "wz"], ["y"], domain=MICROSOFT)],
        {"w": levels("uint8", 6, 4), "ws": q(0.02), "wz": q(120, "uint8"), **Q},
        {"x": levels("uint8", 3, 6)}, {"y": "float32"}, 1e-4,
    ),
    "QLinearAdd": (
        [node("QLinearAdd", ["x", "xs", "xz", "r", "rs", "rz", "ys", "yz"], ["y"], domain=MICROSOFT)],
        Q, {"x": levels("uint8", 3, 6), "r": levels("uint8", 3, 6)}, {"y": "uint8"}, 0,
    ),
    "QLinearMul": (
        [node("QLinearMul", ["x", "xs", "xz", "r", "rs", "rz", "ys", "yz"], ["y"], domain=MICROSOFT)],
        Q, {"x": levels("uint8", 3, 6), "r": levels("uint8", 3, 6)}, {"y": "uint8"}, 0,
    ),
    "QLinearLeakyRelu": (
        [node("QLinearLeakyRelu", ["x", "xs", "xz", "ys", "yz"], ["y"], domain=MICROSOFT, alpha=0.2)],
        Q, {"x": levels("uint8", 3, 6)}, {"y": "uint8"}, 1,
    ),
    "QLinearSigmoid": (
        [node("QLinearSigmoid", ["x", "xs", "xz", "hs", "hz"], ["y"], domain=MICROSOFT)],
        {**Q, "hs": q(1 / 256), "hz": q(0, "uint8")}, {"x": levels("uint8", 3, 6)}, {"y": "uint8"}, 1,
    ),
    "QLinearSoftmax": (
        [node("QLinearSoftmax", ["x", "xs", "xz", "hs", "hz"], ["y"], domain=MICROSOFT, axis=-1, opset=13)],
        {**Q, "hs": q(1 / 256), "hz": q(0, "uint8")}, {"x": levels("uint8", 3, 6)}, {"y": "uint8"}, 1,
    ),
    "QLinearAveragePool": (
        [node("QLinearAveragePool", ["x", "xs", "xz", "ys", "yz"], ["y"], domain=MICROSOFT, kernel_shape=[2, 2])],
        Q, {"x": IMAGE}, {"y": "uint8"}, 1,
    ),
    "QLinearGlobalAveragePool": (
        [node("QLinearGlobalAveragePool", ["x", "xs", "xz", "ys", "yz"], ["y"], domain=MICROSOFT)],
        Q, {"x": IMAGE}, {"y": "uint8"}, 1,
    ),
    "QLinearConcat": (
        [node("QLinearConcat", ["ys", "yz", "x", "xs", "xz", "r", "rs", "rz"], ["y"], domain=MICROSOFT, axis=1)],
        Q, {"x": levels("uint8", 3, 6), "r": levels("uint8", 3, 2)}, {"y": "uint8"}, 0,
    ),
    "QLinearWhere": (
        [node("QLinearWhere", ["c", "x", "xs", "xz", "r", "rs", "rz", "ys", "yz"], ["y"], domain=MICROSOFT)],
        Q, {"c": RNG.integers(0, 2, (3, 6)).astype(bool), "x": levels("uint8", 3, 6), "r": levels("uint8", 3, 6)},
        {"y": "uint8"}, 1,
    ),
    "MatMulIntegerToFloat": (
        [node("MatMulIntegerToFloat", ["x", "w", "xs", "ws", "xz", "wz", "b"], ["y"], domain=MICROSOFT)],
        {"w": levels("uint8", 6, 4), "ws": q(0.02), "wz": q(120, "uint8"), "b": np.float32([0.3, -1, 0, 2]), **Q},
        {"x": levels("uint8", 3, 6)}, {"y": "float32"}, 1e-4,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_operators(name: str, tmp_path: Path) -> None:
    nodes, constants, feeds, outputs, most = CASES[name]
    used = {read for each in nodes for read in each.input}
    path = save(tmp_path, nodes, {key: value for key, value in constants.items() if key in used}, feeds, outputs)
    quanta(path, feeds, most)


# ------------------------------------------------------------------- quantised as it comes


@pytest.mark.parametrize("kind", ["uint8", "int8"])
def test_a_softmax_is_rounded_as_onnx_says(kind: str, tmp_path: Path) -> None:
    """onnxruntime makes one operator of it, which cuts off: without optimisations it rounds, as this does."""
    ends, middle = np.iinfo(kind), 128 if kind == "uint8" else 0
    nodes = [
        node("DequantizeLinear", ["x", "s", "m"], ["a"]),
        node("Softmax", ["a"], ["b"], axis=-1),
        node("QuantizeLinear", ["b", "t", "z"], ["y"]),
    ]
    constants = {"s": q(0.05), "m": q(middle, kind), "t": q(1 / 255), "z": q(ends.min, kind)}
    feeds = {"x": np.random.default_rng(8).integers(ends.min, ends.max + 1, (100, 10)).astype(kind)}
    path = save(tmp_path, nodes, constants, feeds, {"y": kind})
    [ours], _, _ = answers(path, feeds)
    plain = onnxruntime.SessionOptions()
    plain.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    [right] = onnxruntime.InferenceSession(str(path), plain, providers=["CPUExecutionProvider"]).run(None, feeds)
    off = np.abs(ours.astype(int) - right).max(axis=1)
    assert off.max() <= 1 and off.mean() < 0.1


@pytest.mark.parametrize(("a_unit", "b_unit", "unit"), [(0.1, 0.1, 0.01), (0.05, 0.3, 0.004), (1.0, 1.0, 0.5)])
@pytest.mark.parametrize("operator", ["QLinearAdd", "QLinearMul"])
@pytest.mark.parametrize("kind", ["uint8", "int8"])
def test_sums_and_products_that_leave_their_type_end_at_its_ends(
    kind: str, operator: str, a_unit: float, b_unit: float, unit: float, tmp_path: Path
) -> None:
    ends, middle = np.iinfo(kind), 100 if kind == "uint8" else -20
    rng = np.random.default_rng(9)
    feeds = {name: rng.integers(ends.min, ends.max + 1, (12, 4)).astype(kind) for name in ("a", "b")}
    feeds["a"][:4, :], feeds["b"][:2, :], feeds["b"][2:4, :] = ends.max, ends.max, ends.min
    units = {"sa": q(a_unit), "sb": q(b_unit), "sc": q(unit), "z": q(middle, kind)}
    nodes = [node(operator, ["a", "sa", "z", "b", "sb", "z", "sc", "z"], ["y"], domain=MICROSOFT)]
    path = save(tmp_path, nodes, units, feeds, {"y": kind})
    [ours], [theirs], _ = answers(path, feeds)
    assert np.abs(ours.astype(int) - theirs).max() <= 1
    assert {ends.min, ends.max} <= {*ours.ravel().tolist()}
    held = np.isin(theirs, [ends.min, ends.max])
    assert np.abs(ours.astype(int) - theirs)[held].mean() < 0.05


@pytest.mark.parametrize("wide", [1.0, 8.0, 300.0])
def test_a_row_is_quantised_by_its_own_range(wide: float, tmp_path: Path) -> None:
    x = {"x": RNG.uniform(-1, 0.5, (1, 40)).astype(np.float32)}
    nodes = [node("DynamicQuantizeLinear", ["x"], ["y", "s", "z"])]
    path = save(tmp_path, nodes, {}, x, {"y": "uint8", "s": "float32", "z": "uint8"})
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, path)
    (y, scale, zero), (want, wanted, point), _ = answers(path, x, (-wide, wide))
    assert np.abs(y.astype(int) - want.astype(int)).max() <= 1 and (y != want).mean() < 0.1
    assert abs(int(zero) - int(point)) <= 1 and abs(scale - wanted) < 1e-5


@pytest.mark.parametrize("wide", [1.0, 100.0])
def test_ends_of_a_row_that_is_quantised_by_its_own_range_do_not_wrap_around(wide: float, tmp_path: Path) -> None:
    """A zero point and a number that are each rounded are together -1 or 256 at times, where both are nearly halves."""
    least = -(np.arange(256) % 128 + 0.5) / 255
    x = {"x": (np.stack([least, 1 + least, 0.3 * least, 0.7 + least * 0.7], axis=1) * wide).astype(np.float32)}
    path = save(tmp_path, [node("DynamicQuantizeLinear", ["x"], ["y", "s", "z"])], {}, x, {"y": "uint8"})
    low, high = x["x"].min(axis=1), x["x"].max(axis=1)
    scale = (high - low) / np.float32(255)
    right = np.clip(np.rint(x["x"] / scale[:, None]) + np.rint(-low / scale)[:, None], 0, 255)
    [found] = encrypted(compile_model(path, {"x": (-wide, wide)}), x)
    assert np.abs(found.astype(int) - right).max() <= 2


def test_each_row_of_an_open_batch_has_its_own_range(tmp_path: Path) -> None:
    x = RNG.uniform(-4, 4, (3, 8)).astype(np.float32) * np.array([[1.0], [0.1], [0.3]], np.float32)
    nodes = [
        node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        node("MatMulInteger", ["q", "w", "z", "wz"], ["i"]),
        node("Cast", ["i"], ["f"], to=TensorProto.FLOAT),
        node("Mul", ["s", "ws"], ["both"], "scales"),
        node("Mul", ["f", "both"], ["y"], "real"),
    ]
    constants = {"w": levels("uint8", 8, 4), "wz": q(117, "uint8"), "ws": q(0.02)}
    path = save(tmp_path, nodes, constants, {"x": x}, {"y": "float32"})
    [got] = encrypted(compile_model(path, {"x": (-4, 4)}), {"x": x})
    want = np.concatenate([plaintext(path, {"x": x[i : i + 1]})[0] for i in range(3)])
    quantum = np.ptp(x, axis=1, keepdims=True) / 255 * np.abs(constants["w"].astype(float) - 117).max(axis=0) * 0.02
    assert (np.abs(got - want) <= quantum).all()


def test_products_and_recurrent_layers_of_what_is_quantised_as_it_comes(tmp_path: Path) -> None:
    x, w = {"x": RNG.uniform(-1, 1, (1, 6)).astype(np.float32)}, levels("uint8", 6, 4)
    constants = {"w": w, "ws": q(0.02), "wz": q(120, "uint8"), "b": RNG.normal(size=4).astype(np.float32)}
    product = [node("DynamicQuantizeMatMul", ["x", "w", "ws", "wz", "b"], ["y"], domain=MICROSOFT)]
    quanta(save(tmp_path, product, constants, x, {"y": "float32"}), x, 2 / 255 * 0.02 * 255)
    hidden = 3
    constants = {
        "w": levels("int8", 1, 6, 4 * hidden), "ws": q(0.004).reshape(1), "wz": np.zeros(1, "int8"),
        "r": levels("int8", 1, hidden, 4 * hidden), "rs": q(0.004).reshape(1), "rz": np.zeros(1, "int8"),
        "b": RNG.normal(size=(1, 8 * hidden)).astype(np.float32), "turn": np.array([1, 1, 6]),
    }  # fmt: skip
    nodes = [
        node("Reshape", ["x", "turn"], ["t"]),
        node(
            "DynamicQuantizeLSTM", ["t", "w", "r", "b", "", "", "", "", "ws", "wz", "rs", "rz"], ["y"],
            domain=MICROSOFT, hidden_size=hidden,
        ),
    ]  # fmt: skip
    path = save(tmp_path, nodes, constants, x, {"y": "float32"})
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, path)
    quanta(path, x, 0.02)


# ------------------------------------------------------------------- files of onnxruntime's quantiser


class Rows(CalibrationDataReader):
    def __init__(self, name: str, rows: np.ndarray) -> None:
        self._rows = iter([{name: rows[i : i + 1]} for i in range(len(rows))])

    def get_next(self) -> Arrays | None:
        return next(self._rows, None)


FILES = {"A": "examples/mnist_mlp.onnx", "S": "benchmarks/networks/sarda_s.onnx"}


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def mnist(path: Path, first: int, rows: int) -> tuple[str, np.ndarray]:
    [given] = onnx.load(path).graph.input
    sizes = [dimension.dim_value for dimension in given.type.tensor_type.shape.dim][1:]
    images = np.load(ROOT / "examples/mnist_sample.npz")["images"][first : first + rows]
    return given.name, (images / 255).astype(np.float32).reshape(rows, *sizes)


STATIC = [("A", "QDQ", "QUInt8", False), ("A", "QOperator", "QUInt8", True), ("S", "QDQ", "QUInt8", True),
          ("S", "QOperator", "QInt8", True)]  # fmt: skip


@pytest.mark.parametrize(("network", "form", "kind", "columns"), STATIC)
def test_networks_that_are_quantised_by_samples(
    network: str, form: str, kind: str, columns: bool, tmp_path: Path
) -> None:
    """Real digits; every logit is the one that onnxruntime has."""
    source, path = ROOT / FILES[network], tmp_path / "quantised.onnx"
    name, calibration = mnist(source, 0, 20)
    quantize_static(
        source, path, Rows(name, calibration), quant_format=getattr(QuantFormat, form), per_channel=columns,
        activation_type=getattr(QuantType, kind), weight_type=getattr(QuantType, kind), reduce_range=kind == "QInt8",
    )  # fmt: skip
    feeds = {name: mnist(source, 500, 6)[1]}
    compiled = compile_model(path, {name: (0, 1)})
    [ours], [theirs] = encrypted(compiled, feeds), plaintext(path, feeds)
    quantum = np.diff(np.unique(theirs.round(5))).min()
    assert np.abs(ours - theirs).max() < quantum / 8


@pytest.mark.parametrize("network", ["A", pytest.param("S", marks=pytest.mark.slow)])
def test_networks_that_are_quantised_as_they_run(network: str, tmp_path: Path) -> None:
    source, path = ROOT / FILES[network], tmp_path / "quantised.onnx"
    quantize_dynamic(source, path, weight_type=QuantType.QUInt8)
    name, rows = mnist(source, 500, 1)
    [ours] = encrypted(compile_model(path, {name: (0, 1)}), {name: rows})
    theirs = np.concatenate([plaintext(path, {name: rows[i : i + 1]})[0] for i in range(len(rows))])
    assert np.abs(ours - theirs).max() < np.ptp(theirs) / 255


def test_roundings_are_left_out_if_the_model_says_so(tmp_path: Path) -> None:
    """Metadata of the file: no rounding, fewer rounds and bytes, and answers some quanta beside."""
    source, path = ROOT / FILES["A"], tmp_path / "quantised.onnx"
    name, calibration = mnist(source, 0, 20)
    kinds = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QUInt8}
    quantize_static(source, path, Rows(name, calibration), quant_format=QuantFormat.QDQ, **kinds)
    exact, model, feeds = compile_model(path, {name: (0, 1)}), onnx.load(path), {name: mnist(source, 500, 6)[1]}
    helper.set_model_props(model, {"mpc.quantised": "float"})
    short = compile_model(model, {name: (0, 1)})
    assert "step" not in {gate.kind for gate in short.plan.gates}
    costs = plan_cost(short.plan, 1), plan_cost(exact.plan, 1)
    assert costs[0].rounds < 2 / 3 * costs[1].rounds and costs[0].sent < costs[1].sent / 2
    [ours], [before], [theirs] = encrypted(short, feeds), plaintext(source, feeds), plaintext(path, feeds)
    quantum = np.diff(np.unique(theirs.round(5))).min()
    assert np.abs(ours - theirs).max() < 8 * quantum and np.abs(ours - before).max() < 8 * quantum
    helper.set_model_props(model, {"mpc.quantised": "roughly"})
    with pytest.raises(ModelError, match=r"mpc.quantised is 'roughly'"):
        compile_model(model, {name: (0, 1)})


REFUSED: dict[str, tuple[list[onnx.NodeProto], Arrays, str]] = {
    "blocks": ([node("QuantizeLinear", ["x", "s"], ["y"])], {"s": np.ones((3, 2), np.float32)}, "scales of shape"),
    "a scale of zero": ([node("QuantizeLinear", ["x", "s"], ["y"])], {"s": q(0)}, "not positive"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name: str, tmp_path: Path) -> None:
    nodes, constants, problem = REFUSED[name]
    path = save(tmp_path, nodes, constants, {"x": np.zeros((2, 4), np.float32)}, {"y": "uint8"})
    with pytest.raises(ModelError, match=problem) as caught:
        compile_model(path, {"x": (-1, 1)})
    assert caught.value.remedy
