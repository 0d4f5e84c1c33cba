"""A graph that gradients are written behind: whatever reads its values, in the names of the model's own nodes."""

from __future__ import annotations

from mpc.compiler.graph.attributes import Round
from mpc.compiler.graph.emitter import Emitter
from mpc.compiler.graph.graph import Graph, Shape


class Tape(Emitter):
    """Writes nodes behind those of a graph, all of whose dimensions are numbers.

    Args:
        graph: it stays as it is; its nodes come first.
        fraction: fractional bits that the products of gradients are given, as `round` nodes; None of real numbers.
    """

    def __init__(self, graph: Graph, fraction: int | None = None) -> None:
        super().__init__()
        self.nodes = list(graph.nodes)
        self.shapes = {given.name: given.shape for given in graph.inputs}
        self.shapes |= {node.writes: node.shape for node in graph.nodes}
        self.reserve(self.shapes)
        self._fraction = fraction
        self._short: dict[str, str] = {}

    def short(self, g: str) -> str:
        """Return a gradient as a product reads it: with few fractional bits, the first time a node more."""
        if self._fraction is None:
            return g
        if g not in self._short:
            self._short[g] = self.emit("round", (g,), None, self.shapes[g], Round(fraction=self._fraction))
        return self._short[g]

    def summed_to(self, g: str, shape: Shape) -> str:
        """Return the adjoint of a broadcast from this shape: sums over what was repeated."""
        own = self.shapes[g]
        lead = len(own) - len(shape)
        axes = [a for a, size in enumerate(own) if a < lead or (shape[a - lead] == 1 and size != 1)]
        return self.shaped(self.total(g, axes) if axes else g, shape)

    def shaped(self, x: str, shape: Shape) -> str:
        """Reshape x, unless it has that shape."""
        return x if self.shapes[x] == shape else self.reshape(x, shape)

    def swapped(self, x: str) -> str:
        """Return x with its last two axes exchanged."""
        rank = len(self.shapes[x])
        return self.transpose(x, (*range(rank - 2), rank - 1, rank - 2))

    def part(self, x: str, axis: int, start: int, stop: int) -> str:
        """Return slices from `start` to `stop` along an axis; x itself if these are all."""
        return x if (start, stop) == (0, self.shapes[x][axis]) else self.take(x, axis, range(start, stop))

    def times(self, x: str, factor: float) -> str:
        """Multiply with a public number."""
        return x if factor == 1 else self.sum((x,), (factor,))
