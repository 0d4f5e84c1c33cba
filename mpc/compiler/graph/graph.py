"""The compiler's own graph: a few operators, real weights, and where each came from.

Between an imported model and a plan.  Weights are float64 here and stay with the model's
owner; nothing of this module is ever sent.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from typing import TypeVar

import numpy as np

from mpc.compiler.graph.attributes import Affine, Attributes
from mpc.errors import ModelError
from mpc.fixedpoint import beyond
from mpc.wires import BATCH, Dimension

Shape = tuple[Dimension, ...]
Kind = TypeVar("Kind", bound=Attributes)
End = float | tuple[float, ...]
Range = tuple[End, End]
HALF_STEP = 2.0**-19
"""Two reals are equal if they differ by less; whole numbers are compared exactly."""
_SIMPLE = 64


@dataclass(frozen=True)
class Origin:
    """The node of the model that something came from, for messages."""

    node: str
    operator: str

    def refuse(self, problem: str, *, remedy: str, attribute: str | None = None) -> ModelError:
        """Return the error that names this node.

        Args:
            remedy: what to change in the model, its export or the call, so that it compiles.
        """
        return ModelError(
            f"node {self.node!r} ({self.operator}): {problem}",
            node=self.node,
            operator=self.operator,
            attribute=attribute,
            remedy=remedy,
        )


@dataclass(frozen=True)
class Node:
    """One operator.

    What each reads, which attributes it has and which shape follows stands in `spec`.
    """

    op: str
    reads: tuple[str, ...]
    writes: str
    shape: Shape
    origin: Origin
    attributes: Attributes = field(default=Attributes(), repr=False)

    def of(self, kind: type[Kind]) -> Kind:
        """Return the attributes of a node whose operator has those of this kind.

        Raises:
            TypeError: it has others.
        """
        if not isinstance(self.attributes, kind):
            raise TypeError(f"{self.op} {self.writes!r} has no attributes of the kind {kind.__name__}")
        return self.attributes

    @property
    def only_signs(self) -> bool:
        """Does it matter of each of its columns only whether it is negative?"""
        return isinstance(self.attributes, Affine) and self.attributes.signs


def static(shape: Shape) -> tuple[int, ...]:
    """Return the shape of an interval: the batch dimension has size 1, since rows share their bounds."""
    return tuple(1 if d == BATCH else int(d) for d in shape)


MOVES = frozenset({"reshape", "transpose", "take", "concat"})
"""Operators that only move elements about (a `take` may put zeros in)."""


@dataclass(frozen=True)
class Carried:
    """Says that an input is state: the run before has written it.

    Args:
        scale: of its integers, at both ends.
        start: the integers that the first run reads; None for zeros.
        public: all parties know these; else their owner masks them.
        stored_by: whose integers at the parties the first run reads instead; empty if it does not.
    """

    scale: Fraction
    start: np.ndarray | None = field(default=None, repr=False, compare=False)
    public: bool = False
    stored_by: str = ""


@dataclass(frozen=True)
class GraphInput:
    """Data that enters.

    Args:
        declared: (low, high) in the model's units, each one number or one a column of the last
            axis; None where undeclared.
        offset, exponent: its wire holds (x - offset) 2^-exponent, of whole numbers x - offset; one number or one a
            column.  See `columns`.
        marks: the input of which this one tells where numbers are missing: see `operators.missing`.
        columns: those of the marked input, or of this one if numbers beyond its range stand for missing ones, that
            may miss numbers.
        beside: the input that lies at the parties of which this one tells where numbers of these columns are missing;
            it lies there too, as an input of its own.
        beyond: the end of the range beyond which they are, "low" or "high"; empty if there are none.
        stored: the scale of the integers that lie at the parties, of its finest column; None if an owner enters it.
        state: None but for what the run before has written.
        places: if not 0, whole numbers enter as so many zeros, on one more axis, with 1 at the place that each tells;
            `shape` has that axis, and the range is that of the whole numbers.
    """

    name: str
    shape: Shape
    dtype: str
    declared: Range | None = None
    offset: End = 0.0
    exponent: End = 0.0
    marks: str = ""
    columns: tuple[int, ...] = ()
    beyond: str = ""
    beside: str = ""
    stored: Fraction | None = None
    state: Carried | None = None
    places: int = 0

    @property
    def given(self) -> Shape:
        """The shape of what its owner gives."""
        return self.shape[:-1] if self.places else self.shape

    @property
    def of(self) -> str:
        """Name of the input that this one is, or tells of."""
        return self.marks or self.beside or self.name

    @property
    def whole(self) -> bool:
        """Does it hold whole numbers?"""
        return self.dtype.startswith(("int", "uint", "bool"))

    @property
    def exact(self) -> np.ndarray:
        """Say whether it holds whole numbers, or which of its columns do if it is stored: one bool, or one a column."""
        if self.stored is None:
            return np.asarray(self.whole)
        return np.asarray(float(self.stored) == np.exp2(np.asarray(self.exponent, np.float64)))

    @property
    def encoded(self) -> bool:
        """Has it units or offsets?"""
        return bool(np.any(self.offset) or np.any(self.exponent))

    @property
    def factor(self) -> np.ndarray:
        """The factor of x - offset, before the wire's scale: one number, or one a column."""
        return np.exp2(np.zeros(np.shape(self.exponent)) if self.whole else -np.asarray(self.exponent, np.float64))

    @property
    def range(self) -> Range:
        """The declared range; `ValueError` if there is none."""
        if self.declared is None:
            raise ValueError(f"input {self.name} has no declared range")
        return self.declared

    @property
    def span(self) -> Range:
        """Give the ends between which all that enters lies: the range, and what stands for missing numbers."""
        if self.places:
            return 0.0, 1.0
        if not self.beyond:
            return self.range
        low, high = (np.asarray(end, dtype=np.float64) for end in self.range)
        stands, _ = beyond(low, high, self.dtype, self.beyond)
        if len(self.columns) < int(self.shape[-1]):  # only some of the columns reach there
            some = np.isin(np.arange(int(self.shape[-1])), self.columns)
            low, high, stands = (np.broadcast_to(end, some.shape) for end in (low, high, stands))
            stands = np.where(some, stands, high if self.beyond == "high" else low)
        low, high = (low, stands) if self.beyond == "high" else (stands, high)
        return _plain(low), _plain(high)


def _plain(end: np.ndarray) -> End:
    return float(end) if end.ndim == 0 else tuple(end.tolist())


@dataclass(frozen=True)
class GraphOutput:
    """A value that is revealed, and how it reads: see `plan.PlanOutput`.

    Args:
        carried: the input as which the next run reads it; empty if none does.  Then it is revealed to those alone that
            are named for it.
    """

    name: str
    value: str
    shape: Shape
    dtype: str
    labels: tuple[int | str, ...] | None = None
    keys: tuple[int | str, ...] | None = None
    carried: str = ""


@dataclass
class Graph:
    """Nodes in topological order; they stay as they are once somebody has asked who reads or writes a value.

    Args:
        floored: values in which something stands for what masks hide, as they were imported -> the sizes of the model's
            numbers there; unhidden: those of these values of which no comparison would note how large others are, or
            that pass where one number is compared with none.
            See `operators.maxima`.
    """

    inputs: list[GraphInput]
    nodes: list[Node]
    outputs: list[GraphOutput]
    notes: tuple[str, ...] = ()
    floored: Mapping[str, frozenset[float]] = field(default_factory=dict)
    unhidden: frozenset[str] = frozenset()

    def readers(self, value: str) -> Iterator[Node]:
        """Yield the nodes that read a value."""
        return iter(self._readers.get(value, ()))

    @cached_property
    def _readers(self) -> dict[str, list[Node]]:
        found: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in {*node.reads}:
                found.setdefault(name, []).append(node)
        return found

    @cached_property
    def writers(self) -> dict[str, Node]:
        """The node that writes each value; inputs have none."""
        return {node.writes: node for node in self.nodes}

    def is_output(self, value: str) -> bool:
        return any(out.value == value for out in self.outputs)

    def sole_reader(self, value: str) -> Node | None:
        """Return the one node that reads a value, if there is just one and it is not revealed."""
        readers = list(self.readers(value))
        return readers[0] if len(readers) == 1 and not self.is_output(value) else None


def simple_factor(weight: np.ndarray) -> Fraction | None:
    """Return the one factor that all elements have, if it is a small fraction or the root of one; else None."""
    value = float(weight.flat[0])
    if weight.size > 1 and (weight != value).any():
        return None
    for power in (1, 2):
        mantissa, exponent = math.frexp(abs(value) ** power)
        close = Fraction(mantissa).limit_denominator(_SIMPLE)
        if abs(close - Fraction(mantissa)) < Fraction(1, 1 << 23) and close.numerator <= _SIMPLE:
            sign = -1 if value < 0 else 1
            if power == 1:
                return sign * close * Fraction(2) ** exponent
            return sign * Fraction(abs(value)).limit_denominator(1 << 24)
    return None
