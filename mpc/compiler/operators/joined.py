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

import numpy as np

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
_REDUCE = ("ReduceL1", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceSum")
_MOVED = {"Concat", "Gather", "Slice", "Split", "Squeeze", "Unsqueeze", *_REDUCE}
_AXES = {"Slice": 3, "Squeeze": 1, "Unsqueeze": 1, **dict.fromkeys(_REDUCE, 1)}
"""Where operators have their axes among their inputs."""


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
    others = [name for name in node.input if not (state.is_constant(name) and not state.constants[name].size)]
    if node.op_type == "Concat" and len(others) == 1:  # what is empty is not joined
        state.alias(node.output[0], name)
        state.joined[node.output[0]] = state.joined[name]
        return
    view, rank = state.joined[name], len(state.shapes[name])
    if node.op_type == "Transpose":
        _transposed(state, node, settings)
        return
    if node.op_type == "Conv" and _convolved(state, node, settings, view, rank):
        return
    if node.op_type == "Einsum":
        settings = _lettered(state, node, settings, view)
    elif node.op_type in _PAIRS:
        node = _aligned(state, node, view, rank)
    elif node.op_type in _ALONG:
        settings = _renumbered(state, settings, view, rank, node.op_type)
    elif node.op_type == "Gather" and state.is_constant(node.input[0]) and not settings.get("axis", 0):
        pass  # rows of a table, one for each place
    elif node.op_type in _MOVED:
        node, settings, view = _moved(state, node, settings, view, rank)
    elif node.op_type in ("MatMul", "Gemm", "FusedMatMul"):
        node = _with_stack(state, node, view, rank)
        _require_rows(state, node, settings, view, rank)
    elif node.op_type == "Expand":
        node = _expanded(state, node, view, rank)
    elif node.op_type == "BatchNormalization" and view.first == 0:
        pass  # its channels are the axis behind
    elif node.op_type not in _ANYWHERE:
        raise _refusal(state)
    HANDLERS[node.domain or "ai.onnx", node.op_type](state, node, settings)
    for out in node.output:
        if out in state.shapes:
            state.joined[out] = view


def _convolved(state: Context, node: ModelNode, settings: Settings, view: Joined, rank: int) -> bool:
    """Convolve images of which each row of the batch has several, with a kernel of size 1 along these; or False."""
    x, filters = node.input[:2]
    if view.first or view.more != 1 or not state.is_constant(filters) or state.constants[filters].ndim != rank - 1:
        return False
    place = state.shapes[x].index(BATCH)
    turned = state.transpose(x, (place, 2, 1 - place, *range(3, rank)))
    name, values = state.fresh(), state.constants[filters]
    state.constants[name] = values.reshape(*values.shape[:2], 1, *values.shape[2:])
    wider: Settings = {
        each: [1, *settings[each]] for each in ("kernel_shape", "strides", "dilations") if each in settings
    }
    if pads := settings.get("pads"):
        half = len(pads) // 2
        wider["pads"] = [0, *pads[:half], 0, *pads[half:]]
    inner = replace(node, input=(turned, name, *node.input[2:]), output=(state.fresh(),))
    HANDLERS["ai.onnx", "Conv"](state, inner, {**settings, **wider})
    order = (0, 2, 1) if place == 0 else (2, 0, 1)
    state.transpose(inner.output[0], (*order, *range(3, rank)), node.output[0])
    state.joined[node.output[0]] = view
    return True


def _expanded(state: Context, node: ModelNode, view: Joined, rank: int) -> ModelNode:
    """Say a shape axis by axis, where the joined ones stay."""
    x, groups = node.input[0], view.places(rank)
    target, own = state.constant(node.input[1], "the new shape").reshape(-1).tolist(), seen(state, x)
    if len(target) != len(groups) or target[view.first] not in (own[view.first], 1):
        raise _refusal(state)
    sizes, name = sizes_of(state.shapes[x]), state.fresh()
    apart = [
        [sizes[axis] for axis in group] if len(group) > 1 else [size]
        for group, size in zip(groups, target, strict=True)
    ]
    state.constants[name] = np.array([size for part in apart for size in part], dtype=object)
    return replace(node, input=(x, name))


def _lettered(state: Context, node: ModelNode, settings: Settings, view: Joined) -> dict[str, Any]:
    """Give each axis that is joined a letter of its own, if the result has them first, as they are read."""
    left, _, result = settings["equation"].decode().replace(" ", "").partition("->")
    terms, free = left.split(","), iter(sorted({*"abcdefghijklmnopqrstuvwxyz"} - {*left}))
    views = [state.joined.get(name) for name in node.input]
    letters = {term[view.first] for term, seen_as in zip(terms, views, strict=True) if seen_as == view}
    if "." in left or len(letters) != 1 or any(each not in (None, view) for each in views):
        raise _refusal(state)
    [letter] = letters
    apart = "".join(next(free) for _ in range(view.more + 1))
    alone = any(letter in term for term, seen_as in zip(terms, views, strict=True) if seen_as is None)
    if alone or result.find(letter) != view.first:
        raise _refusal(state)
    equation = f"{left}->{result}".replace(letter, apart)
    return {**settings, "equation": equation.encode()}


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


def _moved(
    state: Context, node: ModelNode, settings: Settings, view: Joined, rank: int
) -> tuple[ModelNode, Settings, Joined]:
    """Count axes as they are here, and return how the result is seen; whatever is along the joined one is refused."""
    groups, name = view.places(rank), node.op_type
    others = node.input[1:] if name == "Concat" else ()
    if node.input[0] not in state.joined or (name == "Gather" and not state.is_constant(node.input[1])):
        raise _refusal(state)
    if any(state.joined.get(each) != view or len(state.shapes[each]) != rank for each in others):
        raise _refusal(state)
    axes, place = settings.get("axes"), _AXES.get(name, 0)
    if 0 < place < len(node.input) and node.input[place]:
        axes = state.integers(node.input[place], "the axes")
    elif name == "Slice" and axes is None:
        axes = [*range(state.constant(node.input[1], "starts").size)]
    elif not place:
        axes = [int(settings.get("axis", 0))]
    if axes is None:
        raise _refusal(state)
    if name == "Unsqueeze":
        whole = len(groups) + len(axes)
        put, rest = {axis % whole for axis in axes}, iter(groups)
        found, first, count = list[int](), view.first, 0
        for axis in range(whole):
            if axis in put:
                found.append(count)
                first += count <= first
                count += 1
            else:
                count += len(next(rest))
    else:
        if any(not -len(groups) <= axis < len(groups) or len(groups[axis]) > 1 for axis in axes):
            raise _refusal(state)
        found, first = [groups[axis][0] for axis in axes], view.first
        if name == "Squeeze" or (name.startswith("Reduce") and not settings.get("keepdims", 1)):
            first -= sum(axis < first for axis in found)
        elif name == "Gather" and found[0] < first:
            first += np.ndim(state.constant(node.input[1], "its index")) - 1
    if 0 < place < len(node.input):
        given = state.fresh()
        state.constants[given] = np.array(found)
        node = replace(node, input=(*node.input[:place], given, *node.input[place + 1 :]))
    elif place and name != "Slice":
        settings = {**settings, "axes": found}
    elif place:
        node = replace(node, input=(*node.input, *[""] * (place - len(node.input))))
        given = state.fresh()
        state.constants[given] = np.array(found)
        node = replace(node, input=(*node.input[:place], given, *node.input[place + 1 :]))
    else:
        settings = {**settings, "axis": found[0]}
    return node, settings, Joined(first, view.more)


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


def _with_stack(state: Context, node: ModelNode, view: Joined, rank: int) -> ModelNode:
    """Give a stack of constant matrices an axis for each of those that are one row's place."""
    left, right = node.input[:2]
    if not state.is_constant(right) or view.first + view.more != rank - 2 or state.constants[right].ndim < 3:
        return node
    values, name = state.constants[right], state.fresh()
    state.constants[name] = values.reshape(*values.shape[:-2], *[1] * view.more, *values.shape[-2:])
    return replace(node, input=(left, name, *node.input[2:]))


def _require_rows(state: Context, node: ModelNode, settings: Settings, view: Joined, rank: int) -> None:
    """A product of rows with a constant matrix, or of two stacks that are joined alike."""
    left, right = node.input[:2]
    behind = len(view.places(rank)) - view.first - 1  # axes behind the joined one
    constant = state.is_constant(right) and behind >= 1
    constant = constant and (state.constants[right].ndim == 2 or (node.op_type == "MatMul" and behind == 1))
    stacks = state.joined.get(left) == state.joined.get(right) == view and behind >= 2
    alike = stacks and len(state.shapes[left]) == len(state.shapes[right]) == rank
    bias = node.input[2] if len(node.input) > 2 else ""
    plain = not settings.get("transA", 0) and (not bias or (state.is_constant(bias) and state.constants[bias].ndim < 2))
    if not plain or not (constant or (alike and node.op_type != "Gemm")):
        raise _refusal(state)
