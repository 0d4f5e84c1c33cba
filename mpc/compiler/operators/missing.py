"""Numbers that may be missing (NaN): a value beside them that is 1 where one is missing and 0 elsewhere.

A model may look at NaN: an Imputer replaces it, a node of a tree sends it to one side.  No integer mod p stands for
NaN.  So the client of such an input enters a number of its range in place of it (`nearest_to_zero`), and beside it
as many zeros and ones that say where.  That a column may miss numbers is public in the plan; which ones miss is
masked as all data.  A column that anything else reads cannot miss numbers.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from mpc.compiler.graph.evaluate import move
from mpc.compiler.graph.graph import MOVES, Graph, GraphInput, Shape, static
from mpc.fixedpoint import nearest_to_zero

if TYPE_CHECKING:
    from mpc.compiler.onnx.walk import Importer


def marks_of(state: Importer, x: str) -> tuple[str, np.ndarray] | None:
    """(value of the shape of x: 1 where x is missing; what is entered there); None if no number of x can be missing.

    Only moves are between x and inputs whose numbers may be missing.  The second is an array of x's `static` shape.
    """
    if x not in state.marks:
        state.marks[x] = _entered(state, x) if x in state.enterable else _moved(state, x)
    return state.marks[x]


def _entered(state: Importer, x: str) -> tuple[str, np.ndarray]:
    shape, name = state.shapes[x], state.fresh()
    state.shapes[name] = shape
    state.integral.add(name)
    state.marking.append(GraphInput(name, shape, "bool", (0.0, 1.0), marks=x))
    return name, np.broadcast_to(nearest_to_zero(*state.enterable[x]), static(shape))


def _moved(state: Importer, x: str) -> tuple[str, np.ndarray] | None:
    node = next((node for node in reversed(state.nodes) if node.writes == x), None)
    if node is None or node.op not in MOVES:
        return None
    found = [marks_of(state, name) for name in node.reads]
    some = next((each for each in found if each is not None), None)
    if some is None:
        return None
    parts = [
        each or _nothing(state, some[0], state.shapes[name], node.attributes["axis"])
        for each, name in zip(found, node.reads, strict=True)
    ]
    written = state.emit(node.op, tuple(name for name, _ in parts), None, node.shape, **node.attributes)
    return written, move(node, [values for _, values in parts])


def _nothing(state: Importer, like: str, shape: Shape, axis: int) -> tuple[str, np.ndarray]:
    """The marks of what is joined with others, and misses no number."""
    return state.take(like, axis, [-1] * state.size(shape, axis, "joining")), np.zeros(static(shape))


def marked(graph: Graph, aware: set[str]) -> Graph:
    """The graph whose marks know their columns: those that nothing reads but nodes that look at missing numbers.

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
    read: set[int] = {0}
    for node in graph.nodes:
        if not any(name in places for name in node.reads):
            continue
        if node.op in MOVES:
            sources = [places.get(name, np.zeros(static(shapes[name]), int)) for name in node.reads]
            places[node.writes] = move(node, sources)
        elif node.writes not in aware:
            read.update(*(np.unique(places[name]).tolist() for name in node.reads if name in places))
    read.update(*(np.unique(places[out.value]).tolist() for out in graph.outputs if out.value in places))
    free = [pair for number, pair in enumerate(known, 1) if number not in read]
    inputs = [
        replace(given, columns=tuple(column for name, column in free if name == given.marks)) if given.marks else given
        for given in graph.inputs
    ]
    return Graph(inputs, graph.nodes, graph.outputs)


def _columns(given: GraphInput) -> range:
    size = given.shape[-1] if given.shape else 1
    return range(size if isinstance(size, int) else 1)


def with_marks(inputs: list[GraphInput], samples: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Samples as they are entered: with what stands for missing numbers, and marks beside them."""
    found, named = dict(samples), {given.name: given for given in inputs}
    for given in inputs:
        if given.marks:
            values = samples[given.marks]
            found[given.name] = np.isnan(values)
            found[given.marks] = np.where(np.isnan(values), nearest_to_zero(*named[given.marks].range), values)
    return found
