"""Import what onnxruntime's optimiser makes of a transformer's parts: attention and projections, and embeddings."""

from __future__ import annotations

import math

import numpy as np

from mpc.compiler.graph.graph import Shape
from mpc.compiler.graph.hidden import Cut
from mpc.compiler.operators.attention import masked_scores, scores_of
from mpc.compiler.operators.calling import call, rows_at
from mpc.compiler.operators.context import Context, ModelNode, Settings
from mpc.compiler.operators.masks import MASKED
from mpc.compiler.operators.quantised import MICROSOFT
from mpc.compiler.operators.reductions import softmax_of
from mpc.compiler.operators.registry import handles

_LESS = "optimise the model less, so that it has no node for that (ORT_ENABLE_BASIC)"
_BOOL = 9
"""ONNX's number of that type."""


def _given(node: ModelNode, place: int) -> str:
    return node.input[place] if len(node.input) > place else ""


def _refuse(state: Context, node: ModelNode, places: dict[int, str]) -> None:
    """Refuse inputs that are given and have no place here."""
    for place, what in places.items():
        if _given(node, place):
            raise state.origin.refuse(f"{what} as an input", remedy=f"export the model without it, or {_LESS}")


@handles("Attention", "QAttention", domain=MICROSOFT)
def attention(state: Context, node: ModelNode, settings: Settings) -> None:
    """Compute queries, keys and values of rows (b, places, width) at once, and softmax(Q K^T) V."""
    if node.op_type == "QAttention":
        _refuse(state, node, {8: "what was before (past)"})
        x = call(
            state, "DequantizeLinear", tuple(name for name in (node.input[0], node.input[3], _given(node, 6)) if name)
        )
        weight, mask, added = _dequantised(state, node), _given(node, 5), ""
    else:
        _refuse(state, node, {4: "what was before (past)"})
        x, weight, mask, added = node.input[0], node.input[1], _given(node, 3), _given(node, 5)
    projected = call(state, "MatMul", (x, weight))
    if bias := _given(node, 2):
        projected = call(state, "Add", (projected, bias))
    heads, whole = int(settings["num_heads"]), state.size(state.shapes[projected], 2, "its projections")
    sizes = [int(size) for size in settings.get("qkv_hidden_sizes", ())] or [whole // 3] * 3
    if sum(sizes) != whole or any(size % heads for size in sizes) or settings.get("do_rotary", 0):
        raise state.origin.refuse(
            f"projections of {sizes} from {whole} in {heads} heads, or turned ones",
            attribute="qkv_hidden_sizes",
            remedy=_LESS,
        )
    ends = np.cumsum([0, *sizes]).tolist()
    q, k, v = (
        _heads(state, state.take(projected, 2, range(first, end)), heads)
        for first, end in zip(ends[:-1], ends[1:], strict=True)
    )
    _mix(state, node, settings, (q, k, v), (added, mask))


@handles("MultiHeadAttention", domain=MICROSOFT)
def multi_head_attention(state: Context, node: ModelNode, settings: Settings) -> None:
    """Compute softmax(Q K^T) V, where Q, K and V are projected before, each (b, places, width)."""
    _refuse(state, node, {6: "what was before (past)"})
    if not _given(node, 1) or not _given(node, 2):
        raise state.origin.refuse("queries, keys and values in one input", remedy=_LESS)
    heads, first, parts = int(settings["num_heads"]), 0, list[str]()
    biases = state.numbers(node.input[3], "its bias") if _given(node, 3) else None
    for name in (state.value(name) for name in node.input[:3]):
        if biases is not None:
            if len(state.shapes[name]) != 3:
                raise state.origin.refuse("a bias beside keys that have heads", remedy=_LESS)
            width = state.size(state.shapes[name], 2, "heads")
            name, first = state.scale(name, 1.0, biases[first : first + width]), first + width
        parts.append(_heads(state, name, heads))
    _mix(state, node, settings, (parts[0], parts[1], parts[2]), (_given(node, 5), _given(node, 4)))


def _mix(state: Context, node: ModelNode, settings: Settings, of: tuple[str, str, str], masks: tuple[str, str]) -> None:
    """Write softmax(scale Q K^T + masks) V of (b, heads, places, width) as (b, places, heads width).

    Args:
        masks: what is added to scores, and which places there are; empty where there is none.
    """
    q, k, v = of
    scale = settings.get("scale") or 1 / math.sqrt(state.size(state.shapes[q], 3, "heads"))
    scores = scores_of(state, q, k, float(scale))
    scores, empty = masked_scores(state, scores, masks[0], 0, {"is_causal": settings.get("unidirectional", 0)})
    if masks[1]:
        least = max(float(settings.get("mask_filter_value", MASKED)), float(np.finfo(np.float32).min))
        scores, hidden = masked_scores(state, scores, _places(state, masks[1], scores, least), 0, {})
        empty = empty | hidden
    shares = softmax_of(state, scores, [3])
    if empty.any():
        shares = state.scale(shares, (~empty).astype(np.float64))
    mixed = state.transpose(state.matmul(shares, v), (0, 2, 1, 3))
    batch, places, heads, width = state.shapes[mixed]
    together = state.size((heads,), 0, "heads") * state.size((width,), 0, "heads")
    state.reshape(mixed, (batch, places, together), node.output[0])
    for place, past in ((1, (k, v) if node.op_type != "MultiHeadAttention" else (k,)), (2, (v,))):
        if not state.unused(node, place):
            rows = [state.reshape(name, (1, *state.shapes[name])) for name in past]
            state.alias(node.output[place], state.concat(rows, 0) if len(past) > 1 else past[0])


def _heads(state: Context, x: str, heads: int) -> str:
    """Return x with an axis of heads before that of places."""
    if len(state.shapes[x]) != 3:
        return x
    batch, places, width = state.shapes[x]
    each = state.size((width,), 0, "heads") // heads
    return state.transpose(state.reshape(x, (batch, places, heads, each)), (0, 2, 1, 3))


def _places(state: Context, mask: str, scores: str, least: float) -> str:
    """Return what is added to scores where a mask of places, or of lengths, hides them."""
    batch, _, queries, keys = state.shapes[scores]
    number = state.size((keys,), 0, "a mask")
    shape = state.constants[mask].shape if state.is_constant(mask) else state.shapes[mask]
    if len(shape) == 1 and shape[0] in (batch, 1):
        name = state.fresh()
        state.constants[name] = np.arange(number)
        mask = call(state, "Less", (name, _reshaped(state, mask, (shape[0], 1, 1, 1))))
    elif len(shape) in (2, 3) and shape[-1] == keys and shape[0] in (batch, 1):
        mask = _reshaped(state, mask, (shape[0], 1, *(shape[1:] if len(shape) == 3 else (1, keys))))
        mask = call(state, "Cast", (mask,), None, {"to": _BOOL})
    else:
        raise state.origin.refuse(
            f"a mask of shape {tuple(shape)} for scores {state.shapes[scores]}",
            remedy="give one number a place, 1 where there is one and 0 where there is none; or " + _LESS,
        )
    if state.is_constant(mask):
        name = state.fresh()
        state.constants[name] = np.where(state.constants[mask], 0.0, least)
        return name
    found = state.scale(mask, -max(least, MASKED), max(least, MASKED))
    if least < MASKED:
        state.cut[found] = Cut(-2 * MASKED, least)
    return found


def _reshaped(state: Context, name: str, shape: Shape) -> str:
    if not state.is_constant(name):
        return state.reshape(name, shape)
    found = state.fresh()
    state.constants[found] = state.constants[name].reshape([int(size) for size in shape])
    return found


def _dequantised(state: Context, node: ModelNode) -> str:
    """Return the weights of a QAttention, which are constant, as the numbers that they stand for."""
    levels, scale = state.numbers(node.input[1], "its weights"), state.numbers(node.input[4], "their scale")
    zero = state.numbers(node.input[7], "their zero point") if _given(node, 7) else np.zeros(())
    name = state.fresh()
    state.constants[name] = (levels - zero) * scale
    return name


# ------------------------------------------------------------------- around it


@handles("EmbedLayerNormalization", domain=MICROSOFT)
def embed_layer_normalization(state: Context, node: ModelNode, settings: Settings) -> None:
    """Compute the normalised sum of the rows of words, of their places and perhaps of segments; count a mask's ones."""
    total = state.value(rows_at(state, node.input[2], node.input[0]))
    if places := _given(node, 8):
        total = call(state, "Add", (total, rows_at(state, node.input[3], places)))
    else:
        rows, name = state.numbers(node.input[3], "its places"), state.fresh()
        state.constants[name] = rows[: state.size(state.shapes[total], 1, "places")]
        total = call(state, "Add", (total, name))
    if (segments := _given(node, 1)) and _given(node, 4):
        total = call(state, "Add", (total, rows_at(state, node.input[4], segments)))
    reads = (total, node.input[5], node.input[6])
    settings = {"axis": -1, "epsilon": settings.get("epsilon", 1e-12)}
    call(state, "LayerNormalization", reads, node.output[0], settings)
    if not state.unused(node, 1):
        if not _given(node, 7):
            raise state.origin.refuse("a count without a mask", remedy=_LESS)
        axes = state.fresh()
        state.constants[axes] = np.array([1])
        call(state, "ReduceSum", (_given(node, 7), axes), node.output[1], {"keepdims": 0})
    if not state.unused(node, 2):
        state.alias(node.output[2], total)


@handles("SimplifiedLayerNormalization", domain=MICROSOFT)
def simplified_layer_normalization(state: Context, node: ModelNode, settings: Settings) -> None:
    """Divide rows by the root of their mean square."""
    if not state.unused(node, 1):
        raise state.origin.refuse("its deviation as an output", remedy=_LESS)
    call(state, "RMSNormalization", tuple(node.input), node.output[0], settings)


@handles("SkipSimplifiedLayerNormalization", domain=MICROSOFT)
def skip_simplified_layer_normalization(state: Context, node: ModelNode, settings: Settings) -> None:
    """Divide the sum of two values and perhaps a bias by the root of its mean square; or return the sum too."""
    total = call(state, "Add", tuple(node.input[:2]))
    if bias := _given(node, 3):
        total = call(state, "Add", (total, bias))
    if not (state.unused(node, 1) and state.unused(node, 2)):
        raise state.origin.refuse("its mean or deviation as an output", remedy=_LESS)
    settings = {"axis": -1, "epsilon": settings.get("epsilon", 1e-12)}
    call(state, "RMSNormalization", (total, node.input[2]), node.output[0], settings)
    if not state.unused(node, 3):
        state.alias(node.output[3], total)
