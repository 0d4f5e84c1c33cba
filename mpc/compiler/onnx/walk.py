"""ONNX in: constants are folded, and every node becomes graph nodes or a refusal.

A refusal names node, operator and attribute.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
import onnx.shape_inference

from mpc.compiler.graph.attributes import Fit
from mpc.compiler.graph.graph import Graph, Range
from mpc.compiler.graph.hidden import Floor
from mpc.compiler.graph.stored import StoredInput
from mpc.compiler.graph.telling import Change
from mpc.compiler.graph.writer import INTEGERS
from mpc.compiler.onnx import fold as onnx_fold
from mpc.compiler.onnx.declared import declared_ranges
from mpc.compiler.onnx.load import OLDEST_OPSET
from mpc.compiler.onnx.metadata import rounds_quantised
from mpc.compiler.onnx.protos import TYPES, array_of, model_node, names_of, reads_of
from mpc.compiler.onnx.signature import Shapes, Signature
from mpc.compiler.onnx.split import Constants, Split
from mpc.compiler.onnx.unrolling import step_of, types_of
from mpc.compiler.onnx.unsupported import is_supported, named, refusal, unsupported
from mpc.compiler.operators import HANDLERS, joined
from mpc.compiler.operators.context import Body, Context, ModelNode, wraps
from mpc.compiler.operators.facts import Truncated, Way
from mpc.compiler.operators.labels import as_number
from mpc.compiler.operators.maxima import noted
from mpc.compiler.operators.missing import marked, ways
from mpc.compiler.operators.registry import READ_LABELS
from mpc.compiler.operators.rowwise import note, write
from mpc.compiler.operators.rowwise_values import Rowwise
from mpc.compiler.operators.sequences import READERS
from mpc.errors import ModelError

_WRAPPING = frozenset(
    {"Add", "Cast", "CastLike", "CumSum", "Einsum", "Gemm", "MatMul", "Mul", "Neg", "Pow", "ReduceL1", "ReduceProd",
     "ReduceSum", "ReduceSumSquare", "Sub", "Sum"}
)  # fmt: skip
"""May leave an integer type, upon which onnxruntime wraps around."""


class Importer(Context):
    """One import: walks over a model's nodes and calls their handlers."""

    def __init__(
        self,
        model: onnx.ModelProto,
        shapes: Shapes,
        assumed: Mapping[str, Range],
        found: Mapping[str, Way] = MappingProxyType({}),
        sums_rows: bool = False,
        at_rest: Mapping[str, StoredInput] = MappingProxyType({}),
        numbers: Collection[str] | None = None,
        secret: Sequence[str] | None = None,
        change: Change | None = None,
        skips: bool = True,
        floor: Floor | None = None,
        kept: Collection[str] = (),
    ) -> None:
        opsets = {entry.domain or "ai.onnx": entry.version for entry in model.opset_import}
        readers: dict[str, list[ModelNode]] = {}
        for reader, name in reads_of(model.graph):
            readers.setdefault(name, []).append(reader)
        revealed = frozenset(value.name for value in model.graph.output)
        super().__init__(opsets.get("ai.onnx", OLDEST_OPSET), opsets, readers, revealed)
        self.sums_rows, self.rounds, self.skips = sums_rows, rounds_quantised(model), skips
        self.floor, self.kept = floor, kept
        self._inlined: list[tuple[int, onnx.NodeProto]] = []
        self._rowwise: dict[str, Rowwise] = {}
        self._split, self._told_around, self._change = Split(model, secret), True, change
        self.constants = self._constants = Constants(self._split, self)
        self.splits = self._split.is_declared
        self.reserve(names_of(model.graph))
        self._model = model
        self._needed = revealed.union(readers)
        self._signature = Signature(self, model, shapes, assumed, found, at_rest, numbers)

    # -- what handlers ask of the model's format

    def inferred(self, name: str) -> str:
        original = next((given for given, number in self.numbered.items() if number == name), name)
        return self._inferred.get(original, "")

    @cached_property
    def _inferred(self) -> dict[str, str]:
        """Types of the model's values, as far as onnx can tell."""
        try:
            graph = onnx.shape_inference.infer_shapes(self._model).graph
        except Exception:  # whatever onnx raises on a model that it cannot infer: then no type is known
            return {}
        values = (*graph.input, *graph.value_info, *graph.output)
        return {value.name: TYPES.get(value.type.tensor_type.elem_type, "") for value in values}

    def known(self, name: str) -> np.ndarray | None:
        self._constants.note(name)  # even of one whose node comes later
        return self.constants.get(name, self._spelt_out.get(name))

    @cached_property
    def _spelt_out(self) -> dict[str, np.ndarray]:
        """Constants that are nodes, wherever they stand."""
        nodes = [node for node in self._model.graph.node if node.op_type == "Constant"]
        found = {node.output[0]: array_of(a.t) for node in nodes for a in node.attribute if a.name == "value"}
        return {name: self._changed(values, name) for name, values in found.items()}

    def type_named(self, code: int) -> str:
        return TYPES.get(code, "")

    def array(self, tensor: onnx.TensorProto) -> np.ndarray:
        return array_of(tensor)

    def body(self, graph: onnx.GraphProto) -> Body:
        return Body(
            tuple(value.name for value in graph.input),
            {tensor.name: array_of(tensor) for tensor in graph.initializer},
            tuple(map(model_node, graph.node)),
            tuple(value.name for value in graph.output),
        )

    # -- the walk

    def run(self, model: onnx.ModelProto, ranges: dict[str, Range]) -> Graph:
        """Walk all nodes.

        Raises:
            ModelError: something is refused; operators that no handler has are named first, and all of them.
        """
        try:
            return self._run(model, ranges)
        except ModelError as error:
            given = {value.name for value in model.graph.input} - {tensor.name for tensor in model.graph.initializer}
            found = unsupported([*enumerate(model.graph.node), *self._inlined], given)
            if not found:
                raise
            besides = None if error.node in {origin.node for origin in found} else error
            raise refusal(found, besides, model.graph.node) from None

    def let_go(self) -> None:
        """Let go of the model's numbers: an importer refers to itself, and they would stay with it."""
        self._constants.clear()
        self.nodes = []

    def _run(self, model: onnx.ModelProto, ranges: dict[str, Range]) -> Graph:
        self._store(model.graph)
        inputs = self._signature.inputs(ranges)
        for index, node in enumerate(model.graph.node):
            self._node(index, node)
        outputs = [self._signature.output(value) for value in model.graph.output]
        nodes, unhidden = noted(self.nodes, {*self.floored}, self.alone)
        graph = marked(Graph([*inputs, *self.marking], nodes, outputs), self.aware)
        notes = tuple(self.notes.told())
        return replace(graph, notes=notes, floored=dict(self.floored), unhidden=unhidden)

    def _store(self, graph: onnx.GraphProto, of: onnx.GraphProto | None = None) -> None:
        """Take in the constants of a graph, which may be a copy of another whose names are the model's."""
        for tensor, original in zip(graph.initializer, (of or graph).initializer, strict=True):
            self.constants.update({tensor.name: self._changed(array_of(tensor), original.name)})

    def _changed(self, values: np.ndarray, name: str) -> np.ndarray:
        return values if self._change is None or not self._split.declares(name) else self._change(values)

    def _node(self, index: int, node: onnx.NodeProto) -> None:
        self.origin = named(node, index)
        self.told = self._told_around and self._split.tells(node)
        self._imported(node)  # it may have read what is not told
        known = [name for name in node.output if name in self.constants or name in self._rowwise]
        self._split.computed(known, told=self.told)

    def _imported(self, node: onnx.NodeProto) -> None:
        if not self.numbered.keys().isdisjoint(node.input):
            node = _reading(node, self.numbered)
        for name in node.input:
            if name and not self._is_written(name) and name not in self._rowwise:
                raise self.origin.refuse(
                    f"it reads {name!r}, which nothing has written",
                    remedy=(
                        "give the graph a node or an input of that name, or export the model anew: nodes "
                        "may not read one another in a circle"
                    ),
                )
        reading = model_node(node)
        if node.domain in ("", "ai.onnx") and note(self, self._rowwise, reading):
            return
        for name in sorted(self._rowwise.keys() & {*node.input} - self.shapes.keys()):
            write(self, self._rowwise, name)
        if onnx_fold.fold(self, node):
            if node.op_type == "Constant":
                self.constants.update({name: self._changed(self.constants[name], name) for name in node.output})
            return
        if not is_supported(node):
            raise refusal([self.origin])
        handler = HANDLERS[node.domain or "ai.onnx", node.op_type]
        self._require_text(reading.settings)
        if node.op_type not in READERS and (listed := [name for name in node.input if name in self.sequences]):
            raise self.origin.refuse(
                f"it reads {listed[0]!r}, a sequence of tensors",
                remedy="read one of them (SequenceAt), or all of them joined (ConcatFromSequence)",
            )
        if handler not in READ_LABELS:
            for name in node.input:
                if name in self.decoded:
                    told, self.told = self.told, False  # labels are of the node that gave them
                    as_number(self, name)
                    self.told = told
        (joined.lift if self.joined.keys() & set(node.input) else handler)(self, reading, reading.settings)
        if node.op_type in _WRAPPING:
            for name in node.output:
                self._require_fit(name)
        for name in node.output:
            if name and not self._is_written(name) and name in self._needed:
                raise self.origin.refuse(
                    f"its output {name!r} is not supported",
                    remedy=(
                        "end the model before its readers (onnx.utils.extract_model), or export it without "
                        f"that output; {node.output[0]!r} is possible"
                    ),
                )

    def _is_written(self, name: str) -> bool:
        return name in self.shapes or name in self.constants or name in self.sequences

    def _require_fit(self, name: str) -> None:
        """A value wraps around where it leaves its integer type: bounds have to show that it does not."""
        kind = self.inferred(name)
        ends = INTEGERS.get(kind)
        place = next((i for i in reversed(range(len(self.nodes))) if self.nodes[i].writes == name), None)
        if ends is None or place is None or name in self.decoded or isinstance(self.facts.get(name), Truncated):
            return
        inner = self.fresh()
        self.shapes[inner] = self.shapes[name]
        self.nodes[place] = replace(self.nodes[place], writes=inner)
        if name in self.integral:
            self.integral.add(inner)
        self.emit("fit", (inner,), name, self.shapes[name], Fit(ends=ends, outside=wraps(kind)))

    def inline(self, graph: onnx.GraphProto, names: Sequence[str]) -> None:
        """Walk the nodes of a subgraph as if they were the model's own; its outputs get these names."""
        inner = [tensor.name for tensor in graph.initializer] + [name for node in graph.node for name in node.output]
        again = [name for name in inner if name and (name in self.shapes or name in self.constants)]
        if again:
            raise self.origin.refuse(f"{again[0]!r} is written twice", remedy="give every value a name of its own")
        self._store(graph)
        self._inlined += enumerate(graph.node)
        self._walk_inside(graph)
        for name, out in zip(names, graph.output, strict=True):
            if out.name in self.decoded:
                self.redecode(name, out.name)
            elif self._is_written(out.name):
                self.alias(name, out.name)

    def _walk_inside(self, graph: onnx.GraphProto) -> None:
        """Walk the nodes of a subgraph: nothing in it is told unless the node that has it is."""
        own, around = self.told, self._told_around
        self._told_around = own
        for index, node in enumerate(graph.node):
            self._node(index, node)
        self.told, self._told_around = own, around

    def repeat(self, graph: onnx.GraphProto, bound: Mapping[str, str]) -> tuple[str, ...]:
        """Walk the nodes of a copy of a subgraph."""
        step = step_of(graph, bound, f"@{self.fresh()}")
        types = types_of(step)
        self._inferred.update(types)
        for reader, name in reads_of(step):
            self.readers.setdefault(name, []).append(reader)
        outputs = tuple(value.name for value in step.output)
        self._needed = self._needed.union(self.readers, outputs)
        self._store(step, graph)
        self._inlined += enumerate(step.node)
        origin = self.origin
        self._walk_inside(step)
        self.origin = origin
        for name in outputs:
            if not self._is_written(name):
                raise self.origin.refuse(
                    f"its body gives out {name!r}, which nothing has written", remedy="export the model anew"
                )
        return outputs

    def _require_text(self, settings: dict[str, Any]) -> None:
        """Handlers decode strings without a thought."""
        for name, value in settings.items():
            for entry in value if isinstance(value, list) else [value]:
                try:
                    _ = entry.decode() if isinstance(entry, bytes) else ""
                except UnicodeDecodeError:
                    raise self.origin.refuse(
                        "a string that is no text", attribute=name, remedy="write its bytes as UTF-8"
                    ) from None


def _reading(node: onnx.NodeProto, renamed: Mapping[str, str]) -> onnx.NodeProto:
    """Return a node that reads values by other names."""
    found = onnx.NodeProto()
    found.CopyFrom(node)
    found.input[:] = [renamed.get(name, name) for name in node.input]
    return found


def import_model(
    model: onnx.ModelProto,
    ranges: dict[str, Range] | None = None,
    shapes: Shapes | None = None,
    assumed: Mapping[str, Range] | None = None,
    sums_rows: bool = False,
    needing: Collection[str] = (),
    at_rest: Mapping[str, StoredInput] = MappingProxyType({}),
    numbers: Collection[str] | None = None,
    secret: Sequence[str] | None = None,
    change: Change | None = None,
    skips: bool = True,
    floor: Floor | None = None,
    kept: Collection[str] = (),
) -> Graph:
    """Return the graph of a checked model.

    Args:
        ranges: declared input ranges; they win over those in the model's metadata.
        shapes: sizes of dimensions that the model leaves open; None leaves the first one open.
        assumed: ranges that inputs get which have no declared one.
        sums_rows: sums over the batch are possible: somebody will add noise to them.
        needing: inputs whose missing numbers need marks, whatever reads them.
        at_rest: inputs that lie at the parties.
        numbers: inputs that enter as numbers, even if all that they do is to index tables; None: all do.
        secret: patterns of constants that stay secret where others are told; None: nothing is told.
        change: makes other numbers of those that are themselves secret.
        skips: what constants hide from a softmax is left out of it.
        floor: stands for what masks hide from a maximum; see `operators.maxima`; None: what the model has.
        kept: values in which what the model has stays in any case.
    """
    known = declared_ranges(model)
    known.update(ranges or {})
    settings: dict[str, Any] = {"sums_rows": sums_rows, "at_rest": at_rest, "numbers": numbers, "secret": secret}
    settings.update(change=change, skips=skips, floor=floor, kept=kept)
    importer = Importer(model, shapes or {}, assumed or {}, **settings)
    graph = importer.run(model, known)
    found = ways(importer, graph, needing)
    importer.let_go()
    if not found:
        return graph
    importer = Importer(model, shapes or {}, assumed or {}, found, **settings)
    graph = importer.run(model, known)
    importer.let_go()
    return graph
