"""ONNX in: the file is checked, constants are folded, and every node becomes graph nodes or a refusal.

Nothing outside the model's own folder is read.  A refusal names node, operator and attribute.
"""

from __future__ import annotations

from math import prod
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import onnx
import onnx.inliner
from google.protobuf.message import DecodeError
from onnx import TensorProto, numpy_helper

from mpc.compiler import onnx_fold
from mpc.compiler.graph import Graph, GraphInput, GraphOutput, Node, Origin, Range, Shape
from mpc.compiler.onnx_ml import HANDLERS
from mpc.errors import ModelError
from mpc.wires import BATCH

MAX_MODEL_BYTES = 1 << 31
MAX_ELEMENTS = 1 << 26
OLDEST_OPSET = 7
_TYPES: dict[int, str] = {
    TensorProto.FLOAT: "float32",
    TensorProto.DOUBLE: "float64",
    TensorProto.FLOAT16: "float16",
    TensorProto.INT64: "int64",
    TensorProto.INT32: "int32",
    TensorProto.BOOL: "bool",
    TensorProto.STRING: "string",
}
_INPUT_TYPES = ("float32", "float64", "float16", "int64", "int32")
_LISTED = ", ".join(_INPUT_TYPES)


def load_model(path: Path) -> onnx.ModelProto:
    """Read and check a model file.

    Raises:
        ModelError: missing, not ONNX, external data outside its folder, or refused by onnx's checker.
    """
    if not path.is_file():
        raise ModelError(f"no model file at {path}", remedy="check the path")
    if path.stat().st_size > MAX_MODEL_BYTES:
        raise ModelError(f"{path} is larger than 2 GiB", remedy="store its weights as external data")
    try:
        model = onnx.load_model_from_string(path.read_bytes())
        if not model.graph.node and not model.graph.output:
            raise ModelError(f"{path} is not an ONNX model", remedy="export the model to ONNX")
        _load_external(model, path.parent)
        onnx.checker.check_model(model)
        if model.functions:
            model = onnx.inliner.inline_local_functions(model)
    except ModelError:
        raise
    except DecodeError:
        raise ModelError(f"{path} is not an ONNX model", remedy=_what_else(path)) from None
    except (onnx.checker.ValidationError, ValueError, TypeError, OSError) as error:
        reason = str(error).strip().split("\n", 1)[0][:300]
        raise ModelError(f"{path} is not a valid ONNX model: {reason}") from None
    return model


def _what_else(path: Path) -> str:
    with path.open("rb") as file:
        if file.read(1) == b"{":
            return "a plan has no weights: name the ONNX model that it was compiled from"
    return "export the model to ONNX"


def _load_external(model: onnx.ModelProto, folder: Path) -> None:
    """Weights beside the model: regular files in its own folder, nothing else."""
    for tensor in model.graph.initializer:
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = PurePosixPath(entries.get("location", ""))
        target = folder / location
        outside = location.is_absolute() or ".." in location.parts or not location.parts
        if outside or target.is_symlink() or not target.resolve().is_relative_to(folder.resolve()):
            raise ModelError(f"weight {tensor.name!r} points outside the model's folder")
        if not target.is_file():
            raise ModelError(f"weight {tensor.name!r} is in {str(location)!r}, which is not beside the model")
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", 0))
        with target.open("rb") as data:
            data.seek(offset)
            tensor.raw_data = data.read(length) if length else data.read()
        tensor.data_location = TensorProto.DEFAULT
        del tensor.external_data[:]


class Importer:
    """The state of one import: what every value of the model is so far.

    A value is a constant (numpy array; shape vectors may hold the word "batch"), or a secret
    with a shape.  Handlers in `onnx_nodes` read and define values through this class.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.opsets = {entry.domain or "ai.onnx": entry.version for entry in model.opset_import}
        self.constants: dict[str, np.ndarray] = {}
        self.shapes: dict[str, Shape] = {}
        self.decoded: dict[str, GraphOutput] = {}
        self.facts: dict[str, str] = {}
        self.nodes: list[Node] = []
        self.origin = Origin("", "")
        self._fresh = 0

    # -- what handlers use

    def is_constant(self, name: str) -> bool:
        return name in self.constants

    def constant(self, name: str, what: str) -> np.ndarray:
        """A constant operand; a refusal naming `what` if it is secret data."""
        if name not in self.constants:
            raise self.origin.refuse(f"{what} depends on the input; only a constant is possible here")
        return self.constants[name]

    def secret(self, name: str) -> Shape:
        """The shape of a secret value; a refusal if something was already read off it."""
        if name in self.decoded:
            raise self.origin.refuse("it reads class labels or dictionaries, which can only be outputs")
        return self.shapes[name]

    def emit(self, op: str, reads: tuple[str, ...], writes: str | None, shape: Shape, **attributes: Any) -> str:
        """Add a graph node; returns the name it writes."""
        if prod(d for d in shape if isinstance(d, int)) > MAX_ELEMENTS:
            raise self.origin.refuse(f"its result of shape {shape} is too large")
        if writes is None:
            self._fresh += 1
            writes = f"{self.origin.node}/{self._fresh}"
        self.shapes[writes] = shape
        self.nodes.append(Node(op, reads, writes, shape, self.origin, attributes))
        return writes

    def alias(self, name: str, of: str) -> None:
        """The same value under another name."""
        if of in self.constants:
            self.constants[name] = self.constants[of]
            return
        self.emit("reshape", (of,), name, self.secret(of))
        if of in self.facts:
            self.facts[name] = self.facts[of]

    def decode(self, name: str, value: str, **reading: Any) -> None:
        """`name` is how recipients read the secret `value`: labels, or dictionaries."""
        shape = reading.pop("shape", self.shapes[value])
        self.decoded[name] = GraphOutput(name, value, shape, **reading)
        self.shapes[name] = shape

    # -- the walk

    def run(self, model: onnx.ModelProto, ranges: dict[str, Range]) -> Graph:
        if self.opsets.get("ai.onnx", OLDEST_OPSET) < OLDEST_OPSET:
            raise ModelError(
                f"the model has opset {self.opsets['ai.onnx']}; {OLDEST_OPSET} or newer is needed",
                remedy="convert it with onnx.version_converter",
            )
        for tensor in model.graph.initializer:
            self.constants[tensor.name] = _array(tensor)
        inputs = [self._input(value, ranges) for value in model.graph.input if value.name not in self.constants]
        unknown = sorted(set(ranges) - {given.name for given in inputs})
        if unknown:
            names = ", ".join(repr(given.name) for given in inputs)
            raise ModelError(f"a range is declared for {unknown[0]!r}, but the inputs are {names}")
        for index, node in enumerate(model.graph.node):
            self._node(index, node)
        outputs = [self._output(value) for value in model.graph.output]
        return Graph(inputs, self.nodes, outputs)

    def _input(self, value: onnx.ValueInfoProto, ranges: dict[str, Range]) -> GraphInput:
        kind = value.type.WhichOneof("value")
        if kind != "tensor_type":
            raise ModelError(f"input {value.name!r} is a {kind}, not a tensor")
        tensor = value.type.tensor_type
        dtype = _TYPES.get(tensor.elem_type, "")
        if dtype not in _INPUT_TYPES:
            raise ModelError(
                f"input {value.name!r} has elements of type {dtype or 'unknown'}; possible are {_LISTED}",
                remedy="convert the input to numbers before the model",
            )
        shape: list[Any] = []
        for axis, dimension in enumerate(tensor.shape.dim):
            if dimension.HasField("dim_value") and dimension.dim_value > 0:
                shape.append(int(dimension.dim_value))
            elif axis == 0:
                shape.append(BATCH)
            else:
                raise ModelError(
                    f"input {value.name!r}: dimension {axis} ({dimension.dim_param or 'unnamed'}) is not fixed",
                    remedy="export the model with only the first dimension dynamic",
                )
        if prod(d for d in shape if d != BATCH) > MAX_ELEMENTS:
            raise ModelError(f"input {value.name!r} of shape {tuple(shape)} is too large")
        self.shapes[value.name] = tuple(shape)
        declared = ranges.get(value.name)
        checked = None if declared is None else check_range(value.name, tuple(shape), declared)
        return GraphInput(value.name, tuple(shape), dtype, checked)

    def _node(self, index: int, node: onnx.NodeProto) -> None:
        self.origin = Origin(node.name or f"{node.op_type}_{index}", node.op_type)
        for name in node.input:
            if name and name not in self.constants and name not in self.shapes:
                raise self.origin.refuse(f"it reads {name!r}, which nothing has written")
        if onnx_fold.fold(self, node):
            return
        handler = HANDLERS.get((node.domain or "ai.onnx", node.op_type))
        if handler is None:
            raise self.origin.refuse(
                "this operator is not supported",
                remedy="replace it, or compute it outside the model; 'mpc inspect --operators' lists what is",
            )
        handler(self, node, attributes(node))

    def _output(self, value: onnx.ValueInfoProto) -> GraphOutput:
        name = value.name
        if name in self.constants:
            raise ModelError(f"output {name!r} does not depend on any input", remedy="remove it from the model")
        if name not in self.shapes:
            raise ModelError(f"output {name!r} is written by no node")
        kind = value.type.WhichOneof("value")
        dtype = _TYPES.get(value.type.tensor_type.elem_type, "float32") if kind == "tensor_type" else "float32"
        if name in self.decoded:
            read = self.decoded[name]
            return GraphOutput(name, read.value, read.shape, read.dtype or dtype, read.labels, read.keys)
        return GraphOutput(name, name, self.shapes[name], dtype)


def _array(tensor: onnx.TensorProto) -> np.ndarray:
    try:
        return np.array(numpy_helper.to_array(tensor))
    except (ValueError, TypeError, KeyError, NotImplementedError) as error:
        raise ModelError(f"weight {tensor.name!r} cannot be read: {str(error)[:200]}") from None


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """A node's attributes as Python values."""
    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}


def declared_ranges(model: onnx.ModelProto) -> dict[str, Range]:
    """Input ranges that the model itself declares: metadata `mpc.range.NAME` = `LOW:HIGH`."""
    found = {}
    for entry in model.metadata_props:
        if entry.key.startswith("mpc.range."):
            found[entry.key.removeprefix("mpc.range.")] = parse_range(entry.value)
    return found


def parse_range(text: str) -> Range:
    """`LOW:HIGH`, or `LOW:HIGH,LOW:HIGH,...`, one for each column of the last axis.

    Raises:
        ModelError: not pairs of finite numbers, the first of each smaller.
    """
    try:
        pairs = [tuple(map(float, part.split(":"))) for part in text.split(",")]
    except ValueError:
        pairs = []
    if not pairs or any(len(pair) != 2 for pair in pairs):
        raise ModelError(f"{text[:80]!r} is not a range", remedy="write it as LOW:HIGH, for example -4:4")
    low, high = zip(*pairs, strict=True)
    return (low[0], high[0]) if len(pairs) == 1 else (low, high)


def check_range(name: str, shape: Shape, declared: Range) -> Range:
    """A range that fits an input's columns.

    Raises:
        ModelError: not finite, empty, or another number of columns than the input has.
    """
    low, high = (np.asarray(end, dtype=np.float64) for end in declared)
    if low.shape != high.shape or low.ndim > 1 or (low.ndim == 1 and low.shape[0] != shape[-1]):
        raise ModelError(f"input {name!r}: its range has {low.size} columns, its shape is {shape}")
    if not (np.isfinite(low).all() and np.isfinite(high).all() and (low < high).all()):
        raise ModelError(f"input {name!r}: its range is empty or not finite", remedy="declare LOW:HIGH, LOW < HIGH")
    if low.ndim == 0:
        return float(low), float(high)
    return tuple(low.tolist()), tuple(high.tolist())


def input_names(path: Path) -> list[str]:
    """Names of a model's inputs, in its order."""
    model = load_model(path)
    constants = {tensor.name for tensor in model.graph.initializer}
    return [value.name for value in model.graph.input if value.name not in constants]


def import_model(model: onnx.ModelProto, ranges: dict[str, Range] | None = None) -> Graph:
    """The graph of a checked model.

    Args:
        ranges: declared input ranges; they win over those in the model's metadata.
    """
    known = declared_ranges(model)
    known.update(ranges or {})
    return Importer(model).run(model, known)
