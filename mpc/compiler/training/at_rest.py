"""Inputs of a step whose rows lie at the parties: at scales that their owners have given, and read as a step needs.

A step multiplies what enters with weights that have the scale of their own gradients, so a column of many fractional
bits is shortened first, which costs a round; one of few, or of whole numbers, is read as it lies there.  Targets of one
column that says which class a row is of become one bit a class, for no round and without being opened.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from mpc.compiler.graph.attributes import Columns, OneHot, Round
from mpc.compiler.graph.graph import Graph, GraphInput, Node, Origin, Shape, static
from mpc.compiler.graph.stored import StoredInput, described
from mpc.compiler.training.precision import Precision
from mpc.compiler.training.tape import Tape
from mpc.errors import InputError
from mpc.plan.program import Program, Told

_SEED = "0" * 64


def at_rest(graph: Graph, stored: Mapping[str, StoredInput], precision: Precision) -> Graph:
    """Return a graph with open rows, some of whose inputs are read where they lie.

    Raises:
        InputError: there is no input of that name, or it cannot be read so.
    """
    inputs = described(graph.inputs, stored)
    renamed: dict[str, str] = {}
    nodes = []
    for given in inputs:
        if given.name in stored and not given.whole:
            for node in _read(given, precision):
                nodes.append(node)
                renamed[given.name] = node.writes
    moved = [replace(node, reads=tuple(renamed.get(name, name) for name in node.reads)) for node in graph.nodes]
    outputs = [replace(out, value=renamed.get(out.value, out.value)) for out in graph.outputs]
    return Graph(inputs, nodes + moved, outputs)


def _read(given: GraphInput, precision: Precision) -> list[Node]:
    """Read columns in one unit, with as many fractional bits as activations have."""
    origin, found, name = Origin(given.name, "input"), list[Node](), given.name
    if np.any(given.exponent):
        weight = np.exp2(np.asarray(given.exponent, np.float64)).reshape((1,) * (len(given.shape) - 1) + (-1,))
        units = Columns(weight=weight, bias=np.zeros_like(weight))
        found.append(Node("columns", (name,), f"{name}/units", given.shape, origin, units))
        name = found[-1].writes
    found.append(Node("round", (name,), f"{name}/read", given.shape, origin, Round(fraction=precision.activations)))
    return found


def targets_at_rest(
    tape: Tape, name: str, stored: StoredInput, shape: Shape, wanted: tuple[float, float] | None
) -> GraphInput:
    """Write how targets that lie at the parties are read, as `name` of this shape; return the input that they are.

    Args:
        shape: of the model's last sums, (rows, ..).
        wanted: the range that the loss wants targets in; None for any.

    Raises:
        InputError: they are none that the loss could compare these sums with.
    """
    (scale, *more), row, rows = stored.scales, stored.row, static(shape)[0]
    low, high = min(stored.low), max(stored.high)
    given = GraphInput(name, (rows, *row), "float64", stored.range, stored=scale)
    outputs = static(shape)[1:]
    if more or stored.missing:
        raise InputError("targets have columns in different units, or miss numbers", remedy="name one column of them")
    if wanted is not None and (wanted[0] > low or high > wanted[1]):
        if scale == 1 and row == () and len(outputs) == 1 and low >= 0 and high < outputs[0] > 1:
            given = replace(given, dtype="int64")
            tape.shapes[name] = given.shape
            tape.emit("onehot", (name,), f"{name}/classes", shape, OneHot(size=outputs[0]))
            return given
        raise InputError(
            f"the targets' column goes from {low:g} to {high:g}, and this loss compares {outputs} outputs a row with "
            f"numbers from {wanted[0]:g} to {wanted[1]:g}",
            remedy="name a column that says the number of each row's class, 0 to outputs - 1, or an array of them",
        )
    if int(np.prod(row, dtype=np.int64)) != int(np.prod(outputs, dtype=np.int64)):
        raise InputError(
            f"a row of the targets' column has shape {row}, and the model's outputs have {outputs}",
            remedy="name a column that says the number of each row's class, or holds one number an output",
        )
    tape.shapes[name] = given.shape
    if given.shape != shape:
        tape.emit("reshape", (name,), f"{name}/classes", shape)
    return given


def targets_entered(tape: Tape, name: str, shape: Shape, sums: Shape, wanted: tuple[float, float] | None) -> GraphInput:
    """Write how targets that are entered are read; return the input that they are.

    Args:
        shape: of the model's output, which targets have.
        sums: shape of the model's last sums, which may be reshaped behind the activation.
        wanted: the range that the loss wants targets in; None for any.
    """
    tape.shapes[name] = shape
    if shape != sums:
        tape.emit("reshape", (name,), f"{name}/classes", sums)
    return GraphInput(name, shape, "float32", wanted)


def targets_read(tape: Tape, name: str) -> str:
    """Name the value that the targets are read as."""
    return f"{name}/classes" if f"{name}/classes" in tape.shapes else name


def first_program(batch: int, keeps: Mapping[str, str]) -> Program:
    """Return a program of one step on rows at rest; whoever runs more of them says so: `Plan.with_program`."""
    told = tuple(Told(output=out, first=1) for out in keeps.values())
    return Program(steps=1, rows=batch, seed=_SEED, told=told)
