"""Sums of which something is known: of a softmax's shares, times constants and added up, and of its powers, spelt out.

ConViT mixes two softmaxes by a gate and divides the mixture by its sum, which is 1; bounds show of it that it can be 0.
Of the powers of x - max x none is above one, and the largest of a row is one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mpc.compiler.graph.attributes import Sum, Weighted
from mpc.compiler.operators.context import Context
from mpc.compiler.operators.facts import Beneath, Ordered, Powers, Top
from mpc.wires import BATCH

_DEEPEST = 8


def constant_sum(state: Context, x: str, axes: list[int], out: str, keep: bool) -> bool:
    """Write the sum of x over its last axis as a constant, if it is one and only quotients read it; or return False."""
    rank = len(state.shapes[x])
    if axes != [rank - 1] or (state.splits and not state.told) or not _only_divides(state, out):
        return False
    total = _total(state, x, _DEEPEST)
    if total is None:
        return False
    state.constants[out] = np.asarray(total if keep else total[..., 0], np.float32)
    return True


def _only_divides(state: Context, name: str) -> bool:
    readers = state.readers.get(name, [])
    if not readers or name in state.revealed:
        return False
    return all(
        (each.op_type == "Div" and each.input[1] == name and each.input[0] != name)
        or (each.op_type == "Unsqueeze" and _only_divides(state, each.output[0]))
        for each in readers
    )


def _total(state: Context, x: str, deep: int) -> np.ndarray | None:
    """Return the sums of x over its last axis, which stays with size 1; other axes may be broadcast."""
    fact, rank = state.facts.get(x), len(state.shapes[x])
    if isinstance(fact, Ordered) and fact.shares and fact.axes == (rank - 1,):
        return np.ones([1] * rank)
    node = next((node for node in reversed(state.nodes) if node.writes == x), None) if deep else None
    if node is None:
        return None
    shapes = [state.shapes[name] for name in node.reads]
    if any(len(shape) != rank or shape[-1] != state.shapes[x][-1] for shape in shapes):
        return None
    parts = [_total(state, name, deep - 1) for name in node.reads]
    if node.op == "scale":
        taken, [part] = node.of(Weighted), parts
        weight = taken.weight.reshape([1] * (rank - taken.weight.ndim) + [*taken.weight.shape])
        plain = taken.bias is None or not taken.bias.any()
        return weight * part if part is not None and plain and weight.shape[-1] == 1 else None
    if node.op == "sum" and not node.of(Sum).constant and node.of(Sum).fills is None:
        found = [part * factor for part, factor in zip(parts, node.of(Sum).factors, strict=True) if part is not None]
        return np.asarray(sum(found)) if len(found) == len(parts) else None
    return None


def is_top(state: Context, top: str, x: str) -> bool:
    """Is a value the maximum of each row of x along its last axis, one for a row or repeated for each element?"""
    if state.facts.get(top) != Top(x) or not state.shapes[x]:
        return False
    return state.shapes[top] in ((*state.shapes[x][:-1], 1), state.shapes[x])


def powers(state: Context, x: str, out: str) -> bool:
    """Write e to the power of x as a softmax does; False, and nothing, if x is not beneath a maximum."""
    number = state.shapes[x][-1] if state.facts.get(x) == Beneath() else BATCH
    if number == BATCH:
        return False
    state.function("exp_negative", x, out, known=(0.0, 1.0), terms=float(number))
    state.facts[out] = Powers()
    return True


def total_of(state: Context, x: str, axes: Sequence[int]) -> str:
    """Return the sum over axes; of all powers of a row it is one at least."""
    whole = state.facts.get(x) == Powers() and [*axes] == [len(state.shapes[x]) - 1]
    return state.total(x, axes, known=(1.0, float(state.count(x, axes))) if whole else None)
