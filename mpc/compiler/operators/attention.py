"""Import attention as one operator, which exports for ONNX's opset 23 and later have."""

from __future__ import annotations

import math

import numpy as np

from mpc.compiler.graph.hidden import Cut
from mpc.compiler.operators.context import Context, ModelNode, Settings
from mpc.compiler.operators.masks import MASKED, add_mask
from mpc.compiler.operators.reductions import softmax_of
from mpc.compiler.operators.registry import handles

_INPUTS = 7
_WITH_MASK = 2


@handles("Attention")
def attention(state: Context, node: ModelNode, settings: Settings) -> None:
    """Compute softmax(scale Q K^T + mask) V for each head; a head of keys serves several of queries."""
    named = [*node.input, *[""] * (_INPUTS - len(node.input))]
    if named[6]:
        raise state.origin.refuse(
            "its rows have lengths of their own (nonpad_kv_seqlen)", remedy="give it a mask of their places instead"
        )
    first, *others = (state.value(name) for name in named[:3])
    q = _heads(state, first, settings.get("q_num_heads"))
    k, v = (_heads(state, name, settings.get("kv_num_heads")) for name in others)
    before = 0
    if named[4]:
        past = state.value(named[4])
        before = state.size(state.shapes[past], 2, "the past")
        k, v = state.concat((past, k), 2), state.concat((state.value(named[5]), v), 2)
    for position, name in ((1, k), (2, v)):
        if not state.unused(node, position):
            state.reshape(name, state.shapes[name], node.output[position])
    groups = state.size(state.shapes[q], 1, "heads") // state.size(state.shapes[k], 1, "heads")
    if groups > 1:
        k, v = (state.take(x, 1, np.repeat(range(int(state.shapes[x][1])), groups).tolist()) for x in (k, v))
    scale = settings.get("scale") or 1 / math.sqrt(state.size(state.shapes[q], 3, "heads"))
    scores = scores_of(state, q, k, float(scale), float(settings.get("softcap", 0.0)))
    masked, empty = masked_scores(state, scores, named[3], before, settings)
    shares = softmax_of(state, masked, [3])
    if empty.any():  # as nothing is seen from there, nothing comes of it
        shares = state.scale(shares, (~empty).astype(np.float64))
    if not state.unused(node, 3):
        mode = settings.get("qk_matmul_output_mode", 0)
        if mode == _WITH_MASK and masked in state.below:
            raise state.origin.refuse(
                "its fourth output has the infinities of its mask",
                attribute="qk_matmul_output_mode",
                remedy="use another mode, or leave that output out",
            )
        told = (scores, scores, masked, shares)[mode]
        state.reshape(told, state.shapes[told], node.output[3])
    mixed = state.matmul(shares, v)
    if len(state.shapes[first]) < len(state.shapes[mixed]):
        batch, heads, places, width = state.shapes[mixed]
        together = state.size((heads,), 0, "heads") * state.size((width,), 0, "heads")
        mixed = state.reshape(state.transpose(mixed, (0, 2, 1, 3)), (batch, places, together))
    state.reshape(mixed, state.shapes[mixed], node.output[0])


def _heads(state: Context, x: str, heads: int | None) -> str:
    """Return x with an axis of heads before that of places."""
    shape = state.shapes[x]
    if len(shape) != 3:
        return x
    if heads is None:
        raise state.origin.refuse("it does not say how many heads it has", remedy="give q_num_heads and kv_num_heads")
    width = state.size(shape, 2, "heads") // heads
    return state.transpose(state.reshape(x, (shape[0], shape[1], heads, width)), (0, 2, 1, 3))


def scores_of(state: Context, q: str, k: str, scale: float, cap: float = 0.0) -> str:
    """Return scale Q K^T, and its tangent between minus and plus the cap if there is one."""
    scores = state.scale(state.matmul(q, state.transpose(k, (0, 1, 3, 2))), scale)
    return scores if cap <= 0.0 else state.scale(state.function("tanh", state.scale(scores, 1 / cap)), cap)


def masked_scores(state: Context, scores: str, mask: str, before: int, settings: Settings) -> tuple[str, np.ndarray]:
    """Return scores with all masks, and which rows they hide whole by constants alone: an array that broadcasts.

    Args:
        mask: what is added, or where scores stay; empty if nothing is.
        before: how many keys there are before the first query's own.
    """
    queries, keys = (state.size(state.shapes[scores], axis, "a mask") for axis in (2, 3))
    apart = np.arange(keys) - np.arange(queries)[:, None] - before  # how much later a key stands than a query
    hidden = (apart > 0) if settings.get("is_causal", 0) else np.zeros((queries, keys), bool)
    for side, sign in (("left_window_size", -1), ("right_window_size", 1)):
        if (most := settings.get(side, -1)) >= 0:
            hidden = hidden | (sign * apart > most)
    added = np.where(hidden, -np.inf, 0.0)
    if mask and state.is_constant(mask):
        given = state.constants[mask]
        values = np.where(given, 0.0, -np.inf) if given.dtype == bool else state.numbers(mask, "the mask")
        missing = [(0, 0)] * (values.ndim - 1) + [(0, keys - values.shape[-1])]
        added = added + np.pad(values, missing, constant_values=-np.inf)
    elif mask:
        value = state.value(mask)
        if state.inferred(mask) == "bool":
            value = state.scale(value, -MASKED, MASKED)
            state.cut[value] = Cut(-2 * MASKED, -np.inf)
        scores = state.sum((scores, value), (1.0, 1.0))
    found = add_mask(state, scores, added) if added.any() else scores
    return found, np.asarray(np.isneginf(added).all(axis=-1, keepdims=True))
