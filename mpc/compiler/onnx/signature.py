"""A model's inputs and outputs: their shapes, types and ranges, or a refusal that names them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from mpc.compiler.graph.graph import GraphInput, GraphOutput, Origin, Range, Shape, static
from mpc.compiler.graph.stored import StoredInput
from mpc.compiler.graph.writer import FIX_BATCH, MAX_ELEMENTS, MAX_INDICES
from mpc.compiler.onnx.declared import check_range, check_sizes, example_shape, plain, within_table
from mpc.compiler.onnx.indexed import limits, tables_of, width_of
from mpc.compiler.onnx.load import Source, load_model
from mpc.compiler.onnx.protos import TYPES, type_name
from mpc.compiler.operators import joined
from mpc.compiler.operators.context import Context
from mpc.compiler.operators.facts import Natural, Standing, Way
from mpc.compiler.operators.labels import require_printable
from mpc.compiler.operators.places import enter_places
from mpc.errors import ModelError
from mpc.wires import BATCH, Dimension

Shapes = Mapping[str, Sequence[int | str | None]]
_INPUT_TYPES = tuple(name for name in TYPES.values() if name != "string")
_WHOLE: dict[str, Range] = {"bool": (0.0, 1.0), "uint8": (0.0, 255.0), "int8": (-128.0, 127.0)}
"""The range of a type that has a small one; others are declared, or take the default."""
_LISTED = ", ".join(_INPUT_TYPES)


class Signature:
    """Reads a model's inputs before the walk, and its outputs after it.

    Args:
        state: the import, told of every input's shape, range and facts.
        shapes, assumed: as `import_model` has them.
        found: how inputs enter whose missing numbers matter.
        at_rest: inputs that lie at the parties.
        numbers: inputs that enter as numbers, though they may index tables; None: all do.
    """

    def __init__(
        self,
        state: Context,
        model: onnx.ModelProto,
        shapes: Shapes,
        assumed: Mapping[str, Range],
        found: Mapping[str, Way],
        at_rest: Mapping[str, StoredInput],
        numbers: Collection[str] | None = None,
    ) -> None:
        self._state, self._model, self._given = state, model, shapes
        self._assumed, self._ways, self._at_rest = assumed, found, at_rest
        self._numbers, self._by_place = numbers or (), numbers is not None

    def inputs(self, ranges: dict[str, Range]) -> list[GraphInput]:
        """Read all inputs but constants.

        Raises:
            ModelError: one is refused, or a range or a shape is given for what is no input.
        """
        given, fixed = self._model.graph.input, self._fixed(ranges)
        self._state.constants.update(fixed)
        inputs = [self.input(value, ranges) for value in given if value.name not in self._state.constants]
        unknown = sorted(set(ranges) - {given.name for given in inputs} - fixed.keys())
        if unknown:
            names = ", ".join(repr(given.name) for given in inputs)
            raise ModelError(
                f"a range is declared for {unknown[0]!r}, but the inputs are {names}",
                remedy="name one of these inputs: --range NAME=LOW:HIGH",
            )
        for name in sorted(self._given.keys() - {given.name for given in inputs} - fixed.keys()):
            names = ", ".join(repr(given.name) for given in inputs)
            raise ModelError(
                f"a shape is given for {name!r}, but the inputs are {names}",
                remedy="name one of these inputs: --shape NAME=SIZES",
            )
        return inputs

    def _fixed(self, ranges: dict[str, Range]) -> dict[str, np.ndarray]:
        """Return whole numbers whose declared range is one number, as constants: nobody enters them.

        A model asks them which of its parts to take, by a sample rate say; the range is public.
        """
        found = {}
        for value in self._model.graph.input:
            name, tensor = value.name, value.type.tensor_type
            dtype, declared = TYPES.get(tensor.elem_type, ""), ranges.get(name)
            if name in self._state.constants or declared is None or not (dtype == "bool" or "int" in dtype):
                continue
            shape = tuple(self._input_shape(name, tensor))
            low, high = check_range(name, shape, dtype, declared)
            if BATCH not in shape and np.array_equal(low, high) and not np.any(np.mod(low, 1)):
                found[name] = np.full(static(shape), low, dtype)
                self._state.origin = Origin(name, "input")
                self._state.note(
                    f"its range is one number, {np.unique(low)[0]:g}, which is a constant: nobody enters it"
                )
        return found

    def input(self, value: onnx.ValueInfoProto, ranges: dict[str, Range]) -> GraphInput:
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
        self._state.shapes[value.name] = tuple(shape)
        if not dtype.startswith("float"):
            self._state.integral.add(value.name)
        declared = ranges.get(value.name, _WHOLE.get(dtype))
        checked = None if declared is None else check_range(value.name, tuple(shape), dtype, declared)
        tables, only = tables_of(self._state, value.name) if value.name in self._state.integral else ([], False)
        if tables and only:
            rows = limits(tables, width_of(tuple(shape)))
            checked = within_table(checked, rows, alike=len({t.rows for t in tables}) == 1)
        if checked is not None and value.name in self._state.integral and np.min(checked[0]) >= 0:
            self._state.facts[value.name] = Natural()
        if value.name in self._state.integral and self._is_bit(value.name, checked):
            self._state.bits.add(value.name)
        if (size := self._entered_as_places(value.name, tuple(shape), checked)) > 0:
            return self._as_places(value.name, dtype, size, checked)
        if checked is None and value.name in self._state.integral - self._state.bits:
            self._state.undeclared.add(value.name)
        given, within = GraphInput(value.name, tuple(shape), dtype, checked), checked or self._assumed.get(value.name)
        if not (dtype.startswith("float") and shape and shape[-1] != BATCH and within):
            return given
        if (lying := self._at_rest.get(value.name)) is not None:
            if lying.missing and lying.fits(shape):
                self._state.enterable[value.name], self._state.at_rest[value.name] = lying.range, lying.missing
            return given
        way = self._ways.get(value.name)
        if way is None:
            self._state.enterable[value.name] = within
        elif way.side:
            self._state.standing[value.name] = Standing(within, dtype, way)
            return replace(given, columns=way.columns, beyond=way.side)
        return given

    def _is_bit(self, name: str, declared: Range | None) -> bool:
        """Are whole numbers of an input in 0:1, as far as it is declared, or assumed?"""
        lying = self._at_rest.get(name)
        within = lying.range if lying is not None else declared or self._assumed.get(name)
        return within is not None and np.min(within[0]) >= 0 and np.max(within[1]) <= 1

    def _entered_as_places(self, name: str, shape: Shape, declared: Range | None) -> int:
        """Return how many zeros and ones an input enters as that indexes constant tables; 0 if it enters as it is.

        The shortest of a column's tables has as many rows, of that column which has most; or the declared range ends
        before.  Numbers below zero count from its end, if they do nothing else and there is no other table.
        """
        if not self._by_place or name in self._numbers or name in self._at_rest or name not in self._state.integral:
            return 0
        tables, only = tables_of(self._state, name)
        if not tables or name in self._state.revealed:
            return 0
        rows = limits(tables, width_of(shape))
        low, high = (0.0, rows - 1.0) if declared is None else declared
        if np.min(low) < 0 and not (only and len({table.rows for table in tables}) == 1):
            return 0
        size = int(np.max(rows if np.min(low) < 0 else np.minimum(rows, np.add(high, 1.0))))
        return size if 0 < size <= MAX_INDICES and size * prod(d for d in shape if d != BATCH) <= MAX_ELEMENTS else 0

    def _as_places(self, name: str, dtype: str, size: int, declared: Range | None) -> GraphInput:
        """Note what enters, and the number that it tells, which the model's nodes read."""
        state, shape = self._state, self._state.shapes[name]
        tables, _ = tables_of(state, name)
        last = limits(tables, width_of(shape)) - 1.0
        low, high = (0.0, last) if declared is None else declared
        state.shapes[name] = (*shape, size)
        state.origin = Origin(name, "input")
        state.numbered[name] = enter_places(state, name, size)
        state.readers[state.numbered[name]] = state.readers.get(name, [])
        return GraphInput(name, (*shape, size), dtype, plain(low, np.minimum(last, high)), places=size)

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
            fits = value.name not in self._state.constants and (given is None or len(given) == len(sizes))
            if fits and (example := example_shape(sizes, given)):
                found[value.name] = example
        options = " ".join(f"--shape {name}={text}" for name, (text, _) in found.items())
        return (
            f"{options}, in Python shapes={{{', '.join(f'{name!r}: {python}' for name, (_, python) in found.items())}}}"
        )

    def output(self, value: onnx.ValueInfoProto) -> GraphOutput:
        name = value.name
        if name in self._state.constants:
            raise ModelError(
                f"output {name!r} does not depend on any input",
                remedy="take it off the outputs of the model's graph: it is known without a computation",
            )
        if name in self._state.sequences:
            raise ModelError(
                f"output {name!r} is a sequence of tensors",
                remedy="join it in the model (ConcatFromSequence), or make each of its tensors an output",
            )
        if name not in self._state.shapes:
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
        if name in self._state.decoded:
            read = self._state.decoded[name]
            require_printable(name, (*(read.labels or ()), *(read.keys or ())))
            return GraphOutput(name, read.value, read.shape, read.dtype or dtype, read.labels, read.keys)
        shape = self._state.shapes[name]
        if BATCH in shape[1:] or name in self._state.joined:
            raise ModelError(
                f"output {name!r} has shape {joined.seen(self._state, name)}; the batch has to be its first axis",
                remedy=f"transpose it, or fix the batch ({FIX_BATCH})",
            )
        return GraphOutput(name, name, shape, dtype)


def input_types(model: Source) -> dict[str, str]:
    """Return a model's inputs in its order, with their numpy types; without a type that numpy knows, an empty one."""
    loaded = model if isinstance(model, onnx.ModelProto) else load_model(model)
    constants = {tensor.name for tensor in loaded.graph.initializer}
    types = {value.name: TYPES.get(value.type.tensor_type.elem_type, "") for value in loaded.graph.input}
    return {name: "" if kind == "string" else kind for name, kind in types.items() if name not in constants}


def input_names(model: Source) -> list[str]:
    """Return names of a model's inputs, in its order."""
    return [*input_types(model)]


def output_names(model: Source) -> list[str]:
    """List the names of a model's outputs, without compiling it."""
    loaded = model if isinstance(model, onnx.ModelProto) else load_model(model)
    return [value.name for value in loaded.graph.output]
