"""Numbers that may be missing (NaN), and how a client enters them.

A model may look at NaN: an Imputer replaces it, a node of a tree sends it to one side.  No integer mod p stands for
NaN.  So a missing number enters in one of these ways:

* marked: as a number of its column's range (`nearest_to_zero`), with a second input beside, which is 1 where a number
  is missing and 0 elsewhere;
* at the parties, where a table's 0/1 columns mark it: as marked, and the second input has the columns that may miss;
* as a number beyond one end of its column's range (`beyond`), if nothing reads it but trees that treat NaN as they
  treat all numbers there: [x <= t] is false of both.  That costs nothing.

That a column may miss numbers is public in the plan; which ones miss is masked as all data.  A column that anything
else reads cannot miss numbers.  Moves and scalings pass NaN on, and Imputers and trees read what is before a scaling.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np

from mpc.compiler.graph.attributes import Concat, Take, Weighted
from mpc.compiler.graph.evaluate import move
from mpc.compiler.graph.graph import MOVES, Graph, GraphInput, Node, Shape, static
from mpc.compiler.graph.stored import marks_name
from mpc.compiler.operators.context import Context
from mpc.compiler.operators.facts import Way
from mpc.fixedpoint import beyond, encode_places, nearest_to_zero

# ------------------------------------------------------------------- what handlers ask


def marks_of(state: Context, x: str) -> tuple[str, np.ndarray] | None:
    """Return (value of the shape of x: 1 where x is missing; what x is there); None if no number of x can be missing.

    Only moves and scalings are between x and inputs whose numbers may be missing.  The second is an array of x's
    `static` shape.
    """
    if x not in state.marks:
        state.marks[x] = _entered(state, x) if x in state.enterable else _passed_on(state, x)
    return state.marks[x]


def must_mark(state: Context, x: str) -> None:
    """Ask for marks beside the inputs that x comes from: whether a number is missing is asked of itself."""
    state.wanted.append((_roots(state, x), ""))


def may_miss(state: Context, x: str, side: str) -> np.ndarray | None:
    """Tell, for each column of a table, whether it may miss numbers, for trees; None if none can.

    Args:
        side: the end of the number line where trees treat numbers as missing ones; empty if there is none.
    """
    if x in state.decoded or len(state.shapes[x]) != 2:
        return None
    if marks_of(state, x) is not None:
        value, weight, _ = unscaled_columns(state, x)
        straight = static(state.shapes[x])[0] == 1 or _writer(state, value) is None  # no row's columns are another's
        rises = straight and (weight > 0).all() and _roots(state, value, scaled=False) == _roots(state, x)
        state.wanted.append((_roots(state, x), side if rises else ""))
        return np.ones(static(state.shapes[x])[-1], dtype=bool)
    _, there = limits_of(state, unscaled_columns(state, x)[0])
    return there.reshape(-1, there.shape[-1])[0] if there.any() else None


def limits_of(state: Context, x: str) -> tuple[np.ndarray, np.ndarray]:
    """Return (numbers between the range and what stands for missing ones; where there are such), of x's `static`
    shape.
    """
    shape, node = static(state.shapes[x]), _writer(state, x)
    if x in state.standing:
        given, there = state.standing[x], np.zeros(shape, dtype=bool)
        there[..., [*given.way.columns]] = True
        return np.broadcast_to(beyond(*given.within, given.dtype, given.way.side)[1], shape), there
    if node is None or node.op not in MOVES:
        return np.zeros(shape), np.zeros(shape, dtype=bool)
    limits, there = zip(*(limits_of(state, name) for name in node.reads), strict=True)
    return move(node, limits), move(node, there).astype(bool)


def unscaled(state: Context, x: str) -> tuple[str, np.ndarray, np.ndarray]:
    """Return (value, weight, bias): x = value weight + bias, arrays of x's `static` shape, no weight zero.

    Scalings on the way from the inputs are taken out, past moves, so that they cost nothing where numbers may miss.
    """
    shape, node = static(state.shapes[x]), _writer(state, x)
    plain = x, np.ones(shape), np.zeros(shape)
    if node is None:
        return plain
    if _scales(state, node):
        own, added = node.of(Weighted).weight, node.of(Weighted).bias
        if not own.all():
            return plain
        value, weight, bias = unscaled(state, node.reads[0])
        return value, weight * own, np.broadcast_to(bias * own + (0.0 if added is None else added), shape)
    if node.op not in MOVES or (isinstance(node.attributes, Take) and -1 in node.attributes.indices):
        return plain
    values, weights, biases = zip(*(unscaled(state, name) for name in node.reads), strict=True)
    if values == node.reads:
        return plain
    value = state.emit(node.op, values, None, node.shape, node.attributes)
    return value, move(node, weights), move(node, biases)


def unscaled_columns(state: Context, x: str) -> tuple[str, np.ndarray, np.ndarray]:
    """Return (value, weight, bias) as `unscaled`, of a table: one weight and one bias for each of its columns.

    Where a model fixes its rows and scales each differently, nothing is taken out.
    """
    value, weight, bias = unscaled(state, x)
    weight, bias = weight.reshape(-1, weight.shape[-1]), bias.reshape(-1, bias.shape[-1])
    if (weight == weight[0]).all() and (bias == bias[0]).all():
        return value, weight[0], bias[0]
    return x, np.ones_like(weight[0]), np.zeros_like(bias[0])


def _writer(state: Context, x: str) -> Node | None:
    return next((node for node in reversed(state.nodes) if node.writes == x), None)


def _scales(state: Context, node: Node) -> bool:
    """Is it x weight + bias, of x's own shape?"""
    return (
        node.op == "scale"
        and node.attributes.known is None
        and static(state.shapes[node.reads[0]]) == static(node.shape)
    )


def _entered(state: Context, x: str) -> tuple[str, np.ndarray]:
    if x in state.at_rest:
        return _at_rest(state, x), np.broadcast_to(nearest_to_zero(*state.enterable[x]), static(state.shapes[x]))
    shape, name = state.shapes[x], state.fresh()
    state.shapes[name] = shape
    state.integral.add(name)
    state.marking.append(GraphInput(name, shape, "bool", (0.0, 1.0), marks=x))
    return name, np.broadcast_to(nearest_to_zero(*state.enterable[x]), static(shape))


def _at_rest(state: Context, x: str) -> str:
    """Read the columns at the parties that mark where numbers of x are missing; other columns miss none."""
    shape, columns, name = state.shapes[x], state.at_rest[x], marks_name(x)
    state.shapes[name] = (*shape[:-1], len(columns))
    state.integral.add(name)
    marks = GraphInput(name, state.shapes[name], "bool", (0.0, 1.0), beside=x, columns=columns)
    state.marking.append(marks)
    places = [columns.index(column) if column in columns else -1 for column in range(static(shape)[-1])]
    return name if places == [*range(len(columns))] else state.take(name, len(shape) - 1, places)


def _passed_on(state: Context, x: str) -> tuple[str, np.ndarray] | None:
    node = _writer(state, x)
    if node is None or not (node.op in MOVES or _scales(state, node)):
        return None
    found = [marks_of(state, name) for name in node.reads]
    some = next((each for each in found if each is not None), None)
    if some is None:
        return None
    if node.op == "scale":
        return some[0], move(node, [some[1]])
    parts = [
        each or _nothing(state, some[0], state.shapes[name], node.of(Concat).axis)
        for each, name in zip(found, node.reads, strict=True)
    ]
    written = state.emit(node.op, tuple(name for name, _ in parts), None, node.shape, node.attributes)
    return written, move(node, [values for _, values in parts])


def _nothing(state: Context, like: str, shape: Shape, axis: int) -> tuple[str, np.ndarray]:
    """The marks of what is joined with others, and misses no number."""
    return state.take(like, axis, [-1] * state.size(shape, axis, "joining")), np.zeros(static(shape))


def _roots(state: Context, x: str, scaled: bool = True) -> frozenset[str]:
    """The inputs that x comes from by moves, and by scalings or none, and that may miss numbers."""
    if x in state.enterable:
        return frozenset([x])
    node = _writer(state, x)
    if node is None or not (node.op in MOVES or (scaled and _scales(state, node))):
        return frozenset()
    return frozenset[str]().union(*(_roots(state, name, scaled) for name in node.reads))


# ------------------------------------------------------------------- what an import has found


def ways(state: Context, graph: Graph, needed: Collection[str]) -> dict[str, Way]:
    """Find, by name, the inputs that need no marks: no number can be missing, or one beyond the range stands for it.

    Inputs that one reader joins enter in one way.

    Args:
        needed: inputs that need marks for another reason.
    """
    columns = {given.marks: given.columns for given in graph.inputs if given.marks}
    sides = {name: {side for roots, side in state.wanted if name in roots} for name in columns}
    marked = {name for name, found in sides.items() if len(found) != 1 or "" in found or name in needed}
    while joined := {name for roots, _ in state.wanted if roots & marked for name in roots} - marked:
        marked |= joined
    return {
        name: Way(free, "" if name in marked or not free else next(iter(sides[name])))
        for name, free in columns.items()
        if not free or name not in marked
    }


def marked(graph: Graph, aware: set[str]) -> Graph:
    """Return the graph whose marks know their columns: those that nothing reads but nodes that look at missing numbers.

    Args:
        aware: what such nodes write.
    """
    watched = {given.marks for given in graph.inputs if given.marks}
    places: dict[str, np.ndarray] = {}  # of elements of a watched input: the input's number and the column, plus 1
    known = [(given.name, column) for given in graph.inputs for column in _columns(given) if given.name in watched]
    for given in graph.inputs:
        if given.name in watched:
            first = known.index((given.name, 0)) + 1
            places[given.name] = np.broadcast_to(first + np.arange(len(_columns(given))), static(given.shape))
    shapes = {given.name: given.shape for given in graph.inputs} | {node.writes: node.shape for node in graph.nodes}
    awaited = _awaited(graph)
    read: set[int] = {0}
    for node in graph.nodes:
        if node.writes not in awaited or not any(name in places for name in node.reads):
            continue
        if node.op in MOVES:
            sources = [places.get(name, np.zeros(static(shapes[name]), int)) for name in node.reads]
            places[node.writes] = move(node, sources)
        elif node.op == "scale" and static(node.shape) == static(shapes[node.reads[0]]):
            places[node.writes] = places[node.reads[0]]
        elif node.writes not in aware:
            read.update(*(np.unique(places[name]).tolist() for name in node.reads if name in places))
    read.update(*(np.unique(places[out.value]).tolist() for out in graph.outputs if out.value in places))
    free = [pair for number, pair in enumerate(known, 1) if number not in read]
    inputs = [
        replace(given, columns=tuple(column for name, column in free if name == given.marks)) if given.marks else given
        for given in graph.inputs
    ]
    return Graph(inputs, graph.nodes, graph.outputs)


def _awaited(graph: Graph) -> set[str]:
    """Values that outputs come from: readers that nothing reads, as of a scaling that was taken out, do not count."""
    found = {out.value for out in graph.outputs}
    for node in reversed(graph.nodes):
        if node.writes in found:
            found.update(node.reads)
    return found


def _columns(given: GraphInput) -> range:
    size = given.shape[-1] if given.shape else 1
    return range(size if isinstance(size, int) else 1)


def with_marks(inputs: list[GraphInput], samples: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return samples as they are entered: with what stands for missing numbers, marks beside them, and places as ones
    among zeros.
    """
    found, named = dict(samples), {given.name: given for given in inputs}
    for given in inputs:
        if given.places:
            found[given.name] = encode_places(samples[given.name], given.places).astype(np.int8)
        name = given.marks or given.beside or (given.name if given.beyond else "")
        if not name:
            continue
        values, within = samples[name], named[name].range
        stands = beyond(*within, given.dtype, given.beyond)[0] if given.beyond else nearest_to_zero(*within)
        found[name] = np.where(np.isnan(values), stands, values)
        if given.marks or given.beside:
            found[given.name] = np.isnan(values)[..., [*given.columns]] if given.beside else np.isnan(values)
    return found
