"""A graph while a pass replaces its nodes and takes some out: each change takes as long however large the graph is."""

from __future__ import annotations

from dataclasses import replace

from mpc.compiler.graph.graph import Graph, Node


class Rewriting:
    """Nodes in order, each found by the one value that it writes; who reads a value is always known."""

    def __init__(self, graph: Graph) -> None:
        self.nodes: dict[str, Node] = {node.writes: node for node in graph.nodes}
        self._inputs, self._outputs = graph.inputs, list(graph.outputs)
        self._told: dict[str, list[int]] = {}
        for place, out in enumerate(graph.outputs):
            self._told.setdefault(out.value, []).append(place)
        self._readers: dict[str, dict[str, None]] = {}
        for node in graph.nodes:
            self._read(node)
        names = [*self.nodes]
        self._after: dict[str, str] = dict(zip(names, names[1:], strict=False))
        self._before: dict[str, str] = dict(zip(names[1:], names, strict=False))

    @property
    def first(self) -> Node | None:
        """The first node."""
        return next(iter(self.nodes.values()), None)

    @property
    def graph(self) -> Graph:
        """The graph as it is now."""
        return Graph(self._inputs, [*self.nodes.values()], self._outputs)

    def behind(self, node: Node) -> Node | None:
        """Return the node that stands behind one, in order."""
        return self.nodes.get(self._after.get(node.writes, ""))

    def before(self, node: Node) -> Node | None:
        """Return the node that stands before one, in order."""
        return self.nodes.get(self._before.get(node.writes, ""))

    def sole_reader(self, value: str) -> Node | None:
        """Return the one node that reads a value, if there is just one and it is not revealed."""
        readers = self._readers.get(value, {})
        return self.nodes[next(iter(readers))] if len(readers) == 1 and value not in self._told else None

    def next(self, node: Node) -> Node | None:
        """Return the one node that reads what a node writes, if there is just one and it is not revealed."""
        return self.sole_reader(node.writes)

    def previous(self, node: Node) -> Node | None:
        """Return the node that writes what a node reads first, if nothing else reads that and it is not revealed."""
        writer = self.nodes.get(node.reads[0]) if node.reads else None
        return writer if writer is not None and self.sole_reader(writer.writes) is node else None

    def replace(self, node: Node) -> None:
        """Put a node in the place of the one that writes the same value."""
        self._unread(self.nodes[node.writes])
        self.nodes[node.writes] = node
        self._read(node)

    def drop(self, node: Node) -> None:
        """Take out a node that nothing reads any more."""
        self._unread(node)
        name = node.writes
        del self.nodes[name]
        before, after = self._before.pop(name, None), self._after.pop(name, None)
        if before is not None:
            self._after.pop(before)
        if after is not None:
            self._before.pop(after)
        if before is not None and after is not None:
            self._after[before], self._before[after] = after, before

    def bypass(self, node: Node) -> None:
        """Take out a node; what reads it reads what it reads first."""
        name, instead = node.writes, node.reads[0]
        for reader in [self.nodes[each] for each in self._readers.get(name, {})]:
            self.replace(replace(reader, reads=tuple(instead if read == name else read for read in reader.reads)))
        for place in self._told.pop(name, []):
            self._outputs[place] = replace(self._outputs[place], value=instead)
            self._told.setdefault(instead, []).append(place)
        self.drop(node)

    def _read(self, node: Node) -> None:
        for name in node.reads:
            self._readers.setdefault(name, {})[node.writes] = None

    def _unread(self, node: Node) -> None:
        for name in {*node.reads}:
            del self._readers[name][node.writes]
