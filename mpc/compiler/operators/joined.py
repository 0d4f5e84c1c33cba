"""The batch joined with other axes, as attention does: (batch, heads, ..) as (batch heads, ..).

Such a value keeps its axes apart here: its shape in the graph has the batch alone, and `Context.joined` tells
which of its neighbours the model sees as one axis with it.  Operators that leave that axis in peace are imported
as they are, with their axes renumbered; a Reshape takes it apart again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any

from mpc.compiler.graph.graph import Shape
from mpc.compiler.graph.writer import FIX_BATCH
from mpc.compiler.operators.context import Context, ModelNode, Settings
from mpc.compiler.operators.registry import HANDLERS
from mpc.compiler.operators.sizes import Joined, Rows, Size, many, sizes_of, times
from mpc.wires import BATCH

_ANYWHERE = {
    "Abs", "Cast", "Clip", "Dropout", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu",
    "Neg", "Reciprocal", "Relu", "Selu", "Sigmoid", "Softplus", "Sqrt", "Swish", "Tanh",
}  # fmt: skip
"""Element by element, with no more than scalars beside."""
_PAIRS = {"Add", "Sub", "Mul", "Div", "Max", "Min", "Pow", "Where"}
_ALONG = {"Softmax", "LogSoftmax", "LayerNormalization", "RMSNormalization"}


def seen(state: Context, name: str) -> tuple[Size, ...]:
    """Return the shape that the model sees."""
    shape = sizes_of(state.shapes[name])
    view = state.joined.get(name)
    return shape if view is None else tuple(times([shape[i] for i in group]) for group in view.places(len(shape)))


def regroup(state: Context, x: str, target: Sequence[Size], out: str) -> bool:
    """Reshape to sizes of which one is several batches or was; False if they do not fit."""
    shape = state.shapes[x]
    if shape.count(BATCH) != 1:
        return False
    sizes = list(target)
    if -1 in sizes:
        rest = [size for size in sizes if size != -1]
        left, known = prod(d for d in shape if isinstance(d, int)), prod(map(many, rest))
        if known < 1 or left % known:
            return False
        missing = not any(isinstance(size, Rows) for size in rest)
        sizes[sizes.index(-1)] = Rows(left // known) if missing else left // known
    places = [i for i, size in enumerate(sizes) if isinstance(size, Rows)]
    if len(places) != 1:
        return False
    place = places[0]
    before = prod(d for d in shape[: shape.index(BATCH)] if isinstance(d, int))
    ahead, count = prod(map(many, sizes[:place])), many(sizes[place])
    if before % ahead or count % (before // ahead) or prod(map(many, sizes)) != prod(map(many, sizes_of(shape))):
        return False
    around: Shape = (before // ahead, BATCH, count // (before // ahead))
    axes = tuple(size for size in around if size != 1)
    final: Shape = (*map(many, sizes[:place]), *axes, *map(many, sizes[place + 1 :]))
    state.reshape(x, final, out)
    if len(axes) > 1:
        state.joined[out] = Joined(place, len(axes) - 1)
    return True


def lift(state: Context, node: ModelNode, settings: Settings) -> None:
    """Import a node that reads such a value."""
    if node.op_type == "Reshape":
        HANDLERS["ai.onnx", "Reshape"](state, node, settings)
        return
    name = next(name for name in node.input if name in state.joined)
    view, rank = state.joined[name], len(state.shapes[name])
    if node.op_type == "Transpose":
        _transposed(state, node, settings)
        return
    if node.op_type in _PAIRS:
        node = _aligned(state, node, view, rank)
    elif node.op_type in _ALONG:
        settings = _renumbered(state, settings, view, rank, node.op_type)
    elif node.op_type in ("MatMul", "Gemm"):
        _require_rows(state, node, settings, view, rank)
    elif node.op_type not in _ANYWHERE:
        raise _refusal(state)
    HANDLERS["ai.onnx", node.op_type](state, node, settings)
    for out in node.output:
        if out in state.shapes:
            state.joined[out] = view


def _refusal(state: Context) -> Exception:
    return state.origin.refuse("it reads an axis that joins the batch with another one", remedy=FIX_BATCH)


def _transposed(state: Context, node: ModelNode, settings: Settings) -> None:
    x, out = node.input[0], node.output[0]
    groups = state.joined[x].places(len(state.shapes[x]))
    order = settings.get("perm", list(reversed(range(len(groups)))))
    if sorted(order) != list(range(len(groups))):
        raise state.origin.refuse(
            f"{tuple(order)} is no permutation of {len(groups)} axes",
            attribute="perm",
            remedy=f"name each axis from 0 to {len(groups) - 1} once",
        )
    axes = [axis for place in order for axis in groups[place]]
    state.transpose(x, axes, out)
    state.joined[out] = Joined(axes.index(state.joined[x].first), state.joined[x].more)


def _renumbered(state: Context, settings: Settings, view: Joined, rank: int, operator: str) -> dict[str, Any]:
    """Count an axis from the front."""
    groups = view.places(rank)
    axis = int(settings.get("axis", -1))
    if not -len(groups) <= axis < len(groups):
        raise state.origin.refuse(
            f"axis {axis} of {len(groups)}",
            attribute="axis",
            remedy=f"give an axis from {-len(groups)} to {len(groups) - 1}",
        )
    [place, *others] = groups[axis]
    if others or ("Normalization" in operator and place <= view.first):
        raise _refusal(state)
    return {**settings, "axis": place}


def _aligned(state: Context, node: ModelNode, view: Joined, rank: int) -> ModelNode:
    """Constants that broadcast get as many axes; other values are joined alike."""
    inputs = list(node.input)
    for position, name in enumerate(node.input):
        if state.is_constant(name):
            value = state.numbers(name, "an operand")
            from_end = len(view.places(rank)) - view.first  # the joined axis, counted from the end
            if value.ndim >= from_end:
                if value.shape[-from_end] != 1:
                    raise _refusal(state)
                ahead, behind = value.shape[:-from_end], value.shape[value.ndim - from_end + 1 :]
                value = value.reshape((*ahead, *[1] * (view.more + 1), *behind))
            inputs[position] = state.fresh()
            state.constants[inputs[position]] = value.astype(state.constants[name].dtype)
        elif state.joined.get(name) != view or len(state.shapes[name]) != rank:
            raise _refusal(state)
    return replace(node, input=tuple(inputs))


def _require_rows(state: Context, node: ModelNode, settings: Settings, view: Joined, rank: int) -> None:
    """A product of rows with a constant matrix, or of two stacks that are joined alike."""
    left, right = node.input[:2]
    behind = len(view.places(rank)) - view.first - 1  # axes behind the joined one
    constant = state.is_constant(right) and state.constants[right].ndim == 2 and behind >= 1
    stacks = state.joined.get(left) == state.joined.get(right) == view and behind >= 2
    alike = stacks and len(state.shapes[left]) == len(state.shapes[right]) == rank
    bias = node.input[2] if len(node.input) > 2 else ""
    plain = not settings.get("transA", 0) and (not bias or (state.is_constant(bias) and state.constants[bias].ndim < 2))
    if not plain or not (constant or (alike and node.op_type == "MatMul")):
        raise _refusal(state)
