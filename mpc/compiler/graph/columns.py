"""Columns of very different size: each input enters in units of its own columns, and its first readers know them.

A wire has one scale.  Where one column counts seconds since 1970 and another is a rate, no scale suits both; and none
suits columns that are all very small.  So the client enters u = (x - offset) factor, with an offset and a power of two
for each column that follow from the declared range alone and are public in the plan.  Here x = u / factor + offset is
taken back by whoever reads it:

* moves (a reshape, slices, joining) move units and offsets along;
* a linear layer takes them into its weights and bias, and a tree so into its thresholds: exactly;
* steps take them into their levels, ReLUs and products leave them to who reads their results;
* everybody else reads x itself, a public linear map of u, which is free.

Whole numbers keep the unit 1 on their wire, so they stay exact and cheap to compare; a copy in units of its columns,
another free map, is made for linear layers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from mpc.compiler.graph.attributes import Attributes, Columns, Concat, Step, Sum, Take, Transpose, Weighted
from mpc.compiler.graph.graph import HALF_STEP, Graph, GraphInput, Node, Origin, Shape, simple_factor, static
from mpc.compiler.graph.merging import absorbed
from mpc.compiler.graph.units import View, along_one, encoded, entering, fewest, meeting, plainly, zero

_SAME = 2.0**-31
"""Inputs that differ by less, in units of their columns, are the same but for roundings."""
_STEP_FRACTION = 20
"""Fractional bits, in the model's units, on which a step compares reals: see `rules.comparisons.step`."""


def separate_columns(graph: Graph) -> Graph:
    """Return the graph whose inputs have units and offsets where their ranges differ enough; see the module."""
    met = meeting(graph)
    inputs = [encoded(given, met.get(given.name, [given])) for given in graph.inputs]
    if not any(given.encoded for given in inputs):
        return graph
    walk = _Walk(graph, inputs, products=True).run()
    if walk.took_apart_products:
        walk = _Walk(graph, inputs, products=False).run()
    return Graph(inputs, walk.nodes, walk.outputs)


class _Walk:
    """Rewrites the nodes, in order.

    Args:
        products: keep products of columns in the product of their units.
    """

    def __init__(self, graph: Graph, inputs: list[GraphInput], products: bool) -> None:
        self._graph, self._products = graph, products
        self._views: dict[str, View] = {}
        self._real: dict[str, str] = {}
        self.shapes: dict[str, Shape] = {given.name: given.shape for given in inputs}
        self.nodes: list[Node] = []
        self.outputs = graph.outputs
        self.took_apart_products = False
        for given in inputs:
            if given.encoded:
                self._views[given.name] = entering(given)

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
        if node.op in ("matmul", "conv", "scale") and isinstance(node.attributes, Weighted):
            return self._taken_in(node)
        if node.op == "step":
            return self._compared(node)
        if node.op == "relu":
            return self._rectified(node)
        if node.op == "sum":
            return self._summed(node)
        return node.op == "multiply" and self._products and self._multiplied(node)

    def _emit(
        self, op: str, read: tuple[str, ...], writes: str, shape: Shape, origin: Origin, attributes: Attributes
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
                "columns", (view.read,), f"{name}/units", shape, origin, Columns(weight=view.weight, bias=view.bias)
            )
        return self._real[name]

    def _in_units(self, name: str, view: View) -> View:
        """The view whose columns are all about 1: whole numbers are multiplied, for nothing."""
        if not np.any(view.unit):
            return view
        unit = np.exp2(view.unit)
        writes = self._emit(
            "columns", (view.read,), f"{name}/{len(self.nodes)}", self.shapes[view.read], Origin(name, "input"),
            Columns(weight=np.asarray(1 / unit), bias=zero(unit)),
        )  # fmt: skip
        return replace(view, read=writes, weight=view.weight * unit, unit=zero(unit))

    def _about_zero(self, name: str, view: View) -> View:
        """The view without its bias and with weights that are positive: what is read includes it, for nothing."""
        view = self._in_units(name, view)
        weight, sign = np.abs(view.weight), 1.0 if view.weight.min() > 0 else -1.0
        if sign > 0 and not np.any(view.bias):
            return view
        bias = fewest(view.bias / weight)
        writes = self._emit(
            "columns", (view.read,), f"{name}/{len(self.nodes)}", self.shapes[view.read], Origin(name, "input"),
            Columns(weight=np.full_like(weight, sign, shape=(1,) * weight.ndim), bias=bias),
        )  # fmt: skip
        return replace(view, read=writes, weight=weight, bias=zero(bias))

    # -- moves

    def _moved(self, node: Node) -> bool:
        view, before = self._views[node.reads[0]], static(self.shapes[node.reads[0]])
        moved = view.map(f"{node.writes}/own", lambda array: fewest(_mover(node)(np.broadcast_to(array, before))))
        if isinstance(node.attributes, Take) and -1 in node.attributes.indices:
            moved = replace(moved, bias=fewest(np.where(_zeros(node.attributes, len(node.shape)), 0.0, moved.bias)))
        if not along_one(moved):
            return False
        self._emit(node.op, (view.read,), moved.read, node.shape, node.origin, node.attributes)
        self._views[node.writes] = moved
        return True

    def _joined(self, node: Node) -> bool:
        views = [self._views.get(name) or plainly(name, self.shapes[name]) for name in node.reads]
        axis, sizes = node.of(Concat).axis, [static(self.shapes[name]) for name in node.reads]

        def side_by_side(parts: list[np.ndarray]) -> np.ndarray:
            return fewest(np.concatenate([np.broadcast_to(p, s) for p, s in zip(parts, sizes, strict=True)], axis))

        views = [self._in_units(name, view) for name, view in zip(node.reads, views, strict=True)]
        weight, bias, unit = (side_by_side(list(parts)) for parts in zip(*(v.arrays for v in views), strict=True))
        marks = {mark: any(getattr(view, mark) for view in views) for mark in ("secret", "product", "kept")}
        joined = View(f"{node.writes}/own", weight, bias, unit, **marks)
        if not along_one(joined):
            return False
        reads = tuple(view.read for view in views)
        self._emit(node.op, reads, joined.read, node.shape, node.origin, node.attributes)
        self._views[node.writes] = joined
        return True

    # -- what takes units and offsets in

    def _taken_in(self, node: Node) -> bool:
        name = node.reads[0]
        view = self._views[name]
        factor = simple_factor(node.of(Weighted).weight) if node.op == "scale" else None
        if factor is not None:  # it is free, and a product with a weight is not
            return self._composed(node, view, float(factor))
        if not node.only_signs:
            view = self._in_units(name, view)
        found = absorbed(Weighted(weight=view.weight, bias=view.bias), node, self.shapes[name])
        if found is None:
            return False
        found = replace(found, public=found.public and not view.kept)
        self.nodes.append(replace(node, reads=(view.read,), attributes=found))
        return True

    def _composed(self, node: Node, view: View, factor: float) -> bool:
        """A power of two, and a constant of the model added: still units and offsets, no longer public ones."""
        bias = node.of(Weighted).bias
        added = np.zeros(()) if bias is None else bias
        if factor == 0 or abs(np.frexp(factor)[0]) != 0.5 or self.shapes[node.reads[0]] != node.shape:
            return False
        added = added.reshape((1,) * (len(node.shape) - added.ndim) + added.shape)
        found = replace(view, weight=view.weight * factor, bias=fewest(view.bias * factor + added))
        if not along_one(found):
            return False
        kept = view.kept or not node.of(Weighted).public
        self._views[node.writes] = replace(found, secret=view.secret or bool(np.any(added)), kept=kept)
        return True

    def _compared(self, node: Node) -> bool:
        """A constant of the model does not go into levels, which are public."""
        name, taken = node.reads[0], node.of(Step)
        view = self._views[name]
        if view.product:
            return False
        if view.secret or view.weight.min() < 0 or view.weight.size > 1 or view.bias.size > 1:
            view = self._about_zero(name, view)
        bias, levels = view.bias.item(), taken.levels
        if view.weight.size == 1:
            levels = tuple((level - bias) / view.weight.item() for level in levels)
        elif max(map(abs, levels)) <= HALF_STEP:  # which levels stand for being equal, on the grid of each column
            levels = tuple(float(np.sign(level)) * _SAME for level in levels)
        else:
            return False
        fraction = _STEP_FRACTION + round(np.log2(view.weight.max()))
        found = replace(taken, levels=levels, fraction=fraction)
        self.nodes.append(replace(node, reads=(view.read,), attributes=found))
        return True

    def _rectified(self, node: Node) -> bool:
        view = self._about_zero(node.reads[0], self._views[node.reads[0]])
        found = replace(view, read=f"{node.writes}/own")
        self._emit("relu", (view.read,), found.read, node.shape, node.origin, node.attributes)
        self._views[node.writes] = found
        return True

    def _summed(self, node: Node) -> bool:
        """Values in equal units."""
        views = [self._views.get(name) or plainly(name, self.shapes[name]) for name in node.reads]
        if node.attributes.known is not None or any(self.shapes[name] != node.shape for name in node.reads):
            return False
        views = [self._in_units(name, view) for name, view in zip(node.reads, views, strict=True)]
        signs = [np.sign(view.weight.flat[0]) for view in views]
        if any(not np.array_equal(np.abs(view.weight), np.abs(views[0].weight)) for view in views):
            return False
        factors = node.of(Sum).factors
        bias = sum((f * v.bias for f, v in zip(factors, views, strict=True)), np.asarray(node.of(Sum).constant))
        found = replace(
            views[0], read=f"{node.writes}/own", weight=np.abs(views[0].weight), bias=fewest(np.asarray(bias)),
            secret=any(view.secret for view in views), product=any(view.product for view in views),
            kept=any(view.kept for view in views),
        )  # fmt: skip
        if not along_one(found):
            return False
        taken = tuple(f * float(sign) for f, sign in zip(factors, signs, strict=True))
        reads = tuple(view.read for view in views)
        self._emit("sum", reads, found.read, node.shape, node.origin, Sum(factors=taken))
        self._views[node.writes] = found
        return True

    def _multiplied(self, node: Node) -> bool:
        views = [self._views.get(name) or plainly(name, self.shapes[name]) for name in node.reads]
        if node.attributes.known is not None:
            return False
        views = [self._about_zero(name, view) for name, view in zip(node.reads, views, strict=True)]
        weight = fewest(np.asarray(views[0].weight * views[1].weight))
        found = View(
            f"{node.writes}/own", weight, zero(weight), zero(weight), product=True, kept=any(v.kept for v in views)
        )
        if not along_one(found):
            return False
        self._emit("multiply", (views[0].read, views[1].read), found.read, node.shape, node.origin, Attributes())
        self._views[node.writes] = found
        return True


def _mover(node: Node) -> Callable[[np.ndarray], np.ndarray]:
    if node.op == "reshape":
        return lambda array: array.reshape(static(node.shape))
    if node.op == "transpose":
        return lambda array: array.transpose(node.of(Transpose).axes)
    taken = node.of(Take)
    return lambda array: array.take(np.array(taken.indices), axis=taken.axis)


def _zeros(taken: Take, rank: int) -> np.ndarray:
    """Where a take puts zeros in, of its rank."""
    behind = rank - taken.axis - 1
    return (np.array(taken.indices) < 0).reshape((1,) * taken.axis + (-1,) + (1,) * behind)
