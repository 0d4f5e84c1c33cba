"""Places and ranks along an axis: which element is the largest, which are the first k."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mpc.compiler.graph.attributes import ArgMax, Function, Round, Weigh
from mpc.compiler.graph.graph import Node
from mpc.compiler.operators.absorbed import note_places
from mpc.compiler.operators.context import Context, ModelNode, Settings
from mpc.compiler.operators.facts import Ordered, Place, Softplus
from mpc.compiler.operators.labels import one_hot
from mpc.compiler.operators.logic import between
from mpc.compiler.operators.registry import handles

_MOST_RANKED = 256
_MOST_PLACES = 128
_GROUP = 16
_RANKED_FRACTION = 28
"""Fractional bits of what is ranked: as many as an input has at most."""
_RANKED_BITS = 48
_RISING = frozenset({"sigmoid", "tanh", "erf", "exp", "log", "sqrt", "atan", "asinh", "sinh"})
_ELEMENTWISE = frozenset({"multiply", "reshape", "scale", "sum"})


@handles("ArgMax", "ArgMin")
def argmax(state: Context, node: ModelNode, settings: Settings) -> None:
    x = state.value(node.input[0])
    shape = state.shapes[x]
    axis = state.axis(settings.get("axis", 0), shape)
    x = compared(state, x, axis)
    note_places(state, x, axis, 1, 1.0 if node.op_type == "ArgMax" else -1.0)
    moved, back = state.last(x if node.op_type == "ArgMax" else state.scale(x, -1.0), [axis])
    place = argmax_of(state, moved, bool(settings.get("select_last_index", 0)))
    if settings.get("keepdims", 1):
        place = place if back == tuple(range(len(shape))) else state.transpose(place, back)
        state.reshape(place, state.shapes[place], node.output[0])
    else:
        state.reshape(place, state.shapes[place][:-1], node.output[0])
    state.facts[node.output[0]] = Place()


def compared(state: Context, x: str, axis: int) -> str:
    """Return what to compare instead of x along an axis: behind a softmax, or a function that rises, its argument.

    Equals stay equal so; a note says where they do not, since functions round each element by itself.
    """
    match state.facts.get(x):
        case Ordered(of, axes) if axis in axes and state.shapes[of] == state.shapes[x]:
            return compared(state, of, axis)
        case Softplus(of) if state.shapes[of] == state.shapes[x] and state.value(of) not in state.below:
            return compared(state, state.value(of), axis)
    writers = {node.writes: node for node in state.nodes}
    node = writers.get(x)
    rises = node is not None and node.op == "function" and node.of(Function).name in _RISING
    if node is not None and rises and node.reads[0] not in state.below:
        return compared(state, node.reads[0], axis)
    if _is_rounded(writers, x):
        state.note(
            "each number that is compared here was rounded by itself, behind a function: of numbers that are equal in "
            "the model any may come first"
        )
    return x


def _is_rounded(writers: Mapping[str, Node], x: str) -> bool:
    """Is a value made of functions, element by element?"""
    ahead, seen = [x], {x}
    while ahead:
        node = writers.get(ahead.pop())
        if node is not None and node.op == "function":
            return True
        if node is not None and node.op in _ELEMENTWISE:
            ahead += set(node.reads) - seen
            seen.update(node.reads)
    return False


def argmax_of(state: Context, x: str, last: bool = False) -> str:
    """Find the place of the largest along the last axis, which stays with size 1."""
    shape = state.shapes[x]
    if state.size(shape, -1, "a maximum") == 1:
        raise state.origin.refuse("the largest of one element", remedy="leave it out: its result is always 0")
    number = int(shape[-1])
    if number > _MOST_PLACES:
        return _place_of_many(state, x, number, last=last)
    name = state.emit("argmax", (x,), None, (*shape[:-1], 1), ArgMax(last=last))
    state.integral.add(name)
    state.facts[name] = Place()
    return name


def _place_of_many(state: Context, x: str, number: int, *, last: bool) -> str:
    """The place within the group of the largest maximum, which a one-hot place of that group chooses."""
    lead, axis = state.shapes[x][:-1], len(state.shapes[x]) - 1
    groups = -(-number // _GROUP)
    order = [min(i, number - 1) for i in range(groups * _GROUP)]  # the last one again is never the first of equals
    order = [number - 1 - i for i in order] if last else order
    grouped = state.reshape(state.take(x, axis, order), (*lead, groups, _GROUP))
    local = state.reshape(argmax_of(state, grouped), (*lead, groups))
    top = state.reshape(state.maximum(grouped), (*lead, groups))
    apart = state.emit(
        "round", (top,), None, state.shapes[top], Round(fraction=_RANKED_FRACTION, apart=-1, always=True)
    )
    group = argmax_of(state, apart)
    hot = state.reshape(one_hot(state, group, range(groups)), (*lead, groups))
    chosen = state.total(state.multiply(hot, local), (axis,), known=(0.0, float(_GROUP - 1)))
    place = state.sum((group, chosen), (float(_GROUP), 1.0))
    place = state.sum((place,), (-1.0,), None, float(number - 1)) if last else place
    state.integral.add(place)
    state.facts[place] = Place()
    return place


def _ranked_instead(k: int, n: int) -> str:
    """Word the remedy where k of n cannot be ranked."""
    if n == 1:
        return "leave it out: of one element it changes nothing"
    if not 1 <= k <= n:
        return f"ask for 1 to {n}"
    fewer = (
        f"rank at most {_MOST_RANKED}: for nearest neighbours, fit the model to so many prototypes of the training "
        "points (KMeans centres of each class)"
    )
    alone = "take the place with ArgMax or ArgMin, which has no such limit; or " if k == 1 else ""
    return (
        f"{alone}{fewer}; or end the model before the ranking (onnx.utils.extract_model) and rank what is revealed, "
        "which shows every distance or score to its reader"
    )


@handles("TopK")
def top_k(state: Context, node: ModelNode, settings: Settings) -> None:
    """Compare every pair once; an element's rank is how many beat it, the first of equals winning.

    One-hot places of ranks 0 .. k - 1 are differences of steps of the ranks.
    """
    given = state.optional(node, 1, "k")
    k = int(settings["k"] if given is None else given.reshape(-1)[0])
    sign = 1.0 if settings.get("largest", 1) else -1.0
    x = state.value(node.input[0])
    axis = state.axis(settings.get("axis", -1), state.shapes[x])
    moved, back = state.last(x, [axis])
    ranked = compared(state, x, axis)
    keys, _ = state.last(ranked, [axis])
    n = state.size(state.shapes[moved], -1, "a ranking")
    if not 1 <= k <= n or n > _MOST_RANKED or n == 1:
        raise state.origin.refuse(
            f"the {k} largest of {n}; 2 to {_MOST_RANKED} elements can be ranked", remedy=_ranked_instead(k, n)
        )
    note_places(state, ranked, axis, k, sign)
    rounded = state.emit("round", (moved,), None, state.shapes[moved], Round())
    chosen = _one_hot(state, _ranks(state, _apart(state, keys, sign), n, sign), n, k)
    lead = state.shapes[moved][:-1]
    row = state.reshape(rounded, (*lead, 1, n))
    values = state.reshape(state.matmul(row, chosen), (*lead, k))
    weighed = state.emit(
        "weigh", (chosen,), None, (*lead, n, k), Weigh(axis=len(lead), factors=tuple(map(float, range(n))))
    )
    state.integral.add(weighed)
    places = state.reshape(state.total(weighed, (len(lead),)), (*lead, k))
    for name, found in zip(node.output, (values, places), strict=False):
        if name:
            state.transpose(found, back, name)


def _apart(state: Context, x: str, sign: float) -> str:
    """Round x, and make each element worse than the one before it by as much as rounding can change."""
    return state.emit("round", (x,), None, state.shapes[x], Round(fraction=_RANKED_FRACTION, apart=-int(sign)))


def _ranks(state: Context, x: str, n: int, sign: float) -> str:
    """(.., n): by how many each element is beaten."""
    first, second = np.triu_indices(n, 1)
    lead, axis = state.shapes[x][:-1], len(state.shapes[x]) - 1
    sides = [state.take(x, axis, part.tolist()) for part in (first, second)]
    apart = state.sum(sides, (sign, -sign))
    wins = state.reshape(state.steps(apart, (0.0,), bits=_RANKED_BITS), state.shapes[apart])  # does the first win?
    number = np.zeros((n, n), dtype=np.int64)
    number[first, second] = number[second, first] = np.arange(len(first))
    others = ~np.eye(n, dtype=bool)
    taken = state.take(wins, axis, number[others].tolist())
    # against a later element, a win counts - 1 and one is added; against an earlier one, its win counts
    signs = tuple(-1.0 if j > i else 1.0 for i in range(n) for j in range(n) if i != j)
    signed = state.emit("weigh", (taken,), None, state.shapes[taken], Weigh(axis=axis, factors=signs))
    state.integral.add(signed)
    beaten = state.total(state.reshape(signed, (*lead, n, n - 1)), (axis + 1,))
    return state.scale(state.reshape(beaten, (*lead, n)), 1.0, np.arange(n - 1, -1, -1, dtype=np.float64))


def _one_hot(state: Context, ranks: str, n: int, k: int) -> str:
    """(.., n, k): is element i of rank r?"""
    levels = tuple(float(r) for r in range(1, k + 1))
    beyond = state.steps(ranks, levels)  # [rank >= 1] .. [rank >= k]
    axis = len(state.shapes[beyond]) - 1
    before = state.take(beyond, axis, [-1, *range(k - 1)])  # [rank >= 0] is 1: zero here, one below
    ones = np.zeros(k)
    ones[0] = 1.0
    return state.scale(state.sum((before, beyond), (1.0, -1.0)), 1.0, ones)


@handles("Hardmax")
def hardmax(state: Context, node: ModelNode, settings: Settings) -> None:
    """Write one where the place of the maximum is, the first of equals; before opset 13 the axes from `axis` on are
    one.
    """
    x = state.value(node.input[0])
    shape = state.shapes[x]
    axis = state.axis(settings.get("axis", -1 if state.opset >= 13 else 1), shape)
    axes = [axis] if state.opset >= 13 else list(range(axis, len(shape)))
    note_places(state, x, axis, 1, 1.0)
    moved, back = state.last(x, axes)
    lead, number = state.shapes[moved][: len(shape) - len(axes)], state.count(x, axes)
    place = argmax_of(state, state.reshape(moved, (*lead, number)))
    apart = state.scale(place, 1.0, -np.arange(number, dtype=np.float64))
    chosen = state.reshape(between(state, apart, (0.0, 1.0)), state.shapes[moved])
    state.transpose(chosen, back, node.output[0])
