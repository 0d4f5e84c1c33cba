"""Moving elements about: shapes, slices, paddings; types are in `casts`."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from mpc.compiler.graph.attributes import Constant, Lowest
from mpc.compiler.graph.graph import Shape
from mpc.compiler.graph.writer import FIX_BATCH
from mpc.compiler.operators import moves
from mpc.compiler.operators.context import Context, ModelNode, Settings
from mpc.compiler.operators.facts import Length, Marks, Repeated, Top
from mpc.compiler.operators.joined import regroup, seen
from mpc.compiler.operators.known_sums import is_top
from mpc.compiler.operators.registry import handles
from mpc.compiler.operators.sizes import Rows, Size, many, sizes_of, times
from mpc.wires import BATCH, Dimension, broadcast

_EXPAND = "expand to a shape that ends in its own sizes, where a size of 1 may become any other (Unsqueeze before it)"
_LEAST = -1e30
_MAXIMA = {"GlobalMaxPool", "MaxPool", "ReduceMax"}


@handles("Flatten")
def flatten(state: Context, node: ModelNode, settings: Settings) -> None:
    shape = state.secret(node.input[0])
    axis = settings.get("axis", 1)
    axis = axis + len(shape) if axis < 0 else axis
    if BATCH in shape and len(shape[:axis]) > 1:
        halves = [times(sizes_of(shape[:axis])), times(sizes_of(shape[axis:]))]
        if regroup(state, node.input[0], halves, node.output[0]):
            return
    state.reshape(node.input[0], (state.merged(shape[:axis]), state.merged(shape[axis:])), node.output[0])
    moves.carry(state, node.output[0], node.input[0])


@handles("Reshape", labels=True)
def reshape(state: Context, node: ModelNode, settings: Settings) -> None:
    source = node.input[0]
    if source not in state.decoded:
        state.secret(source)
    shape = seen(state, source)
    target = list(state.constant(node.input[1], "the new shape").reshape(-1))
    if not settings.get("allowzero", 0):
        target = [shape[axis] if size == 0 else size for axis, size in enumerate(target)]
    target = [size if isinstance(size, Rows) else int(size) for size in target]
    plain = source not in state.joined and not any(isinstance(size, Rows) and size != Rows() for size in target)
    final = _resolved(shape, target) if plain else None
    if final is None or (source not in state.decoded and not state.reshapes(source, final)):
        if regroup(state, source, target, node.output[0]):
            return
    if final is None:
        raise state.origin.refuse(f"{shape} does not reshape to {tuple(target)} for every batch size", remedy=FIX_BATCH)
    reshaped(state, node, final)


def _resolved(shape: Sequence[Size], target: list[Size]) -> Shape:
    """The target without -1, the batch where it has to be."""
    numbers = [size for size in target if isinstance(size, int)]
    sizes: list[Dimension] = [size if isinstance(size, int) else BATCH for size in target]
    missing = Rows() in shape and Rows() not in target
    if -1 in target:
        whole = prod(size for size in shape if isinstance(size, int))
        sizes[target.index(-1)] = BATCH if missing else whole // max(1, -prod(numbers))
    elif missing and numbers[:1] == [1] and prod(numbers) == prod(map(many, shape)):
        sizes[0] = BATCH  # exported with a batch of one written out
    return tuple(sizes)


@handles("Squeeze", "Unsqueeze", labels=True)
def squeeze(state: Context, node: ModelNode, settings: Settings) -> None:
    shape = list(state.shapes[node.input[0]])
    axes: list[int] | None = settings.get("axes")
    if len(node.input) > 1 and node.input[1]:
        axes = state.integers(node.input[1], "the axes")
    if node.op_type == "Squeeze":
        chosen = [i for i, d in enumerate(shape) if d == 1] if axes is None else [a % len(shape) for a in axes]
        if any(shape[axis] != 1 for axis in chosen):
            raise state.origin.refuse(
                "an axis of more than one element cannot be squeezed",
                attribute="axes",
                remedy=(
                    "squeeze axes of size 1 only; take one element of the others with Gather or Slice, or use Reshape"
                ),
            )
        final = tuple(d for axis, d in enumerate(shape) if axis not in chosen)
    else:
        axes = axes or []
        rank = len(shape) + len(axes)
        places = {a % rank for a in axes}
        rest = iter(shape)
        final = tuple(1 if axis in places else next(rest) for axis in range(rank))
    reshaped(state, node, final)


def reshaped(state: Context, node: ModelNode, final: Shape) -> None:
    """Reshape the first input, labels included."""
    if node.input[0] in state.decoded:
        state.redecode(node.output[0], node.input[0], shape=final)
        return
    state.reshape(node.input[0], final, node.output[0])
    moves.carry(state, node.output[0], node.input[0])


@handles("Transpose")
def transpose(state: Context, node: ModelNode, settings: Settings) -> None:
    shape = state.secret(node.input[0])
    axes = tuple(settings.get("perm", reversed(range(len(shape)))))
    if sorted(axes) != list(range(len(shape))):
        raise state.origin.refuse(
            f"{axes} is no permutation of {len(shape)} axes",
            attribute="perm",
            remedy=f"name each axis from 0 to {len(shape) - 1} once",
        )
    state.transpose(node.input[0], axes, node.output[0])


@handles("Concat")
def concat(state: Context, node: ModelNode, settings: Settings) -> None:
    names = [name for name in node.input if not state.is_constant(name) or state.constants[name].size]
    shapes = [state.secret(name) for name in names if not state.is_constant(name)]
    axis = state.axis(settings["axis"], shapes[0])
    if shapes[0][axis] == BATCH and len(shapes) == len(names) and state.only_feeds(node.output[0], {"Reshape"}):
        # one batch after another: as long as nothing but a Reshape sees it, an axis of its own stands for them
        rows = [state.reshape(name, (1, *shape)) for name, shape in zip(names, shapes, strict=True)]
        if axis == 0:
            state.concat(rows, 0, node.output[0])
            return
    joined = []
    for name in names:
        value = state.value(name)
        if state.is_constant(name) and len(state.shapes[value]) == len(shapes[0]):
            own = state.shapes[value]
            wanted = (*shapes[0][:axis], own[axis], *shapes[0][axis + 1 :])
            if own != wanted and broadcast(own, wanted) == wanted:  # the same constant for every row
                value = state.stored(state.numbers(name, "an operand"), wanted)
        joined.append(value)
    state.concat(joined, axis, node.output[0])


@handles("Split")
def split(state: Context, node: ModelNode, settings: Settings) -> None:
    shape = state.secret(node.input[0])
    axis = state.axis(settings.get("axis", 0), shape)
    size = state.size(shape, axis, "a split")
    given = state.integers(node.input[1], "the sizes") if len(node.input) > 1 and node.input[1] else None
    sizes = given or settings.get("split")
    if sizes is None:
        count = settings.get("num_outputs", len(node.output))
        part = -(-size // count)
        sizes = [min(part, size - i * part) for i in range(count)]
    if sum(sizes) != size or min(sizes) < 1 or len(sizes) < len(node.output):
        raise state.origin.refuse(
            f"{size} elements are not split into {sizes}",
            attribute="split",
            remedy=f"give sizes of 1 or more whose sum is {size}, one for each output",
        )
    starts = np.concatenate([[0], np.cumsum(sizes)])
    for name, start, length in zip(node.output, starts, sizes, strict=False):
        if name:
            state.take(node.input[0], axis, range(start, start + length), name)


@handles("Slice")
def slice_(state: Context, node: ModelNode, settings: Settings) -> None:
    shape = state.secret(node.input[0])
    names = ("starts", "ends", "axes", "steps")
    lists = [settings.get(name) for name in names]
    for position, name in enumerate(names, 1):
        if len(node.input) > position and node.input[position]:
            lists[position - 1] = _ends(state, node.input[position], name)
    starts, ends, axes, steps = lists
    if starts is None or ends is None:
        raise state.origin.refuse("it has no starts or ends", remedy="give both, as constants")
    axes = list(range(len(starts))) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    current = node.input[0]
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        place = state.axis(axis, shape)
        if shape[place] == BATCH and start == 0 and step == 1 and (end == BATCH or end >= (1 << 31) - 1):
            continue
        size = state.size(shape, place, "a slice")
        chosen = range(size)[slice(start, None if end == BATCH else end, step)]
        if not chosen and state.only_feeds(node.output[0], {"Concat"}):  # a roll by 0 joins everything and nothing
            sizes = [0 if i == place or size == BATCH else size for i, size in enumerate(shape)]
            state.constants[node.output[0]] = np.zeros(sizes)
            return
        current = state.take(current, place, chosen)
    state.reshape(current, state.shapes[current], node.output[0])


def _ends(state: Context, name: str, what: str) -> list[Any]:
    return [
        BATCH if entry == Rows() else state.whole(entry, what)
        for entry in state.constant(name, what).reshape(-1).tolist()
    ]


@handles("Pad")
def pad(state: Context, node: ModelNode, settings: Settings) -> None:
    shape = state.secret(node.input[0])
    pads = settings.get("pads")
    if len(node.input) > 1 and node.input[1]:
        pads = state.integers(node.input[1], "the padding")
    given = state.optional(node, 2, "the value")
    value = float(settings.get("value", 0.0) if given is None or not given.size else given.reshape(-1)[0])
    chosen = state.optional(node, 3, "the axes")
    axes = range(len(shape)) if chosen is None else [state.axis(int(a), shape) for a in chosen]
    mode = settings.get("mode", b"constant").decode()
    if mode not in ("constant", "reflect", "edge", "wrap"):
        raise state.origin.refuse(f"the mode {mode}", attribute="mode", remedy="use constant, reflect, edge or wrap")
    if pads is None or len(pads) != 2 * len(axes):
        raise state.origin.refuse(
            "two paddings an axis",
            attribute="pads",
            remedy=f"give {2 * len(axes)} paddings: those before each axis, then those behind it",
        )
    current, inside = node.input[0], np.ones([1] * len(shape))
    for axis, before, after in zip(axes, pads[: len(axes)], pads[len(axes) :], strict=True):
        if before or after:
            indices = _padded(state.size(shape, axis, "a padding"), before, after, mode)
            current = state.take(current, axis, indices)
            along = np.array([i >= 0 for i in indices], dtype=np.float64)
            inside = inside * along.reshape([-1 if a == axis else 1 for a in range(len(shape))])
    if mode == "constant" and value < _LEAST and not inside.all():
        _padded_for_maxima(state, current, np.asarray(inside) == 0, node.output[0])
    elif mode == "constant" and value and not inside.all():
        state.scale(current, 1.0, np.where(inside, 0.0, value), node.output[0])
    else:
        state.reshape(current, state.shapes[current], node.output[0])


def _padded_for_maxima(state: Context, x: str, outside: np.ndarray, out: str) -> None:
    """Padding below all numbers: where only maxima read it, the least that the value can be does as well."""
    if not state.only_feeds(out, _MAXIMA):
        raise state.origin.refuse(
            "it pads with minus infinity, or as good as that, which fixed point does not have",
            attribute="value",
            remedy=f"pad with a number that is just below the data, or read it by {', '.join(sorted(_MAXIMA))} only",
        )
    state.emit("lowest", (x,), out, state.shapes[x], Lowest(where=outside))


def _padded(size: int, before: int, after: int, mode: str) -> list[int]:
    """Indices of an axis with its padding; negative paddings cut."""
    places = np.arange(-before, size + after)
    if mode == "constant":
        return [int(i) if 0 <= i < size else -1 for i in places]
    if mode == "edge":
        return np.clip(places, 0, size - 1).tolist()
    if mode == "wrap":
        return (places % size).tolist()
    period = max(1, 2 * size - 2)
    folded = places % period
    return np.where(folded < size, folded, period - folded).tolist()


@handles("Expand")
def expand(state: Context, node: ModelNode, settings: Settings) -> None:
    target = tuple(_ends(state, node.input[1], "the new shape"))
    if state.is_constant(node.input[0]):
        values = state.numbers(node.input[0], "its value")
        shape = broadcast(values.shape, target)
        if shape is None:
            raise state.origin.refuse(f"{values.shape} does not expand to {target}", remedy=_EXPAND)
        name = state.emit("constant", (), node.output[0], shape, Constant(weight=values))
        if not np.any(values % 1):
            state.integral.add(name)
        return
    shape = broadcast(state.secret(node.input[0]), target)
    if shape is None:
        raise state.origin.refuse(f"{state.shapes[node.input[0]]} does not expand to {target}", remedy=_EXPAND)
    state.expand(node.input[0], shape, node.output[0])
    fact = state.facts.get(node.input[0])
    if isinstance(fact, Length | Marks) or (isinstance(fact, Top) and is_top(state, node.input[0], fact.of)):
        state.facts[node.output[0]] = fact
    elif len(state.shapes[node.input[0]]) == len(shape):
        state.facts[node.output[0]] = Repeated(node.input[0])


@handles("ConstantOfShape")
def constant_of_shape(state: Context, node: ModelNode, settings: Settings) -> None:
    """Make a constant with the batch in its shape; all others are folded."""
    value = state.array(settings["value"]) if "value" in settings else np.zeros(1)
    target = tuple(_ends(state, node.input[0], "the shape"))
    if 0 in target:  # nothing: what joins it to something ignores it
        state.constants[node.output[0]] = np.zeros([0 if size == BATCH else size for size in target], value.dtype)
        return
    name = state.emit("constant", (), node.output[0], target, Constant(weight=value.astype(np.float64).reshape(())))
    if not np.any(value % 1):
        state.integral.add(name)


@handles("Tile")
def tile(state: Context, node: ModelNode, settings: Settings) -> None:
    current = node.input[0]
    if state.is_constant(current):  # once for each row of the batch
        values, repeats = state.numbers(current, "its value"), _ends(state, node.input[1], "the repeats")
        if values.ndim != len(repeats) or values.shape[repeats.index(BATCH)] != 1:
            raise state.origin.refuse("it repeats more than one row for each of the batch", remedy=FIX_BATCH)
        values = np.tile(values, [1 if count == BATCH else int(count) for count in repeats])
        shape = tuple(BATCH if n == BATCH else size for n, size in zip(repeats, values.shape, strict=True))
        state.reshape(state.stored(values, shape), shape, node.output[0])
        return
    shape = state.secret(current)
    for axis, count in enumerate(state.integers(node.input[1], "the repeats")):
        if count != 1:
            size = state.size(shape, axis, "repeating")
            current = state.take(current, axis, list(range(size)) * count)
    state.reshape(current, state.shapes[current], node.output[0])


@handles("DepthToSpace", "SpaceToDepth")
def depth_to_space(state: Context, node: ModelNode, settings: Settings) -> None:
    n, *rest = state.secret(node.input[0])
    if len(rest) != 3:
        raise state.origin.refuse(
            "it takes an input of four axes",
            remedy="put a Reshape or Unsqueeze before it that gives (rows, channels, height, width)",
        )
    c, h, w = (state.size(state.shapes[node.input[0]], axis, "a block") for axis in (1, 2, 3))
    b = int(settings["blocksize"])
    depth_first = settings.get("mode", b"DCR") == b"DCR"
    if node.op_type == "SpaceToDepth":
        split_up: Shape = (n, c, h // b, b, w // b, b)
        order = (0, 3, 5, 1, 2, 4) if depth_first else (0, 1, 3, 5, 2, 4)
        final = (n, c * b * b, h // b, w // b)
    elif depth_first:
        split_up, order = (n, b, b, c // (b * b), h, w), (0, 3, 4, 1, 5, 2)
        final = (n, c // (b * b), h * b, w * b)
    else:
        split_up, order = (n, c // (b * b), b, b, h, w), (0, 1, 4, 2, 5, 3)
        final = (n, c // (b * b), h * b, w * b)
    moved = state.transpose(state.reshape(node.input[0], split_up), order)
    state.reshape(moved, final, node.output[0])


@handles("Trilu")
def triangle(state: Context, node: ModelNode, settings: Settings) -> None:
    """Multiply with public zeros and ones over the last two axes."""
    shape = state.secret(node.input[0])
    k = state.optional(node, 1, "the diagonal")
    rows, columns = (state.size(shape, axis, "a triangle") for axis in (-2, -1))
    ones = np.ones((rows, columns))
    diagonal = 0 if k is None else int(k.reshape(-1)[0])
    mask = np.triu(ones, diagonal) if settings.get("upper", 1) else np.tril(ones, diagonal)
    indices = [i if keep else -1 for i, keep in enumerate(mask.reshape(-1) > 0)]
    flat = state.take(state.reshape(node.input[0], (*shape[:-2], rows * columns)), len(shape) - 2, indices)
    state.reshape(flat, shape, node.output[0])
