"""What onnxruntime makes of several operators, and weights of few bits that it packs, beside onnxruntime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from mpc.compiler.compile import compile_model
from mpc.errors import ModelError
from tests.support.graphs import node
from tests.support.models import assert_agrees, encrypted

MICROSOFT = "com.microsoft"
RNG = np.random.default_rng(9)
RANGE = {"x": (-2.0, 2.0)}


def drawn(*shape: int) -> np.ndarray:
    return RNG.uniform(-1, 1, shape).astype(np.float32)


def saved(folder: Path, nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], shape: tuple[int, ...]) -> Path:
    [x] = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *shape])]
    outputs = [onnx.ValueInfoProto(name=name) for name in ("y", "z") if any(name in each.output for each in nodes)]
    stored = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid(MICROSOFT, 1)]
    model = helper.make_model(helper.make_graph(nodes, "fused", [x], outputs, stored), opset_imports=opsets)
    model.ir_version = 10
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    return folder / "model.onnx"


def fused(operator: str, reads: list[str], *writes: str, **settings: object) -> onnx.NodeProto:
    return node(operator, reads, [*writes] or ["y"], domain=MICROSOFT, **settings)


W, B, ROW = drawn(6, 4), drawn(4), drawn(6)
CASES: dict[str, tuple[list[onnx.NodeProto], dict[str, np.ndarray], tuple[int, ...]]] = {
    "gemm": ([fused("FusedGemm", ["x", "w", "b"], activation="Relu", alpha=0.5)], {"w": W, "b": B}, (6,)),
    "gemm, leaky": (
        [fused("FusedGemm", ["x", "w", "b"], activation="LeakyRelu", activation_alpha=0.2, transB=1)],
        {"w": W.T.copy(), "b": B}, (6,),
    ),
    "convolution": (
        [fused("FusedConv", ["x", "w", "b"], activation="Clip", activation_params=[-0.2, 0.9], pads=[1, 1, 1, 1])],
        {"w": drawn(3, 2, 3, 3), "b": drawn(3)}, (2, 5, 5),
    ),
    "convolution and a sum": (
        [
            node("Conv", ["x", "v"], ["r"], name="first", kernel_shape=[1, 1]),
            fused("FusedConv", ["x", "w", "b", "r"], activation="Relu", pads=[1, 1, 1, 1]),
        ],
        {"w": drawn(2, 2, 3, 3), "b": drawn(2), "v": drawn(2, 2, 1, 1)}, (2, 5, 5),
    ),
    "scores": ([fused("FusedMatMul", ["x", "x"], transB=1, alpha=0.25)], {}, (3, 6)),
    "a turned constant": ([fused("FusedMatMul", ["x", "w"], transB=1)], {"w": W.T.copy()}, (3, 6)),
    "gelu": ([fused("Gelu", ["x"])], {}, (6,)),
    "gelu of a bias": ([fused("BiasGelu", ["x", "r"])], {"r": ROW}, (6,)),
    "fast gelu": ([fused("FastGelu", ["x", "r"])], {"r": ROW}, (6,)),
    "quick gelu": ([fused("QuickGelu", ["x"], alpha=1.702)], {}, (6,)),
    "skipped": (
        [
            fused("BiasGelu", ["x", "r"], "s"),
            fused("SkipLayerNormalization", ["x", "s", "g", "h", "r"], "y", "", "", "z", epsilon=1e-5),
        ],
        {"r": ROW, "g": drawn(6) + 2, "h": drawn(6)}, (3, 6),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_fused_operators(name: str, tmp_path: Path) -> None:
    nodes, constants, shape = CASES[name]
    assert_agrees(saved(tmp_path, nodes, constants, shape), {"x": drawn(2, *shape)}, RANGE, 2e-4)


def packed(levels: np.ndarray, bits: int) -> np.ndarray:
    """Numbers of few bits in bytes along the last axis, as onnxruntime's quantiser packs them; zeros fill the last."""
    each = 8 // bits
    levels = np.pad(levels, [(0, 0)] * (levels.ndim - 1) + [(0, -levels.shape[-1] % each)])
    parts = levels.reshape(*levels.shape[:-1], -1, each).astype(np.uint8) << np.arange(0, 8, bits, dtype=np.uint8)
    return np.bitwise_or.reduce(parts, axis=-1)


@pytest.mark.parametrize("size", [16, 32])
@pytest.mark.parametrize(("zeros", "bits"), [("none", 4), ("none", 8), ("packed", 4), ("packed", 8), ("reals", 4)])
def test_packed_weights(zeros: str, bits: int, size: int, tmp_path: Path) -> None:
    """40 columns: the last block is not full, and of three zero points of 4 bits the last byte is not."""
    blocks, rows = -(-40 // size), 5
    points = RNG.integers(0, 1 << bits, (rows, blocks))
    constants = {
        "q": packed(RNG.integers(0, 1 << bits, (rows, blocks, size)), bits),
        "s": np.abs(drawn(rows, blocks)) / (1 << bits),
        "z": packed(points, bits) if zeros == "packed" else points.astype(np.float32),
        "b": drawn(rows),
    }
    reads = ["x", "q", "s", *(["", "", "b"] if zeros == "none" else ["z"])]
    settings = {"K": 40, "N": rows, "bits": bits, "block_size": size}
    used = {name: value for name, value in constants.items() if name in reads}
    path = saved(tmp_path, [fused("MatMulNBits", reads, **settings)], used, (3, 40))
    assert_agrees(path, {"x": drawn(2, 3, 40)}, RANGE, 1e-3)


@pytest.mark.parametrize("axis", [0, 1])
def test_weights_with_a_scale_for_each_block(axis: int, tmp_path: Path) -> None:
    levels = RNG.integers(-128, 128, (6, 4)).astype(np.int8)
    blocks = (3, 4) if axis == 0 else (6, 2)
    constants = {"q": levels, "s": np.abs(drawn(*blocks)) / 64, "p": RNG.integers(-9, 9, blocks).astype(np.int8)}
    nodes = [
        node("DequantizeLinear", ["q", "s", "p"], ["w"], axis=axis, block_size=2),
        node("MatMul", ["x", "w"], ["y"]),
    ]
    path = saved(tmp_path, nodes, constants, (6,))
    compiled, x = compile_model(path, RANGE), drawn(3, 6)
    scale, point = (np.repeat(constants[name].astype(np.float64), 2, axis) for name in "sp")
    [found] = encrypted(compiled, {"x": x})
    np.testing.assert_allclose(found, x @ ((levels - point) * scale), atol=1e-4)


def test_a_model_that_onnxruntime_has_optimised(tmp_path: Path) -> None:
    """Its fused operators are those that are imported."""
    nodes = [
        node("MatMul", ["x", "q"], ["a"], name="q"), node("MatMul", ["x", "k"], ["b"], name="k"),
        node("Transpose", ["b"], ["t"], perm=[0, 2, 1]), node("MatMul", ["a", "t"], ["s"], name="s"),
        node("Mul", ["s", "half"], ["u"]), node("Softmax", ["u"], ["p"], axis=-1), node("MatMul", ["p", "x"], ["v"]),
        node("Add", ["x", "v"], ["r"], name="skip"), node("LayerNormalization", ["r", "g", "h"], ["n"], axis=-1),
        node("MatMul", ["n", "w"], ["m"], name="w"), node("Add", ["m", "c"], ["o"], name="bias"),
        node("Gelu", ["o"], ["y"]),
    ]  # fmt: skip
    constants = {"q": drawn(6, 6), "k": drawn(6, 6), "half": np.float32(0.5), "g": drawn(6) + 2, "h": drawn(6)}
    path = saved(tmp_path, nodes, {**constants, "w": W, "c": B}, (3, 6))
    settings = onnxruntime.SessionOptions()
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    settings.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    optimised = onnx.load(tmp_path / "optimised.onnx")
    assert {"FusedMatMul", "SkipLayerNormalization"} <= {each.op_type for each in optimised.graph.node}
    assert_agrees(tmp_path / "optimised.onnx", {"x": drawn(2, 3, 6)}, RANGE, 1e-3)


REFUSED: dict[str, tuple[list[onnx.NodeProto], dict[str, np.ndarray], str]] = {
    "an activation": ([fused("FusedGemm", ["x", "w", "b"], activation="Elu")], {"w": W, "b": B}, "the activation"),
    "axes of a batch": ([fused("FusedMatMul", ["x", "w"], transBatchA=1)], {"w": W}, "the batch's axes turned"),
    "a block's scales": (
        [node("DequantizeLinear", ["q", "s"], ["w"], axis=0, block_size=2), node("MatMul", ["x", "w"], ["y"])],
        {"q": np.zeros((6, 4), np.int8), "s": np.ones((2, 4), np.float32)}, "in blocks of 2",
    ),
    "packed weights": (
        [fused("MatMulNBits", ["x", "q", "s"], K=6, N=4, bits=4, block_size=16)],
        {"q": np.zeros((4, 2, 8), np.uint8), "s": np.ones(4, np.float32)}, "for 4 rows of 6",
    ),
    "groups": (
        [fused("MatMulNBits", ["x", "q", "s", "", "g"], K=6, N=4, bits=4, block_size=16)],
        {"q": np.zeros((4, 1, 8), np.uint8), "s": np.ones(4, np.float32), "g": np.zeros(6, np.int32)}, "in groups",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name: str, tmp_path: Path) -> None:
    nodes, constants, problem = REFUSED[name]
    with pytest.raises(ModelError, match=problem) as caught:
        compile_model(saved(tmp_path, nodes, constants, (6,)), RANGE)
    assert caught.value.remedy
