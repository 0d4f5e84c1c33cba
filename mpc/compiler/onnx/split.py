"""A declared split of a model's constants: which stay secret where all others are told to the parties.

A constant is secret if its name, or the name of any node that reads it or what is made of it, matches a pattern; so is
whatever is computed of it before the model runs.  What a node makes of secret constants and others is secret, and all
that a node with branches makes if anything within them is.  `Constants` holds to this whatever a handler reads.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import onnx

from mpc.compiler.graph.writer import Writer
from mpc.errors import ModelError
from mpc.text import shown

KEY = "mpc.weights.secret"
"""Metadata of a model: patterns, separated by commas, of constants that stay secret whatever becomes of the others."""
_LISTED = 6
_SIZES = frozenset({"Shape", "Size"})
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
        self._named: set[str] = set()
        self._matched: set[str] = set()
        if patterns is not None:
            self._look(model.graph, {})
            self._require_matches(model)
        self._declared = frozenset(self._secret)

    def tells(self, node: onnx.NodeProto) -> bool:
        """May the constants of a node be told?"""
        if self._patterns is None or node.domain == "ai.onnx.ml":
            return False
        return all(map(self._is_told, (node, *_within(node))))

    def _is_told(self, node: onnx.NodeProto) -> bool:
        own = (tensor.name for a in node.attribute for tensor in a.g.initializer)
        return self._secret.isdisjoint((*node.input, *node.output, *own)) and self._named.isdisjoint(node.output)

    @property
    def is_declared(self) -> bool:
        """Tell whether some constants are told and others are not."""
        return self._patterns is not None

    def declares(self, name: str) -> bool:
        """Tell whether a constant is itself one that stays secret, and not made of such."""
        return name in self._declared

    def keeps(self, name: str) -> bool:
        """Tell whether a constant stays secret where others are told."""
        return name in self._secret

    def computed(self, names: Collection[str], *, told: bool) -> None:
        """Note constants that are made of others."""
        if self._patterns is not None and not told:
            self._secret.update(names)

    def _look(self, graph: onnx.GraphProto, around: Mapping[str, frozenset[str]]) -> dict[str, frozenset[str]]:
        """Find secret constants: those of a name, and all that a node of such a name reads, and what these are made of.

        Args:
            around: constants outside of a branch, each with those that it is made of.

        Returns:
            Constants inside, and those outside, so.
        """
        made = {**around, **{tensor.name: frozenset([tensor.name]) for tensor in graph.initializer}}
        self._secret.update(name for name in made if self._matches(name))
        for index, node in enumerate(graph.node):
            reads = [made[name] for name in node.input if name in made]
            of = frozenset[str]().union(*reads)
            if node.op_type in _SIZES:  # a size is known, and is no constant of the model
                made.update((out, frozenset([out])) for out in node.output)
            elif len(reads) == sum(map(bool, node.input)) and not _has_branches(node):
                made.update((out, of | {out}) for out in node.output)
            for body in _bodies(node):
                found = self._look(body, {**made, **_bound(node, body, made)})
                for out, inner in zip(node.output, _given(node, body), strict=False):
                    if inner in found:
                        made[out] = made.get(out, frozenset([out])) | found[inner]
            scopes = (entry.value for entry in node.metadata_props if entry.key in _SCOPES)
            names = (node.name or f"{node.op_type}_{index}", *filter(None, node.output), *_parts(scopes))
            matched = [self._matches(each) for each in names]  # each name, so that each pattern is known to be there
            if any(matched):
                self._secret.update(of, (out for out in node.output if out in made))
                self._named.update(filter(None, node.output))
        return made

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


class Constants(dict[str, np.ndarray]):
    """Holds the constants of an import, and notes when the numbers of one are read that stays secret.

    What else the node that is being imported emits is then not told, and the constants that it makes stay secret too.

    Args:
        split: says which constants stay secret.
        state: whose `told` says whether the constants of the node at hand are told.
    """

    def __init__(self, split: Split, state: Writer) -> None:
        super().__init__()
        self._split, self._state = split, state

    def __getitem__(self, name: str) -> np.ndarray:
        """Return the numbers of a constant."""
        self.note(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        """Return the numbers of a constant, or what is given instead."""
        self.note(name)
        return super().get(name, default)

    def __setitem__(self, name: str, numbers: np.ndarray) -> None:
        """Add a constant that the node at hand makes."""
        self._split.computed([name], told=self._state.told)
        super().__setitem__(name, numbers)

    def note(self, name: str) -> None:
        """Note that the numbers of a constant are read."""
        if self._split.keeps(name):
            self._state.told = False


def _bodies(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    return [attribute.g for attribute in node.attribute if attribute.type == onnx.AttributeProto.GRAPH]


def _has_branches(node: onnx.NodeProto) -> bool:
    return bool(_bodies(node))


def _within(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    """All nodes in the branches of one."""
    for body in _bodies(node):
        for inner in body.node:
            yield inner
            yield from _within(inner)


def _bound(
    node: onnx.NodeProto, body: onnx.GraphProto, made: Mapping[str, frozenset[str]]
) -> dict[str, frozenset[str]]:
    """Map what enters a body, as far as it is constant: a loop's first input is the number of the step."""
    pairs = zip((value.name for value in body.input), node.input, strict=False)
    return {inner: made[outer] for inner, outer in pairs if outer in made}


def _given(node: onnx.NodeProto, body: onnx.GraphProto) -> list[str]:
    """List what leaves a body, in the order of the node's outputs: a loop's condition is none of these."""
    names = [value.name for value in body.output]
    return names[1:] if node.op_type == "Loop" else names


def _parts(scopes: Iterable[str]) -> Iterable[str]:
    """Names of modules in what the exporter has noted: a list as Python writes it, or one name."""
    for scope in scopes:
        yield from (part.strip(" '\"[]") for part in scope.split(","))
