"""Import attention of which several heads of queries share one of keys, as onnxruntime writes it for text models."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from mpc.compiler.operators.context import Context, ModelNode, Settings
from mpc.compiler.operators.quantised import MICROSOFT
from mpc.compiler.operators.registry import HANDLERS, handles
from mpc.compiler.operators.rotary import turned

_WHOLE = "export the model for whole texts: without a cache (use_cache=False), and each row as long as the others"
_REFUSED = {
    3: "what was before (past)", 4: "what was before (past)", 10: "something added to its scores", 11: "a sink",
}  # fmt: skip


@handles("GroupQueryAttention", domain=MICROSOFT)
def group_query_attention(state: Context, node: ModelNode, settings: Settings) -> None:
    """Compute softmax(Q K^T) V of whole texts, in which no place sees a later one; Q and K may be turned first."""
    given = [*node.input, *[""] * (12 - len(node.input))]
    for place, what in _REFUSED.items():
        if given[place]:
            raise state.origin.refuse(f"{what} as an input", remedy=_WHOLE)
    if not given[1] or not given[2] or settings.get("smooth_softmax", 0):
        raise state.origin.refuse("queries, keys and values in one input, or a smooth softmax", remedy=_WHOLE)
    q, k, v = (state.value(name) for name in given[:3])
    number = state.size(state.shapes[q], 1, "places")
    lengths = state.constant(given[5], "its lengths")
    if (lengths != number - 1).any():
        raise state.origin.refuse(f"rows of other lengths than {number}", remedy=_WHOLE)
    heads = {"q_num_heads": int(settings["num_heads"]), "kv_num_heads": int(settings["kv_num_heads"])}
    if settings.get("do_rotary", 0):
        places = given[9] or state.fresh()
        if not given[9]:
            state.constants[places] = np.arange(number)[None]
        how = {"interleaved": settings.get("rotary_interleaved", 0)}
        q, k = (
            turned(state, x, (given[7], given[8]), places, {**how, "num_heads": each})
            for x, each in zip((q, k), heads.values(), strict=True)
        )
    told: dict[str, Any] = {**heads, "is_causal": 1}
    told.update({name: settings[name] for name in ("scale", "softcap") if settings.get(name)})
    if (window := int(settings.get("local_window_size", -1))) > 0:
        told["left_window_size"] = window - 1
    inner = replace(node, op_type="Attention", input=(q, k, v), read=lambda: told, domain="")
    HANDLERS["ai.onnx", "Attention"](state, inner, told)
