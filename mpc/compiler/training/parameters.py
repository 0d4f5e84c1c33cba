"""A model's weights as values that a step reads and writes, and its rows as numbers: before gradients are written."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from mpc.compiler.graph.attributes import Affine, Attributes, Filters, Sliding, Sum, Weighted
from mpc.compiler.graph.graph import Graph, Node, Shape
from mpc.errors import ModelError
from mpc.wires import BATCH

_BATCH = "BatchNormalization"
_GAINED = frozenset({"LayerNormalization", "InstanceNormalization", "GroupNormalization"})
"""Operators that scale by their gain and shift at their end, and nowhere else."""
_RECURRENT = frozenset({"LSTM", "GRU", "RNN"})
"""Operators whose steps share weights, and whose weights do not train."""


@dataclass
class Freed:
    """A graph of which some weights are inputs.

    Args:
        values: input -> the model's weights.
        readers: input -> the nodes of the model that read it, in their order.
    """

    graph: Graph
    values: dict[str, np.ndarray] = field(repr=False)
    readers: dict[str, tuple[str, ...]] = field(default_factory=dict)


def bound_to(graph: Graph, batch: int) -> Graph:
    """Return the graph for one number of rows: sums over rows are then sums over an axis as others."""

    def sizes(shape: Shape) -> Shape:
        return tuple(batch if size == BATCH else size for size in shape)

    return Graph(
        [replace(given, shape=sizes(given.shape)) for given in graph.inputs],
        [replace(node, shape=sizes(node.shape)) for node in graph.nodes],
        [replace(out, shape=sizes(out.shape)) for out in graph.outputs],
    )


def normalised(
    graph: Graph,
    statistics: Mapping[str, tuple[np.ndarray, ...]],
    names: Mapping[str, tuple[str, ...]],
    frozen: Collection[str],
) -> Graph:
    """Return the graph with batch normalisations as two scalings: by the statistics, then by the gain and shift.

    Those whose gain and shift are both frozen stay one.

    Args:
        statistics: node of the model -> its gain, shift, mean and one over its deviation.
        names: as `freed` has them.
    """
    nodes: list[Node] = []
    for node in graph.nodes:
        parts = statistics.get(node.origin.node) if node.origin.operator == _BATCH else None
        named = names.get(node.origin.node, ())
        if parts is None or node.op != "scale" or len(named) != 4 or {*named[:2]} <= {*frozen}:
            nodes.append(node)
            continue
        gain, shift, mean, inverse = (each.reshape(node.of(Weighted).weight.shape) for each in parts)
        normal = f"{node.writes}/normal"
        nodes.append(replace(node, writes=normal, attributes=Weighted(weight=inverse, bias=-mean * inverse)))
        nodes.append(replace(node, reads=(normal,), attributes=Weighted(weight=gain, bias=shift)))
    return Graph(graph.inputs, nodes, graph.outputs)


def freed(
    graph: Graph,
    names: Mapping[str, tuple[str, ...]],
    frozen: Collection[str] = (),
    stand_ins: Collection[str] = (),
) -> Freed:
    """Make the weights and biases of linear layers and convolutions inputs, and gains and shifts of normalisations.

    All other constants stay.  A bias that is added behind a layer counts as its own.

    Args:
        names: node of the model -> how the model calls the constants that it reads.
        frozen: names of weights that stay as they are.
        stand_ins: names of constants that stay too, whether a layer reads them or not.

    Raises:
        ModelError: no weight is left to train, or there is none of a frozen name.
    """
    work = _Freeing(graph, names, {*frozen, *stand_ins})
    for node in graph.nodes:
        work.add(node)
    unknown = set(frozen) - work.known
    if unknown:
        raise ModelError(
            f"the model has no weight {min(unknown)!r} to freeze",
            remedy=f"its weights are {', '.join(sorted(work.known))}",
        )
    if not work.values:
        raise ModelError(
            "the model has no weights to train",
            remedy="give a model with linear layers or convolutions that are not all frozen",
        )
    readers = {name: tuple(dict.fromkeys(nodes)) for name, nodes in work.readers.items()}
    return Freed(Graph(graph.inputs, work.nodes, graph.outputs), work.values, readers)


def equal_notes(copies: Mapping[str, str], released: Freed) -> tuple[str, ...]:
    """Name weights that the file stores once for several, and those that several layers read."""
    found = []
    own = [f"{name!r} (as {copies[name]!r})" for name in released.values if name in copies]
    if own:
        found.append(f"stored once, as they begin equal, and trained each by itself: {', '.join(own)}")
    for name, readers in released.readers.items():
        if len(readers) > 1:
            found.append(
                f"{name!r} is one weight of {', '.join(map(repr, readers))}, and trains by the sum of their gradients: "
                "if they had weights of their own before the export, the exporter has joined those that were equal"
            )
    return tuple(found)


class _Freeing:
    def __init__(self, graph: Graph, names: Mapping[str, tuple[str, ...]], frozen: set[str]) -> None:
        self.graph, self.names, self.frozen = graph, names, frozen
        self.nodes: list[Node] = []
        self.values: dict[str, np.ndarray] = {}
        self.readers: dict[str, list[str]] = {}
        self.known: set[str] = set()
        self._layers: set[str] = set()  # values of products with weights, behind which a bias may stand

    def add(self, node: Node) -> None:
        taken = node.attributes
        if node.origin.operator in _RECURRENT:
            self._keep(node)
        elif isinstance(taken, Affine | Filters):
            self._product(node, taken)
        elif type(taken) is Weighted and self._is_gain(node):
            self._gained(node, taken)
        elif type(taken) is Weighted and node.op == "scale" and self._is_bias(node, taken):
            self._added(node, node.reads[0], self._name(node, -1, "bias"), np.asarray(taken.bias))
        else:
            self.nodes.append(node)

    def _keep(self, node: Node) -> None:
        """Leave the weights of a recurrent layer as they are, if the caller says so."""
        names = {name for name in self.names.get(node.origin.node, ()) if name}
        self.known |= names
        if not names <= self.frozen:
            raise node.origin.refuse(
                "weights of recurrent layers do not train",
                remedy=f"train what stands behind, and keep {', '.join(sorted(names))} as they are (--frozen NAME for "
                "each, in Python frozen=[...])",
            )
        self.nodes.append(node)

    def _is_bias(self, node: Node, taken: Weighted) -> bool:
        """Does it add a constant to a layer?  What other operators add, a Clip say, is no weight."""
        adds = node.origin.operator == "Add" and taken.bias is not None and bool((taken.weight == 1).all())
        return adds and node.reads[0] in self._layers

    def _is_gain(self, node: Node) -> bool:
        """Is it gain and shift of a normalisation, by the names that the model has for both?"""
        names = self.names.get(node.origin.node, ())
        if node.origin.operator == _BATCH:
            return node.reads == (f"{node.writes}/normal",) or (len(names) == 4 and {*names[:2]} <= self.frozen)
        return node.op == "scale" and node.origin.operator in _GAINED and len(names) == 2

    def _train(self, node: Node, name: str, values: np.ndarray) -> None:
        """Take a weight among those that train; one that several layers read trains once, by the sum of gradients.

        Raises:
            ModelError: layers read it in different forms.
        """
        if name in self.values and not np.array_equal(self.values[name], values):
            raise node.origin.refuse(
                f"it reads the weight {name!r}, which another layer reads in another form",
                remedy="give each layer a weight of its own, or keep it as it is (frozen=[...])",
            )
        self.values.setdefault(name, values)
        self.readers.setdefault(name, []).append(node.origin.node)

    def _product(self, node: Node, taken: Affine | Filters) -> None:
        """Free a layer's weight, its bias, or both."""
        weight = self._name(node, 0, "weight")
        bias = None if taken.bias is None else self._name(node, -1, "bias")
        self._layers.add(node.writes)
        if weight is None and bias is None:
            self.nodes.append(node)
            return
        product = node.writes if taken.bias is None else f"{node.writes}/product"
        if weight is None:
            self.nodes.append(replace(node, writes=product, attributes=replace(taken, bias=None)))
        else:
            self._train(node, weight, taken.weight)
            kept: Attributes = Sliding(windows=taken.windows) if isinstance(taken, Filters) else Attributes()
            self.nodes.append(replace(node, reads=(node.reads[0], weight), writes=product, attributes=kept))
        if taken.bias is not None:
            self._added(node, product, bias, taken.bias)

    def _gained(self, node: Node, taken: Weighted) -> None:
        """Free the gain of a normalisation, its shift, or both."""
        gain, shift = self._name(node, 0, "weight"), self._name(node, 1, "bias")
        if gain is None and shift is None:
            self.nodes.append(node)
            return
        product = f"{node.writes}/product"
        if gain is None:
            self.nodes.append(replace(node, writes=product, attributes=replace(taken, bias=None)))
        else:
            self._train(node, gain, taken.weight)
            read = (node.reads[0], gain)
            self.nodes.append(replace(node, op="multiply", reads=read, writes=product, attributes=Attributes()))
        self._added(node, product, shift, np.asarray(taken.bias))

    def _added(self, node: Node, product: str, bias: str | None, values: np.ndarray) -> None:
        """Add a bias behind a product: one that trains, or one that stays as it is."""
        if bias is None:
            constant = Weighted(weight=np.ones(()), bias=values)
            self.nodes.append(replace(node, op="scale", reads=(product,), attributes=constant))
            return
        self._train(node, bias, values)
        self.nodes.append(replace(node, op="sum", reads=(product, bias), attributes=Sum(factors=(1.0, 1.0))))

    def _name(self, node: Node, place: int, what: str) -> str | None:
        """How a weight is called; None if it stays as it is."""
        given = self.names.get(node.origin.node, ())
        name = given[place] if given and (what == "weight" or len(given) > 1 or node.op == "scale") else ""
        if not name:
            name = f"{node.origin.node}.{what}"
            while name in self.known:
                name += "'"
        self.known.add(name)
        return None if name in self.frozen else name
