"""ONNX in: constants are folded, and every node becomes graph nodes or a refusal.

A refusal names node, operator and attribute.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from math import prod
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
import onnx.shape_inference
from onnx import TensorProto

from mpc.compiler.graph.emitter import FIX_BATCH, INTEGERS, MAX_ELEMENTS
from mpc.compiler.graph.graph import Graph, GraphInput, GraphOutput, Range
from mpc.compiler.onnx import fold as onnx_fold
from mpc.compiler.onnx.declared import check_range, check_sizes, declared_ranges, example_shape, within_table
from mpc.compiler.onnx.load import OLDEST_OPSET, Source, load_model
from mpc.compiler.onnx.protos import TYPES, array_of, model_node, names_of, reads_of, type_name
from mpc.compiler.onnx.unsupported import is_supported, named, refusal, unsupported
from mpc.compiler.operators import HANDLERS, joined
from mpc.compiler.operators.context import Body, Context, ModelNode, wraps
from mpc.compiler.operators.facts import Natural, Standing, Truncated, Way
from mpc.compiler.operators.labels import as_number, require_printable
from mpc.compiler.operators.missing import marked, ways
from mpc.compiler.operators.registry import READ_LABELS
from mpc.errors import ModelError
from mpc.wires import BATCH, Dimension

Shapes = Mapping[str, Sequence[int | str | None]]
_INPUT_TYPES = tuple(name for name in TYPES.values() if name != "string")
_WHOLE: dict[str, Range] = {"bool": (0.0, 1.0), "uint8": (0.0, 255.0), "int8": (-128.0, 127.0)}
"""The range of a type that has a small one; others are declared, or take the default."""
_LISTED = ", ".join(_INPUT_TYPES)
_WRAPPING = frozenset(
    {"Add", "Cast", "CastLike", "CumSum", "Einsum", "Gemm", "MatMul", "Mul", "Neg", "Pow", "ReduceL1", "ReduceProd",
     "ReduceSum", "ReduceSumSquare", "Sub", "Sum"}
)  # fmt: skip
"""What may leave an integer type, upon which onnxruntime wraps around."""


class Importer(Context):
    """One import: walks over a model's nodes and calls their handlers."""

    def __init__(
        self,
        model: onnx.ModelProto,
        shapes: Shapes,
        assumed: Mapping[str, Range],
        found: Mapping[str, Way] = MappingProxyType({}),
    ) -> None:
        opsets = {entry.domain or "ai.onnx": entry.version for entry in model.opset_import}
        readers: dict[str, list[ModelNode]] = {}
        for reader, name in reads_of(model.graph):
            readers.setdefault(name, []).append(reader)
        revealed = frozenset(value.name for value in model.graph.output)
        super().__init__(opsets.get("ai.onnx", OLDEST_OPSET), opsets, readers, revealed)
        self._assumed, self._ways = assumed, found
        self._given = shapes
        self._inlined: list[tuple[int, onnx.NodeProto]] = []
        self.reserve(names_of(model.graph))
        self._model = model
        self._needed = revealed.union(readers)

    # -- what handlers ask of the model's format

    def inferred(self, name: str) -> str:
        return self._inferred.get(name, "")

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
        return self.constants.get(name, self._spelt_out.get(name))

    @cached_property
    def _spelt_out(self) -> dict[str, np.ndarray]:
        """Constants that are nodes, wherever they stand."""
        nodes = [node for node in self._model.graph.node if node.op_type == "Constant"]
        return {node.output[0]: array_of(a.t) for node in nodes for a in node.attribute if a.name == "value"}

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
            raise refusal(found, None if error.node in {origin.node for origin in found} else error) from None

    def _run(self, model: onnx.ModelProto, ranges: dict[str, Range]) -> Graph:
        for tensor in model.graph.initializer:
            self.constants[tensor.name] = array_of(tensor)
        inputs = [self._input(value, ranges) for value in model.graph.input if value.name not in self.constants]
        unknown = sorted(set(ranges) - {given.name for given in inputs})
        if unknown:
            names = ", ".join(repr(given.name) for given in inputs)
            raise ModelError(
                f"a range is declared for {unknown[0]!r}, but the inputs are {names}",
                remedy="name one of these inputs: --range NAME=LOW:HIGH",
            )
        for name in sorted(self._given.keys() - {given.name for given in inputs}):
            names = ", ".join(repr(given.name) for given in inputs)
            raise ModelError(
                f"a shape is given for {name!r}, but the inputs are {names}",
                remedy="name one of these inputs: --shape NAME=SIZES",
            )
        for index, node in enumerate(model.graph.node):
            self._node(index, node)
        outputs = [self._output(value) for value in model.graph.output]
        return marked(Graph([*inputs, *self.marking], self.nodes, outputs), self.aware)

    def _input(self, value: onnx.ValueInfoProto, ranges: dict[str, Range]) -> GraphInput:
        kind = value.type.WhichOneof("value")
        if kind != "tensor_type":
            raise ModelError(
                f"input {value.name!r} is a {kind}, not a tensor",
                remedy=(
                    "export the model with a tensor for each input: a sequence or map becomes one "
                    "tensor, or one input an entry"
                ),
            )
        tensor = value.type.tensor_type
        dtype = TYPES.get(tensor.elem_type, "")
        if dtype not in _INPUT_TYPES:
            kind = dtype or type_name(tensor.elem_type)
            raise ModelError(
                f"input {value.name!r} has elements of type {kind}; possible are {_LISTED}",
                remedy="convert the input to numbers before the model"
                + (
                    ": number the categories (scikit-learn's OrdinalEncoder), and train on the numbers"
                    * (kind == "string")
                ),
            )
        shape = self._input_shape(value.name, tensor)
        if prod(d for d in shape if d != BATCH) > MAX_ELEMENTS:
            raise ModelError(
                f"input {value.name!r} of shape {tuple(shape)} is too large",
                remedy=(
                    f"enter less at once: {MAX_ELEMENTS:,} elements a row are possible (--shape "
                    f"{value.name}=SIZES, if the model leaves a size open)"
                ),
            )
        self.shapes[value.name] = tuple(shape)
        if not dtype.startswith("float"):
            self.integral.add(value.name)
        declared = ranges.get(value.name, _WHOLE.get(dtype))
        checked = None if declared is None else check_range(value.name, tuple(shape), declared)
        if value.name in self.integral and (rows := self._indexed(value.name)):
            checked = within_table(checked, rows)
        if checked is not None and value.name in self.integral and np.min(checked[0]) >= 0:
            self.facts[value.name] = Natural()
        given, within = GraphInput(value.name, tuple(shape), dtype, checked), checked or self._assumed.get(value.name)
        if not (dtype.startswith("float") and shape and shape[-1] != BATCH and within):
            return given
        way = self._ways.get(value.name)
        if way is None:
            self.enterable[value.name] = within
        elif way.side:
            self.standing[value.name] = Standing(within, dtype, way)
            return replace(given, columns=way.columns, beyond=way.side)
        return given

    def _indexed(self, name: str) -> int:
        """Rows of the smallest constant table that a value is an index of, if it is nothing else; else 0."""
        found: list[int] = []
        for reader in self.readers.get(name, []):
            if reader.op_type == "Gather" and reader.input.count(name) == 1 and reader.input[1] == name:
                table, axis = self.known(reader.input[0]), reader.settings.get("axis", 0)
                found.append(table.shape[axis] if table is not None and table.ndim > axis >= -table.ndim else 0)
            elif reader.op_type in ("Identity", "Squeeze", "Unsqueeze", "Reshape", "Flatten", "Transpose"):
                found.append(self._indexed(reader.output[0]))
            else:
                found.append(0)
        return 0 if name in self.revealed else min(found, default=0)

    def _input_shape(self, name: str, tensor: Any) -> list[Dimension]:
        if tensor.HasField("shape"):
            if name in self._given:
                check_sizes(name, [d.dim_value for d in tensor.shape.dim], self._given[name])
            return [self._size(name, axis, tensor.shape.dim) for axis in range(len(tensor.shape.dim))]
        if name not in self._given:
            raise ModelError(
                f"input {name!r} has no shape in the model",
                remedy=f"give it: --shape {name}=batch,3, in Python shapes={{{name!r}: (None, 3)}}",
            )
        return [BATCH if size in (None, BATCH) else int(size) for size in self._given[name]]

    def _size(self, name: str, axis: int, dimensions: Sequence[Any]) -> Dimension:
        """One dimension of an input: the model's, or for one that the model leaves open the caller's, or the batch."""
        dimension = dimensions[axis]
        fixed = dimension.HasField("dim_value") and dimension.dim_value
        if fixed and fixed > 0:
            return int(fixed)
        if fixed == 0 and dimension.HasField("dim_value"):
            raise ModelError(
                f"input {name!r}: dimension {axis} is 0",
                remedy=("export it with a size of 1 or more; or leave it open there, and give --shape NAME=SIZES"),
            )
        size = self._given[name][axis] if name in self._given else None
        if size is not None and size != BATCH:
            return int(size)
        if axis == 0:
            return BATCH
        raise ModelError(
            f"input {name!r}: dimension {axis} ({dimension.dim_param or 'unnamed'}) is not fixed",
            remedy=f"give its shape, for example {self._example()}",
        )

    def _example(self) -> str:
        """Shapes of all inputs of which something is open but the batch, as a caller could give them."""
        found: dict[str, tuple[str, str]] = {}
        for value in self._model.graph.input:
            sizes, given = [d.dim_value for d in value.type.tensor_type.shape.dim], self._given.get(value.name)
            fits = value.name not in self.constants and (given is None or len(given) == len(sizes))
            if fits and (example := example_shape(sizes, given)):
                found[value.name] = example
        options = " ".join(f"--shape {name}={text}" for name, (text, _) in found.items())
        return (
            f"{options}, in Python shapes={{{', '.join(f'{name!r}: {python}' for name, (_, python) in found.items())}}}"
        )

    def _node(self, index: int, node: onnx.NodeProto) -> None:
        self.origin = named(node, index)
        for name in node.input:
            if name and name not in self.constants and name not in self.shapes:
                raise self.origin.refuse(
                    f"it reads {name!r}, which nothing has written",
                    remedy=(
                        "give the graph a node or an input of that name, or export the model anew: nodes "
                        "may not read one another in a circle"
                    ),
                )
        if onnx_fold.fold(self, node):
            return
        if not is_supported(node):
            raise refusal([self.origin])
        handler = HANDLERS[node.domain or "ai.onnx", node.op_type]
        reading = model_node(node)
        self._require_text(reading.settings)
        if handler not in READ_LABELS:
            for name in node.input:
                if name in self.decoded:
                    as_number(self, name)
        (joined.lift if self.joined.keys() & set(node.input) else handler)(self, reading, reading.settings)
        if node.op_type in _WRAPPING:
            for name in node.output:
                self._require_fit(name)
        for name in node.output:
            if name and name not in self.shapes and name not in self.constants and name in self._needed:
                raise self.origin.refuse(
                    f"its output {name!r} is not supported",
                    remedy=(
                        "end the model before its readers (onnx.utils.extract_model), or export it without "
                        f"that output; {node.output[0]!r} is possible"
                    ),
                )

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
        self.emit("fit", (inner,), name, self.shapes[name], ends=ends, outside=wraps(kind))

    def inline(self, graph: onnx.GraphProto, names: Sequence[str]) -> None:
        """The nodes of a subgraph, as if they were the model's own; its outputs get these names."""
        inner = [tensor.name for tensor in graph.initializer] + [name for node in graph.node for name in node.output]
        again = [name for name in inner if name and (name in self.shapes or name in self.constants)]
        if again:
            raise self.origin.refuse(f"{again[0]!r} is written twice", remedy="give every value a name of its own")
        self.constants.update({tensor.name: array_of(tensor) for tensor in graph.initializer})
        self._inlined += enumerate(graph.node)
        for index, node in enumerate(graph.node):
            self._node(index, node)
        for name, out in zip(names, graph.output, strict=True):
            if out.name in self.decoded:
                self.redecode(name, out.name)
            elif out.name in self.shapes or out.name in self.constants:
                self.alias(name, out.name)

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

    def _output(self, value: onnx.ValueInfoProto) -> GraphOutput:
        name = value.name
        if name in self.constants:
            raise ModelError(
                f"output {name!r} does not depend on any input",
                remedy="take it off the outputs of the model's graph: it is known without a computation",
            )
        if name not in self.shapes:
            raise ModelError(
                f"output {name!r} is written by no node",
                remedy="take it off the outputs of the model's graph, or name there what a node writes",
            )
        kind = value.type.WhichOneof("value")
        element = value.type.tensor_type.elem_type if kind == "tensor_type" else TensorProto.UNDEFINED
        dtype = TYPES.get(element, "float32")
        if element not in TYPES and element != TensorProto.UNDEFINED:
            raise ModelError(
                f"output {name!r} has elements of type {type_name(element)}; possible are {_LISTED}",
                remedy=(
                    "put a Cast to float32 or int64 before the output, or read it by numbers and name "
                    "them outside the model"
                ),
            )
        if name in self.decoded:
            read = self.decoded[name]
            require_printable(name, (*(read.labels or ()), *(read.keys or ())))
            return GraphOutput(name, read.value, read.shape, read.dtype or dtype, read.labels, read.keys)
        shape = self.shapes[name]
        if BATCH in shape[1:] or name in self.joined:
            raise ModelError(
                f"output {name!r} has shape {joined.seen(self, name)}; the batch has to be its first axis",
                remedy=f"transpose it, or fix the batch ({FIX_BATCH})",
            )
        return GraphOutput(name, name, shape, dtype)


def input_types(model: Source) -> dict[str, str]:
    """A model's inputs in its order, with their numpy types; without a type that numpy knows, an empty one."""
    loaded = model if isinstance(model, onnx.ModelProto) else load_model(model)
    constants = {tensor.name for tensor in loaded.graph.initializer}
    types = {value.name: TYPES.get(value.type.tensor_type.elem_type, "") for value in loaded.graph.input}
    return {name: "" if kind == "string" else kind for name, kind in types.items() if name not in constants}


def input_names(model: Source) -> list[str]:
    """Names of a model's inputs, in its order."""
    return [*input_types(model)]


def import_model(
    model: onnx.ModelProto,
    ranges: dict[str, Range] | None = None,
    shapes: Shapes | None = None,
    assumed: Mapping[str, Range] | None = None,
) -> Graph:
    """The graph of a checked model.

    Args:
        ranges: declared input ranges; they win over those in the model's metadata.
        shapes: sizes of dimensions that the model leaves open; None leaves the first one open.
        assumed: ranges that inputs get which have no declared one.
    """
    known = declared_ranges(model)
    known.update(ranges or {})
    importer = Importer(model, shapes or {}, assumed or {})
    graph = importer.run(model, known)
    found = ways(importer, graph)
    return Importer(model, shapes or {}, assumed or {}, found).run(model, known) if found else graph
