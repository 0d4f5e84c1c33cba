"""Answer what a handler may ask: every value of the model so far, as what it is imported.

Handlers are given a `Context` and a `ModelNode`.  Neither knows how a model is stored, nor who walks over it:
`onnx.walk` derives from the one and makes the others.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from mpc.compiler.graph.attributes import Constant, Fit
from mpc.compiler.graph.emitter import Emitter
from mpc.compiler.graph.graph import GraphInput, GraphOutput, Range, Shape
from mpc.compiler.graph.hidden import Cut, Floor
from mpc.compiler.graph.writer import FIX_BATCH, INTEGERS
from mpc.compiler.operators.facts import Fact, Standing
from mpc.compiler.operators.sizes import Joined, Rows

Settings = dict[str, Any]
"""A node's attributes as Python values.  Tensors and subgraphs are as the model has them: see `array`, `body`."""
_TO_SCORES = (
    "Add", "Cast", "Concat", "Expand", "Identity", "Reshape", "ScatterElements", "ScatterND", "Slice", "Squeeze",
    "Transpose", "Unsqueeze",
)  # fmt: skip
LEAST_MASK = -1e3
"""No model learns to add so little, or puts so little in the place of a score; a mask does."""
LEAST_LEVEL = -1e6
"""No score is raised to so little; what a mask hides is."""
BOUNDLESS = 1e30
"""No wire holds a number of this size."""
_MOST_SCALED = 64.0
"""Minus infinity, as a softmax knows it, stays that if it is divided by so much."""


@dataclass(frozen=True)
class ModelNode:
    """One node of the model.

    Args:
        input, output: names of values; empty where one is left out.
        read: its attributes; they are read when somebody asks for them.
    """

    op_type: str
    input: tuple[str, ...]
    output: tuple[str, ...]
    domain: str = ""
    read: Callable[[], Settings] = field(default=dict, repr=False, compare=False)

    @cached_property
    def settings(self) -> Settings:
        """Its attributes."""
        return self.read()


@dataclass(frozen=True)
class Body:
    """A subgraph of a node: what enters it, what it has of its own, and what leaves it."""

    inputs: tuple[str, ...]
    constants: Mapping[str, np.ndarray]
    nodes: tuple[ModelNode, ...]
    outputs: tuple[str, ...]


class Context(Emitter, ABC):
    """The model's values so far, and the questions that handlers ask of them.

    A value is a constant (numpy array; shape vectors may hold `Rows`), or a secret
    with a shape.  Handlers read and define values through this class.

    Args:
        opset: the version of the operators that have no domain; opsets: of those of every domain that the model names.
        readers: value -> the nodes that read it, those inside branches too.
        revealed: values that recipients receive.

    Attributes:
        joined: values of which the model sees the batch and other axes as one.
        sums_rows: may the rows of the batch be summed?
        splits: are some of the model's constants told and others not?
        rounds: does what is quantised become whole numbers?  If not, it is held between its type's ends alone.
        skips: is what constants hide from a softmax left out of it?  below: values that only softmaxes read -> by how
            much what they stand for is less than what they hold; moved: indices so far by which what is left is
            gathered; cut: values that only softmaxes read, and where a secret decides about numbers that were brought
            closer to zero; fills: values in which masks have put numbers -> these, as the model has
            them.  See `operators.masks`.
        floor: stands for what masks hide from a maximum, in the values that are floored; None: the model's own numbers
            do; kept: values that hold these in any case.  See `operators.maxima`.
        looked_at: how many nodes were asked whether one has a far number; has_far: has one?  See `operators.absorbed`.
        bits: inputs of whole numbers that are declared as zeros and ones; undeclared: those of which no range is.
        decoded: values that recipients read as labels or dictionaries.
        facts: value -> what is known of it; see `operators.facts`.
        enterable: inputs whose numbers may be missing, with their ranges; at_rest: columns that may, of those that lie
            at the parties; marks: what tells where they are, of values;
            marking: the inputs for it; aware: what nodes write that look at it; wanted: how readers would have numbers
            of some inputs enter that are missing; standing: inputs with numbers that stand for missing ones.  See
            `operators.missing`.
        hot: numbers that say where something stands -> the zeros and ones as which they were entered; numbered: inputs
            that enter so -> the number that they tell.  See `operators.places`.
        sequences: sequences of tensors -> the names of their values.  See `operators.sequences`.
    """

    def __init__(
        self, opset: int, opsets: Mapping[str, int], readers: dict[str, list[ModelNode]], revealed: frozenset[str]
    ) -> None:
        super().__init__()
        self.opset, self.opsets = opset, opsets
        self.readers, self.revealed = readers, revealed
        self.sums_rows = False
        self.splits = False
        self.rounds = True
        self.skips = True
        self.moved = 0
        self.below: dict[str, np.ndarray] = {}
        self.cut: dict[str, Cut] = {}
        self.fills: dict[str, set[float]] = {}
        self.floor: Floor | None = None
        self.floored: dict[str, frozenset[float]] = {}
        self.kept: Collection[str] = ()
        self.looked_at = 0
        self.has_far = False
        self.bits: set[str] = set()
        self.undeclared: set[str] = set()
        self.constants: dict[str, np.ndarray] = {}
        self.decoded: dict[str, GraphOutput] = {}
        self.facts: dict[str, Fact] = {}
        self.joined: dict[str, Joined] = {}
        self.enterable: dict[str, Range] = {}
        self.at_rest: dict[str, tuple[int, ...]] = {}
        self.marks: dict[str, tuple[str, np.ndarray] | None] = {}
        self.marking: list[GraphInput] = []
        self.aware: set[str] = set()
        self.wanted: list[tuple[frozenset[str], str]] = []
        self.standing: dict[str, Standing] = {}
        self.hot: dict[str, str] = {}
        self.sequences: dict[str, tuple[str, ...]] = {}
        self.numbered: dict[str, str] = {}

    # -- what only the model's own format tells

    @abstractmethod
    def inferred(self, name: str) -> str:
        """Return the type of a value as the model has it, a numpy name; empty if that is not known."""

    @abstractmethod
    def known(self, name: str) -> np.ndarray | None:
        """Return a constant, even one whose node comes later; None of what is no constant."""

    @abstractmethod
    def type_named(self, code: int) -> str:
        """Return the model's number of a type as a numpy name; empty for a type that nothing here has."""

    @abstractmethod
    def array(self, tensor: Any) -> np.ndarray:
        """Return a tensor attribute as an array."""

    @abstractmethod
    def body(self, graph: Any) -> Body:
        """Return a subgraph attribute, to be looked into."""

    @abstractmethod
    def inline(self, graph: Any, names: Sequence[str]) -> None:
        """Import the nodes of a subgraph as if they were the model's own; its outputs get these names."""

    @abstractmethod
    def repeat(self, graph: Any, bound: Mapping[str, str]) -> tuple[str, ...]:
        """Import a copy of a subgraph whose inputs are these values; return the names of its outputs."""

    # -- values

    def is_constant(self, name: str) -> bool:
        return name in self.constants

    def constant(self, name: str, what: str) -> np.ndarray:
        """Return a constant operand; a refusal naming `what` if it is secret data."""
        if name not in self.constants:
            raise self.origin.refuse(
                f"{what} depends on the input; only a constant is possible here",
                remedy=(
                    "export the model with that operand fixed: as an initializer, or as a number in "
                    "the code that is exported; if it is an input, a whole number that is always the same, a sample "
                    "rate say, declare that: --range NAME=16000:16000, in Python ranges={'NAME': (16000, 16000)}"
                ),
            )
        return self.constants[name]

    def numbers(self, name: str, what: str) -> np.ndarray:
        """Return a constant operand as float64."""
        value = self.constant(name, what)
        if value.dtype == object or value.dtype.kind not in "fiub":
            raise self.origin.refuse(
                f"{what} holds something other than numbers",
                remedy="store it with numbers (float32 or int64); text has to be numbered before the model",
            )
        return value.astype(np.float64)

    def integers(self, name: str, what: str) -> list[int]:
        """Return a constant list of integers, as axes or sizes are."""
        return [self.whole(entry, what) for entry in self.constant(name, what).reshape(-1).tolist()]

    def whole(self, entry: Any, what: str) -> int:
        """Return an entry of a shape vector that must not be the batch."""
        if isinstance(entry, Rows):
            raise self.origin.refuse(f"{what} depends on the batch size", remedy=FIX_BATCH)
        return int(entry)

    def optional(self, node: ModelNode, position: int, what: str) -> np.ndarray | None:
        """Return a constant input that may be left out."""
        if len(node.input) <= position or not node.input[position]:
            return None
        return self.constant(node.input[position], what)

    def secret(self, name: str) -> Shape:
        """Return the shape of a secret value."""
        return self.shapes[name]

    def value(self, name: str) -> str:
        """Make a value to compute with: a constant becomes a stored weight, a node of its own."""
        if not self.is_constant(name):
            self.secret(name)
            return name
        numbers = self.numbers(name, "an operand")
        self.require_finite(numbers)
        return self.stored(numbers, numbers.shape)

    def stored(self, values: np.ndarray, shape: Shape) -> str:
        """Return a constant as a value, broadcast to a shape; it is a weight, secret."""
        name = self.emit("constant", (), None, shape, Constant(weight=np.asarray(values)))
        if not np.any(values % 1):
            self.integral.add(name)
        return name

    def type_of(self, name: str) -> str:
        """Return the type of a value, for operators that cast to another's."""
        if name in self.constants:
            return str(self.constants[name].dtype)
        return "int64" if name in self.integral else "float32"

    def holds_reals(self, name: str) -> bool:
        """Is a value, which may have whole numbers only, of a floating-point type?"""
        return self.inferred(name).startswith("float")

    def only_feeds(self, name: str, operators: set[str]) -> bool:
        """Do only these operators read a value, and nobody receives it?"""
        return name not in self.revealed and all(reader.op_type in operators for reader in self.readers.get(name, []))

    def only_scores(self, name: str) -> bool:
        """Is a value read by softmaxes only, on its way added to others, moved, masked or divided by a small number?"""
        readers = self.readers.get(name, [])
        if not readers or name in self.revealed:
            return False
        return all(one.op_type in ("Shape", "Size") or self._leads_to_softmax(one, name) for one in readers)

    def _leads_to_softmax(self, reader: ModelNode, name: str) -> bool:
        if reader.op_type == "Softmax":
            return True
        if reader.op_type == "Cast" and self.type_named(int(reader.settings["to"])) == "bool":
            return True  # whatever is not 0 is true
        if reader.op_type in ("Mul", "Div"):
            known = [self.known(name) for name in reader.input]
            factors = [float(value.flat[0]) for value in known if value is not None and value.size == 1]
            if not factors or not 1 / _MOST_SCALED <= factors[0] <= _MOST_SCALED:
                return False
        elif reader.op_type == "Where":
            if not self._masks(reader, name):
                return False
        elif reader.op_type == "Max":  # with a number that a mask puts
            others = [self.known(other) for other in reader.input if other != name]
            if any(other is None or (other > LEAST_LEVEL).any() for other in others):
                return False
        elif reader.op_type not in _TO_SCORES:
            return False
        return self.only_scores(reader.output[0])

    def _masks(self, chooser: ModelNode, name: str) -> bool:
        """Does a Where put masks, and nothing that is a score, in the place of a value, or is it public where?"""
        condition, *branches = chooser.input
        if name == condition or self.known(condition) is not None:
            return name != condition
        others = [self.known(branch) for branch in branches if branch != name]
        return len(others) == 1 and others[0] is not None and bool((others[0] <= LEAST_MASK).all())

    def unused(self, node: ModelNode, position: int) -> bool:
        """Does nobody read this output of a node?"""
        if len(node.output) <= position or not node.output[position]:
            return True
        return node.output[position] not in self.readers and node.output[position] not in self.revealed

    def alias(self, name: str, of: str) -> None:
        """Give a value, or a sequence of them, another name."""
        if of in self.sequences:
            self.sequences[name] = self.sequences[of]
            return
        if of in self.constants:
            self.constants[name] = self.constants[of]
            return
        self.emit("reshape", (of,), name, self.secret(of))
        if of in self.facts:
            self.facts[name] = self.facts[of]

    def decode(self, name: str, value: str, **reading: Any) -> None:
        """Note that recipients read the secret `value` as labels or dictionaries, under `name`."""
        shape = reading.pop("shape", self.shapes[value])
        self.decoded[name] = GraphOutput(name, value, shape, **reading)
        self.shapes[name] = shape

    def redecode(self, name: str, source: str, **changes: Any) -> None:
        """Repeat a reading with another type or shape."""
        read = self.decoded[source]
        reading: dict[str, Any] = {"dtype": read.dtype, "labels": read.labels, "keys": read.keys, "shape": read.shape}
        self.decode(name, read.value, **{**reading, **changes})

    def opposite_fits(self, name: str, x: str) -> str:
        """Return x, whose opposite is of the integer type of another value too, or refused."""
        kind = self.inferred(name)
        if kind not in INTEGERS:
            return x
        low, high = INTEGERS[kind]
        return self.emit("fit", (x,), None, self.shapes[x], Fit(ends=(max(low, -high), high), outside=wraps(kind)))


def wraps(kind: str) -> str:
    """Return why a value has to stay within an integer type."""
    return f"{kind} wraps around there"
