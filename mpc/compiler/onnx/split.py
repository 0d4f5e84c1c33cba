"""A declared split of a model's constants: which stay secret where all others are told to the parties.

A constant is secret if its name, or the name of any node that reads it or what is made of it, matches a pattern; so is
whatever is computed of it before the model runs.  What a node makes of secret constants and others is secret.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

import onnx

from mpc.errors import ModelError
from mpc.text import shown

KEY = "mpc.weights.secret"
"""Metadata of a model: patterns, separated by commas, of constants that stay secret whatever becomes of the others."""
_LISTED = 6
_SCOPES = ("pkg.torch.onnx.name_scopes", "pkg.torch.onnx.original_node_name")
"""Where PyTorch's newer exporter says which module a node is of."""


def declared_secret(model: onnx.ModelProto) -> tuple[str, ...]:
    """Return the patterns that a model's own metadata has."""
    said = next((entry.value for entry in model.metadata_props if entry.key == KEY), "")
    return tuple(filter(None, (each.strip() for each in said.split(","))))


class Split:
    """Tells, while a model is imported, whether what a node makes of constants may be told to the parties.

    Args:
        patterns: as of `fnmatch`, of names that stay secret; None: there is no split, and nothing is told.

    Raises:
        ModelError: a pattern finds nothing.
    """

    def __init__(self, model: onnx.ModelProto, patterns: Sequence[str] | None) -> None:
        self._patterns = None if patterns is None else tuple(patterns)
        self._secret: set[str] = set()
        self._matched: set[str] = set()
        if patterns is not None:
            self._look(model.graph, {})
            self._require_matches(model)

    def tells(self, node: onnx.NodeProto) -> bool:
        """May the constants of a node be told?"""
        if self._patterns is None or node.domain == "ai.onnx.ml":
            return False
        return self._secret.isdisjoint((*node.input, *node.output))

    def computed(self, names: Collection[str], *, told: bool) -> None:
        """Note constants that are made of others."""
        if self._patterns is not None and not told:
            self._secret.update(names)

    def _look(self, graph: onnx.GraphProto, around: Mapping[str, frozenset[str]]) -> None:
        """Find secret constants: those of a name, and all that a node of such a name reads, and what these are made of.

        Args:
            around: constants outside of a branch, each with those that it is made of.
        """
        made = {**around, **{tensor.name: frozenset([tensor.name]) for tensor in graph.initializer}}
        self._secret.update(name for name in made if self._matches(name))
        for index, node in enumerate(graph.node):
            reads = [made[name] for name in node.input if name in made]
            of = frozenset[str]().union(*reads)
            if len(reads) == sum(map(bool, node.input)) and not _has_branches(node):
                made.update((out, of | {out}) for out in node.output)
            scopes = (entry.value for entry in node.metadata_props if entry.key in _SCOPES)
            names = (node.name or f"{node.op_type}_{index}", *filter(None, node.output), *_parts(scopes))
            matched = [self._matches(each) for each in names]  # each name, so that each pattern is known to be there
            if any(matched):
                self._secret.update(of, (out for out in node.output if out in made))
            for attribute in node.attribute:
                if attribute.type == onnx.AttributeProto.GRAPH:
                    self._look(attribute.g, made)

    def _require_matches(self, model: onnx.ModelProto) -> None:
        """Check that every pattern has found something: a mistyped one would tell what it was to keep."""
        names = [tensor.name for tensor in model.graph.initializer]
        for pattern in self._patterns or ():
            if pattern not in self._matched:
                named, some = repr(shown(pattern[:80])), ", ".join(map(shown, names[:_LISTED]))
                raise ModelError(
                    f"no constant and no node of the model has a name like {named}, which is to stay secret",
                    cause="exporters rename what they transpose or fold; the names of nodes may still say whose it is",
                    remedy=f"write it as the model's file has it: its constants are {some or 'none'}"
                    + (" and more (mpc inspect lists nodes)" if len(names) > _LISTED else ""),
                )

    def _matches(self, name: str) -> bool:
        found = [pattern for pattern in self._patterns or () if fnmatchcase(name, pattern)]
        self._matched.update(found)
        return bool(found)


def _has_branches(node: onnx.NodeProto) -> bool:
    return any(attribute.type == onnx.AttributeProto.GRAPH for attribute in node.attribute)


def _parts(scopes: Iterable[str]) -> Iterable[str]:
    """Names of modules in what the exporter has noted: a list as Python writes it, or one name."""
    for scope in scopes:
        yield from (part.strip(" '\"[]") for part in scope.split(","))
