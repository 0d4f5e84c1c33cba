"""Import what onnxruntime makes of several operators of a model when it optimises it, or packs its weights."""

from __future__ import annotations

import numpy as np

from mpc.compiler.operators.calling import call
from mpc.compiler.operators.context import Context, ModelNode, Settings
from mpc.compiler.operators.quantised import MICROSOFT
from mpc.compiler.operators.registry import handles

_ACTIVATIONS = {
    "Relu": (), "Tanh": (), "Sigmoid": (), "LeakyRelu": ("alpha",), "HardSigmoid": ("alpha", "beta"),
    "Clip": ("min", "max"),
}  # fmt: skip
"""Operators that stand behind a layer, and their parameters."""


def _given(node: ModelNode, place: int) -> str:
    return node.input[place] if len(node.input) > place else ""


def _activated(state: Context, x: str, settings: Settings, parameters: list[float], out: str) -> None:
    """Apply the activation of a layer, if it has one."""
    name = settings.get("activation", b"").decode()
    if not name:
        state.alias(out, x)
        return
    if name not in _ACTIVATIONS:
        raise state.origin.refuse(
            f"the activation {name!r}",
            attribute="activation",
            remedy=f"optimise the model less (ORT_ENABLE_BASIC); possible are {', '.join(_ACTIVATIONS)}",
        )
    call(state, name, (x,), out, dict(zip(_ACTIVATIONS[name], parameters, strict=False)))


@handles("FusedGemm", domain=MICROSOFT)
def fused_gemm(state: Context, node: ModelNode, settings: Settings) -> None:
    own = {name: value for name, value in settings.items() if not name.startswith("activation")}
    parameters = [settings[name] for name in ("activation_alpha", "activation_beta") if name in settings]
    found = call(state, "Gemm", node.input, None, own)
    _activated(state, found, settings, parameters, node.output[0])


@handles("FusedConv", domain=MICROSOFT)
def fused_convolution(state: Context, node: ModelNode, settings: Settings) -> None:
    """Convolve, add what a fourth input has, and apply an activation."""
    own = {name: value for name, value in settings.items() if not name.startswith("activation")}
    found = call(state, "Conv", tuple(node.input[:3]), None, own)
    if added := _given(node, 3):
        found = call(state, "Add", (found, added))
    _activated(state, found, settings, list(settings.get("activation_params", ())), node.output[0])


@handles("FusedMatMul", domain=MICROSOFT)
def fused_matmul(state: Context, node: ModelNode, settings: Settings) -> None:
    """Compute alpha A B, of either the last two axes turned."""
    if settings.get("transBatchA", 0) or settings.get("transBatchB", 0):
        raise state.origin.refuse(
            "the batch's axes turned",
            attribute="transBatchA",
            remedy="optimise the model less (ORT_ENABLE_BASIC), so that it has a Transpose for that",
        )
    reads = [
        _turned(state, name) if settings.get(turn, 0) else name
        for name, turn in zip(node.input[:2], ("transA", "transB"), strict=True)
    ]
    alpha = float(settings.get("alpha", 1.0))
    found = call(state, "MatMul", tuple(reads), node.output[0] if alpha == 1.0 else None)
    if alpha != 1.0:
        state.scale(found, alpha, 0.0, node.output[0])


def _turned(state: Context, name: str) -> str:
    """Return a value with its last two axes turned; one with fewer stays."""
    if state.is_constant(name):
        values, turned = state.constants[name], state.fresh()
        state.constants[turned] = values if values.ndim < 2 else np.swapaxes(values, -1, -2)
        return turned
    rank = len(state.secret(name))
    return name if rank < 2 else state.transpose(name, (*range(rank - 2), rank - 1, rank - 2))


@handles("Gelu", "BiasGelu", "FastGelu", "QuickGelu", domain=MICROSOFT)
def gelu(state: Context, node: ModelNode, settings: Settings) -> None:
    """Compute GELU of a value and perhaps a bias; FastGelu's is that by tanh, QuickGelu's x sigmoid(alpha x)."""
    x = call(state, "Add", tuple(node.input[:2])) if _given(node, 1) else state.value(node.input[0])
    if node.op_type == "QuickGelu":
        call(state, "Swish", (x,), node.output[0], {"alpha": settings.get("alpha", 1.702)})
    else:
        how = b"tanh" if node.op_type == "FastGelu" else b"none"
        call(state, "Gelu", (x,), node.output[0], {"approximate": how})


@handles("SkipLayerNormalization", domain=MICROSOFT)
def skip_layer_normalization(state: Context, node: ModelNode, settings: Settings) -> None:
    """Compute the normalised sum of two values and perhaps a bias: input, skip, gain, shift, bias; or the sum too."""
    total = call(state, "Add", tuple(node.input[:2]))
    if bias := _given(node, 4):
        total = call(state, "Add", (total, bias))
    outputs = (*node.output, "", "", "")[:4]
    if any(outputs[1:3]):
        raise state.origin.refuse(
            "its mean or deviation as an output", remedy="optimise the model less (ORT_ENABLE_BASIC)"
        )
    reads = (total, node.input[2], *filter(None, [_given(node, 3)]))
    call(state, "LayerNormalization", reads, outputs[0], {"axis": -1, "epsilon": settings.get("epsilon", 1e-12)})
    if outputs[3]:
        state.alias(outputs[3], total)


# ------------------------------------------------------------------- packed weights


@handles("MatMulNBits", domain=MICROSOFT)
def matmul_of_few_bits(state: Context, node: ModelNode, settings: Settings) -> None:
    """Compute A W^T, where W has few bits an element and a scale for each block of a row; and add a bias."""
    if _given(node, 4):
        raise state.origin.refuse("columns in groups", attribute="g_idx", remedy="quantise the model without an order")
    rows, columns = int(settings["N"]), int(settings["K"])
    bits, size = int(settings.get("bits", 4)), int(settings["block_size"])
    if bits not in (2, 4, 8) or rows < 1 or columns < 1 or size < 1:
        raise state.origin.refuse(f"elements of {bits} bits", attribute="bits", remedy="use 4 or 8")
    blocks = -(-columns // size)
    packed, scales = state.constant(node.input[1], "its weights"), state.numbers(node.input[2], "its scales")
    levels = _unpacked(packed, bits)
    if levels.size != rows * blocks * size or scales.size != rows * blocks:
        raise state.origin.refuse(
            f"weights of {packed.shape} and {scales.size} scales for {rows} rows of {columns} in blocks of {size}",
            remedy="quantise the model anew (onnxruntime.quantization.matmul_nbits_quantizer)",
        )
    zeros = np.full((rows, blocks), float(1 << (bits - 1)))
    if name := _given(node, 3):
        points = state.constant(name, "its zero points")
        if points.dtype == np.uint8:
            zeros = _unpacked(points.reshape(rows, -1), bits)[:, :blocks].astype(np.float64)
        else:
            zeros = points.reshape(rows, blocks).astype(np.float64)
    apart = levels.reshape(rows, blocks, size).astype(np.float64) - zeros[:, :, None]
    weight, name = apart * scales.reshape(rows, blocks, 1), state.fresh()
    state.constants[name] = weight.reshape(rows, blocks * size)[:, :columns].T
    bias = _given(node, 5)
    found = call(state, "MatMul", (node.input[0], name), None if bias else node.output[0])
    if bias:
        call(state, "Add", (found, bias), node.output[0])


def _unpacked(values: np.ndarray, bits: int) -> np.ndarray:
    """Return numbers of few bits that lie in bytes along the last axis, the first in the lowest bits."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    found = (values[..., None].astype(np.uint8) >> shifts) & np.uint8((1 << bits) - 1)
    return np.asarray(found.reshape(*values.shape[:-1], -1))
