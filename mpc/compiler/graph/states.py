"""State of a model: outputs that the next run reads as inputs, and what the first run reads there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import numpy as np

from mpc import fixedpoint
from mpc.compiler.graph.graph import Carried, Graph, GraphInput, GraphOutput
from mpc.errors import InputError, ModelError
from mpc.fixedpoint import check_range
from mpc.wires import BATCH

STATE_FRACTION = 20
"""Fractional bits of state that holds reals."""
_LONGEST = 44


@dataclass(frozen=True)
class StoredStart:
    """An array that lies at the parties, as its owner has put it or a session has kept it.

    Args:
        owner: whose it is.
        shape, scale: of its integers.
        most: the largest size of its numbers, in the model's units.
    """

    owner: str
    shape: tuple[int, ...]
    scale: Fraction
    most: Fraction


@dataclass(frozen=True)
class State:
    """Says of an output what the next run reads it as, and what the first run reads there.

    Args:
        input: the name of the model's input.
        start: the array that the first run reads, in the model's units, or one that lies at the parties; None for
            zeros.  Of a `Cluster` it may also be a column of a dataset or of what a session has kept.
        public: all parties are told what it begins with; else it is masked, as weights are.  Of zeros they know.
    """

    input: str
    start: Any = field(default=None, repr=False, compare=False)
    public: bool = False


def with_states(graph: Graph, states: Mapping[str, State]) -> Graph:
    """Return the graph, whose inputs have ranges, with what runs hand on marked at both ends.

    Raises:
        ModelError: there is no such output or input, or they cannot be one value.
        InputError: the first run cannot read what it is to begin with.
    """
    if not states:
        return graph
    outputs, inputs = {out.name: out for out in graph.outputs}, {given.name: given for given in graph.inputs}
    read: dict[str, State] = {}
    for name, state in states.items():
        _require(name, outputs, "output")
        _require(state.input, inputs, "input")
        if state.input in read:
            raise ModelError(
                f"input {state.input!r} is read from two outputs", remedy="pair each input with one output"
            )
        _check(outputs[name], inputs[state.input])
        read[state.input] = state
    return Graph(
        [_carried(given, read[given.name]) if given.name in read else given for given in graph.inputs],
        graph.nodes,
        [replace(out, carried=states[out.name].input) if out.name in states else out for out in graph.outputs],
    )


def _require(name: str, known: Mapping[str, object], what: str) -> None:
    if name not in known:
        raise ModelError(f"the model has no {what} {name!r}", remedy=f"its {what}s are {', '.join(known)}")


def _check(out: GraphOutput, given: GraphInput) -> None:
    fault = None
    if BATCH in (*given.shape, *out.shape):
        fault = "one of them has a dimension that is open"
    elif out.shape != given.shape:
        fault = f"their shapes are {out.shape} and {given.shape}"
    elif out.labels is not None or out.keys is not None or out.dtype == "string":
        fault = f"output {out.name!r} is no array of numbers"
    elif given.whole and out.dtype.startswith("float"):
        fault = f"input {given.name!r} takes whole numbers, and the output holds reals"
    elif given.marks or given.columns or given.beyond:
        fault = f"input {given.name!r} may miss numbers (NaN)"
    elif given.stored is not None:
        fault = f"input {given.name!r} is read from a dataset"
    if fault is not None:
        raise ModelError(
            f"input {given.name!r} cannot read what output {out.name!r} leaves: {fault}",
            remedy="what a run leaves for the next one has one fixed shape at both ends",
        )


def _carried(given: GraphInput, state: State) -> GraphInput:
    size = max(float(np.max(np.abs(end))) for end in given.range)
    fraction = 0 if given.whole else min(STATE_FRACTION, _LONGEST - int(np.ceil(np.log2(max(size, 1.0)))))
    scale, start = Fraction(2) ** fraction, None
    if isinstance(state.start, StoredStart):
        return replace(given, state=_stored(given, state.start, size))
    if state.start is not None:
        try:
            values = np.asarray(state.start)
        except ValueError:  # rows of different lengths
            values = np.asarray(None)
        if values.shape != given.shape or values.dtype.kind not in "fiub":
            raise InputError(
                f"state {given.name!r} begins with an array of shape {values.shape} and type {values.dtype}, and the "
                f"model reads shape {given.shape}",
                remedy="give an array of numbers of that shape",
            )
        low, high = (tuple(map(Fraction, np.atleast_1d(end).tolist())) for end in given.range)
        check_range(values, low, high, given.name, ())
        start = fixedpoint.encode(values, scale, f"state {given.name!r}")
    return replace(given, state=Carried(scale, start, state.public))


def _stored(given: GraphInput, start: StoredStart, size: float) -> Carried:
    """The scale is what it is: at both ends of the state, too."""
    if start.shape != given.shape:
        raise InputError(
            f"state {given.name!r} begins with an array of shape {start.shape}, and the model reads {given.shape}",
            remedy="name a column that holds the whole array",
        )
    if start.most > size * 2:  # what was kept has a bound that is a power of two
        raise InputError(
            f"state {given.name!r} begins with numbers up to {float(start.most):g}, and its range ends at {size:g}",
            remedy=f"declare a range of {given.name!r} that they are in",
        )
    return Carried(start.scale, stored_by=start.owner)
