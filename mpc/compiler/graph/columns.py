"""Columns of very different size: each input enters in units of its own columns, and its first readers know them.

A wire has one scale.  Where one column counts seconds since 1970 and another is a rate, no scale suits both.  So the
client enters u = (x - offset) factor, with an offset and a power of two for each column that follow from the declared
range alone and are public in the plan.  Here x = u / factor + offset is taken back by whoever reads it:

* moves (a reshape, slices, joining) move units and offsets along;
* a linear layer takes them into its weights and bias, and a tree so into its thresholds: exactly;
* steps take them into their levels, ReLUs and products leave them to who reads their results;
* everybody else reads x itself, a public linear map of u, which is free.

Whole numbers keep the unit 1 on their wire, so they stay exact and cheap to compare; a copy in units of its columns,
another free map, is made for linear layers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mpc.compiler.graph.graph import HALF_STEP, Graph, GraphInput, Node, Origin, Shape, simple_factor, static
from mpc.compiler.graph.merging import absorbed

_APART = 3
"""Columns whose sizes differ by less than this power of two share one unit."""
_FAR = 16.0
"""A range whose middle is so many times further from zero than from its ends gets an offset."""
_FINE = 3
"""Bits of half a range to which its middle is rounded, so that offsets are short numbers."""
_LEAST_EXPONENT, _MOST_EXPONENT = -40, 60
_SAME = 2.0**-31
"""Inputs that differ by less, in units of their columns, are the same but for roundings."""
_STEP_FRACTION = 20
"""Fractional bits, in the model's units, on which a step compares reals: see `rules.comparisons.step`."""


@dataclass(frozen=True)
class _View:
    """Describes a value of the model: read * weight + bias, arrays of its rank that vary along one axis at most.

    Args:
        unit: 2^unit is about the size of each column of `read`: 0 unless that holds whole numbers.
        secret: the bias holds constants of the model, not public offsets alone.
        product: a product of views; it has lost the one scale that an input was given for being read as it is.
    """

    read: str
    weight: np.ndarray
    bias: np.ndarray
    unit: np.ndarray
    secret: bool = False
    product: bool = False

    def __post_init__(self) -> None:
        for name in ("weight", "bias", "unit"):  # of a number alone numpy makes a scalar, which is no array
            object.__setattr__(self, name, np.asarray(getattr(self, name)))

    @property
    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.weight, self.bias, self.unit

    def map(self, read: str, move: Callable[[np.ndarray], np.ndarray]) -> _View:
        return replace(self, read=read, weight=move(self.weight), bias=move(self.bias), unit=move(self.unit))


def separate_columns(graph: Graph) -> Graph:
    """The graph whose inputs have units and offsets where their ranges differ enough; see the module."""
    met = _meeting(graph)
    inputs = [_encoded(given, met.get(given.name, [given])) for given in graph.inputs]
    if inputs == graph.inputs:
        return graph
    walk = _Walk(graph, inputs, products=True).run()
    if walk.took_apart_products:
        walk = _Walk(graph, inputs, products=False).run()
    return Graph(inputs, walk.nodes, walk.outputs)


# ------------------------------------------------------------------- units and offsets


def _encoded(given: GraphInput, beside: list[GraphInput]) -> GraphInput:
    """An input with units, if the sizes of its columns, or of those of inputs that it is joined to, differ enough."""
    offset, exponent = _offset(given), _exponent(given)
    sizes = np.concatenate([np.atleast_1d(_exponent(other)) for other in beside])
    differ = np.ptp(sizes) >= _APART
    if not (differ or np.any(offset)):
        return given
    unit = exponent if differ or exponent.ndim == 0 else np.full_like(exponent, exponent.max())
    return replace(given, offset=_plain(offset), exponent=_plain(unit))


def _plain(values: np.ndarray) -> Any:
    return tuple(values.tolist()) if values.ndim else values.item()


def _ends(given: GraphInput) -> tuple[np.ndarray, np.ndarray]:
    """The range's, rounded outwards as a narrow type may round what is entered."""
    low, high = (np.asarray(end, dtype=np.float64) for end in given.span)
    if given.whole:
        return low, high
    typed = [end.astype(given.dtype).astype(np.float64) for end in (low, high)]
    return np.minimum(low, typed[0]), np.maximum(high, typed[1])


def _offset(given: GraphInput) -> np.ndarray:
    """The middle of a range that is far from zero, to few bits; whole for whole numbers."""
    low, high = _ends(given)
    middle, half = (low + high) / 2, np.maximum((high - low) / 2, 2.0**_LEAST_EXPONENT)
    grid = np.exp2(np.floor(np.log2(half)) - _FINE)
    if given.whole:
        grid = np.maximum(grid, 1.0)
    far = (high > low) & (np.abs(middle) > _FAR * half)  # a constant is taken as it is
    return np.where(far, np.rint(middle / grid) * grid, 0.0)


def _exponent(given: GraphInput) -> np.ndarray:
    """The power of two above the sizes of each column; a constant, which its offset is, takes the largest of others."""
    low, high = _ends(given)
    offset = _offset(given)
    size = np.maximum(np.abs(low - offset), np.abs(high - offset))
    size = np.where((low == high) & (size < 2.0**_LEAST_EXPONENT), size.max() or 1.0, size)
    exponent = np.ceil(np.log2(np.maximum(size, 2.0**_LEAST_EXPONENT)))
    return np.asarray(np.clip(exponent, _LEAST_EXPONENT, _MOST_EXPONENT))


def _meeting(graph: Graph) -> dict[str, list[GraphInput]]:
    """Inputs that are joined with others, side by side, before anything is computed with them; with all of these."""
    inside: dict[str, set[str]] = {given.name: {given.name} for given in graph.inputs}
    groups: list[set[str]] = []
    for node in graph.nodes:
        if node.op in ("reshape", "transpose", "take", "concat"):
            inside[node.writes] = set[str]().union(*(inside.get(name, ()) for name in node.reads))
            if node.op == "concat":
                groups.append(inside[node.writes])
    together: dict[str, set[str]] = {}
    for group in groups:
        whole = group.union(*(together.get(name, ()) for name in group))
        together.update(dict.fromkeys(whole, whole))
    named = {given.name: given for given in graph.inputs}
    return {name: [named[other] for other in sorted(group)] for name, group in together.items()}


# ------------------------------------------------------------------- the walk


class _Walk:
    """Rewrites the nodes, in order.

    Args:
        products: keep products of columns in the product of their units.
    """

    def __init__(self, graph: Graph, inputs: list[GraphInput], products: bool) -> None:
        self._graph, self._products = graph, products
        self._views: dict[str, _View] = {}
        self._real: dict[str, str] = {}
        self.shapes: dict[str, Shape] = {given.name: given.shape for given in inputs}
        self.nodes: list[Node] = []
        self.outputs = graph.outputs
        self.took_apart_products = False
        for given in inputs:
            if given.encoded:
                self._views[given.name] = _entering(given)

    def run(self) -> _Walk:
        for node in self._graph.nodes:
            self.shapes[node.writes] = node.shape
            if not any(name in self._views for name in node.reads) or not self._through(node):
                self.nodes.append(replace(node, reads=tuple(map(self._as_it_is, node.reads))))
        self.outputs = [replace(out, value=self._as_it_is(out.value)) for out in self._graph.outputs]
        return self

    def _through(self, node: Node) -> bool:
        """Can the node read, or write, values in their own units?"""
        if node.op in ("reshape", "transpose", "take"):
            return self._moved(node)
        if node.op == "concat":
            return self._joined(node)
        if node.op in ("matmul", "conv", "scale") and "weight" in node.attributes:
            return self._taken_in(node)
        if node.op == "step":
            return self._compared(node)
        if node.op == "relu":
            return self._rectified(node)
        if node.op == "sum":
            return self._summed(node)
        return node.op == "multiply" and self._products and self._multiplied(node)

    def _emit(
        self, op: str, read: tuple[str, ...], writes: str, shape: Shape, origin: Origin, **attributes: Any
    ) -> str:
        self.shapes[writes] = shape
        self.nodes.append(Node(op, read, writes, shape, origin, attributes))
        return writes

    def _as_it_is(self, name: str) -> str:
        """A value in the model's own units."""
        view = self._views.get(name)
        if view is None:
            return name
        if name not in self._real:
            self.took_apart_products |= view.product
            origin, shape = Origin(name, "input"), self.shapes[name]
            self._real[name] = self._emit(
                "columns", (view.read,), f"{name}/units", shape, origin, weight=view.weight, bias=view.bias
            )
        return self._real[name]

    def _in_units(self, name: str, view: _View) -> _View:
        """The view whose columns are all about 1: whole numbers are multiplied, for nothing."""
        if not np.any(view.unit):
            return view
        unit = np.exp2(view.unit)
        writes = self._emit(
            "columns", (view.read,), f"{name}/{len(self.nodes)}", self.shapes[view.read], Origin(name, "input"),
            weight=np.asarray(1 / unit), bias=_zero(unit),
        )  # fmt: skip
        return replace(view, read=writes, weight=view.weight * unit, unit=_zero(unit))

    def _about_zero(self, name: str, view: _View) -> _View:
        """The view without its bias and with weights that are positive: what is read includes it, for nothing."""
        view = self._in_units(name, view)
        weight, sign = np.abs(view.weight), 1.0 if view.weight.min() > 0 else -1.0
        if sign > 0 and not np.any(view.bias):
            return view
        bias = _fewest(view.bias / weight)
        writes = self._emit(
            "columns", (view.read,), f"{name}/{len(self.nodes)}", self.shapes[view.read], Origin(name, "input"),
            weight=np.full_like(weight, sign, shape=(1,) * weight.ndim), bias=bias,
        )  # fmt: skip
        return replace(view, read=writes, weight=weight, bias=_zero(bias))

    # -- moves

    def _moved(self, node: Node) -> bool:
        view, before = self._views[node.reads[0]], static(self.shapes[node.reads[0]])
        moved = view.map(f"{node.writes}/own", lambda array: _fewest(_mover(node)(np.broadcast_to(array, before))))
        if node.op == "take" and -1 in node.attributes["indices"]:
            moved = replace(moved, bias=_fewest(np.where(_zeros(node), 0.0, moved.bias)))
        if not _along_one(moved):
            return False
        self._emit(node.op, (view.read,), moved.read, node.shape, node.origin, **node.attributes)
        self._views[node.writes] = moved
        return True

    def _joined(self, node: Node) -> bool:
        views = [self._views.get(name) or _plainly(name, self.shapes[name]) for name in node.reads]
        axis, sizes = node.attributes["axis"], [static(self.shapes[name]) for name in node.reads]

        def side_by_side(parts: list[np.ndarray]) -> np.ndarray:
            return _fewest(np.concatenate([np.broadcast_to(p, s) for p, s in zip(parts, sizes, strict=True)], axis))

        views = [self._in_units(name, view) for name, view in zip(node.reads, views, strict=True)]
        weight, bias, unit = (side_by_side(list(parts)) for parts in zip(*(v.arrays for v in views), strict=True))
        marks = {mark: any(getattr(view, mark) for view in views) for mark in ("secret", "product")}
        joined = _View(f"{node.writes}/own", weight, bias, unit, **marks)
        if not _along_one(joined):
            return False
        reads = tuple(view.read for view in views)
        self._emit(node.op, reads, joined.read, node.shape, node.origin, **node.attributes)
        self._views[node.writes] = joined
        return True

    # -- what takes units and offsets in

    def _taken_in(self, node: Node) -> bool:
        name = node.reads[0]
        view = self._views[name]
        factor = simple_factor(node.attributes["weight"]) if node.op == "scale" else None
        if factor is not None:  # it is free, and a product with a weight is not
            return self._composed(node, view, float(factor))
        if not node.attributes.get("signs"):
            view = self._in_units(name, view)
        found = absorbed({"weight": view.weight, "bias": view.bias}, node, self.shapes[name])
        if found is None:
            return False
        self.nodes.append(replace(node, reads=(view.read,), attributes={**node.attributes, **found}))
        return True

    def _composed(self, node: Node, view: _View, factor: float) -> bool:
        """A power of two, and a constant of the model added: still units and offsets, no longer public ones."""
        added = np.zeros(()) if node.attributes["bias"] is None else node.attributes["bias"]
        if factor == 0 or abs(np.frexp(factor)[0]) != 0.5 or self.shapes[node.reads[0]] != node.shape:
            return False
        added = added.reshape((1,) * (len(node.shape) - added.ndim) + added.shape)
        found = replace(view, weight=view.weight * factor, bias=_fewest(view.bias * factor + added))
        if not _along_one(found):
            return False
        self._views[node.writes] = replace(found, secret=view.secret or bool(np.any(added)))
        return True

    def _compared(self, node: Node) -> bool:
        """A constant of the model does not go into levels, which are public."""
        name, levels = node.reads[0], node.attributes["levels"]
        view = self._views[name]
        if view.product:
            return False
        if view.secret or view.weight.min() < 0 or view.weight.size > 1 or view.bias.size > 1:
            view = self._about_zero(name, view)
        bias, known = view.bias.item(), dict(node.attributes)
        if view.weight.size == 1:
            known["levels"] = tuple((level - bias) / view.weight.item() for level in levels)
        elif max(map(abs, levels)) <= HALF_STEP:  # which levels stand for being equal, on the grid of each column
            known["levels"] = tuple(float(np.sign(level)) * _SAME for level in levels)
        else:
            return False
        known["fraction"] = _STEP_FRACTION + round(np.log2(view.weight.max()))
        self.nodes.append(replace(node, reads=(view.read,), attributes=known))
        return True

    def _rectified(self, node: Node) -> bool:
        view = self._about_zero(node.reads[0], self._views[node.reads[0]])
        found = replace(view, read=f"{node.writes}/own")
        self._emit("relu", (view.read,), found.read, node.shape, node.origin, **node.attributes)
        self._views[node.writes] = found
        return True

    def _summed(self, node: Node) -> bool:
        """Values in equal units."""
        views = [self._views.get(name) or _plainly(name, self.shapes[name]) for name in node.reads]
        if "known" in node.attributes or any(self.shapes[name] != node.shape for name in node.reads):
            return False
        views = [self._in_units(name, view) for name, view in zip(node.reads, views, strict=True)]
        signs = [np.sign(view.weight.flat[0]) for view in views]
        if any(not np.array_equal(np.abs(view.weight), np.abs(views[0].weight)) for view in views):
            return False
        factors = node.attributes["factors"]
        bias = sum((f * v.bias for f, v in zip(factors, views, strict=True)), np.asarray(node.attributes["constant"]))
        found = replace(
            views[0], read=f"{node.writes}/own", weight=np.abs(views[0].weight), bias=_fewest(np.asarray(bias)),
            secret=any(view.secret for view in views), product=any(view.product for view in views),
        )  # fmt: skip
        if not _along_one(found):
            return False
        taken = tuple(f * float(sign) for f, sign in zip(factors, signs, strict=True))
        reads = tuple(view.read for view in views)
        self._emit("sum", reads, found.read, node.shape, node.origin, factors=taken, constant=0.0)
        self._views[node.writes] = found
        return True

    def _multiplied(self, node: Node) -> bool:
        views = [self._views.get(name) or _plainly(name, self.shapes[name]) for name in node.reads]
        if "known" in node.attributes:
            return False
        views = [self._about_zero(name, view) for name, view in zip(node.reads, views, strict=True)]
        weight = _fewest(np.asarray(views[0].weight * views[1].weight))
        found = _View(f"{node.writes}/own", weight, _zero(weight), _zero(weight), product=True)
        if not _along_one(found):
            return False
        self._emit("multiply", (views[0].read, views[1].read), found.read, node.shape, node.origin)
        self._views[node.writes] = found
        return True


def _entering(given: GraphInput) -> _View:
    """An input: reals enter in units of their columns, whole numbers in units of 1."""
    rank = len(given.shape)
    ends = (np.asarray(each, dtype=np.float64) for each in (given.exponent, given.offset))
    exponent, bias = (each.reshape((1,) * (rank - each.ndim) + each.shape) for each in ends)
    if given.whole:
        return _View(given.name, np.ones_like(exponent), _fewest(bias), _fewest(exponent))
    return _View(given.name, _fewest(np.exp2(exponent)), _fewest(bias), _zero(exponent))


def _plainly(name: str, shape: Shape) -> _View:
    ones = np.ones((1,) * len(shape))
    return _View(name, ones, 0 * ones, 0 * ones)


def _mover(node: Node) -> Callable[[np.ndarray], np.ndarray]:
    if node.op == "reshape":
        return lambda array: array.reshape(static(node.shape))
    if node.op == "transpose":
        return lambda array: array.transpose(node.attributes["axes"])
    return lambda array: array.take(np.array(node.attributes["indices"]), axis=node.attributes["axis"])


def _zeros(node: Node) -> np.ndarray:
    """Where a take puts zeros in, of its rank."""
    axis = node.attributes["axis"]
    behind = len(node.shape) - axis - 1
    return (np.array(node.attributes["indices"]) < 0).reshape((1,) * axis + (-1,) + (1,) * behind)


def _fewest(array: np.ndarray) -> np.ndarray:
    """The array with size 1 along every axis on which it does not vary."""
    for axis in range(array.ndim):
        first = array.take([0], axis=axis)
        if array.shape[axis] > 1 and (array == first).all():
            array = first
    return array


def _zero(like: np.ndarray) -> np.ndarray:
    return np.zeros((1,) * like.ndim)


def _along_one(view: _View) -> bool:
    """Do weight, bias and units all vary along one axis, one and the same?"""
    axes = {axis for array in view.arrays for axis, size in enumerate(array.shape) if size > 1}
    return len(axes) <= 1
