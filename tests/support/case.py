"""What a case is: a plan, values for it and a judge; and what the strategies of cases share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
from hypothesis import strategies as st

from mpc.at_once import MOST_CHUNKS
from mpc.comparison import CHUNK_BITS, MAX_CHUNKS
from mpc.gates.multiply import Multiply
from mpc.gates.open import Open
from mpc.gates.relu import Relu
from mpc.gates.truncate import Truncate
from mpc.wires import MAX_BITS, Masking
from tests.support.plans import Builder, Shape, wire
from tests.support.worlds import Arrays

Judge = Callable[[Arrays], None]
Draw = Callable[[st.SearchStrategy], object]
Limits = dict[str, tuple[int, int]]


@dataclass
class Case:
    """One plan, and how to make values for it.

    Args:
        limits: input or weight -> (largest size of a value, step whose multiples are edges).
        judge: raises unless the reference is right.
        edges: input -> more values that are edges.
    """

    builder: Builder
    limits: Limits
    judge: Judge
    edges: dict[str, list[int]] = field(default_factory=dict)

    def values(self, name: str, batch: int, seed: int) -> np.ndarray:
        """Random integers of an input, edges among them."""
        shape = next(w for w in self.builder.wires if w.name == name).bind(batch).sizes
        limit, step = self.limits[name]
        return edgy(np.random.default_rng([seed, *name.encode()]), shape, limit, step, self.edges.get(name, []))

    def inputs(self, batch: int, seed: int) -> Arrays:
        """Every input of a run."""
        return {given.name: self.values(given.name, batch, seed) for given in self.builder.inputs}


def edgy(
    rng: np.random.Generator, shape: tuple[int, ...], limit: int, step: int = 1, more: list[int] | None = None
) -> np.ndarray:
    """int64 with |v| <= limit: a third edges, a third of any magnitude, a third uniform."""
    near = (0, 1, step - 1, step, step + 1, limit // 2, limit - step, limit - 1, limit)
    edges = np.array(sorted({s * v for v in near for s in (1, -1) if 0 <= v <= limit}), dtype=np.int64)
    if more:
        around = {v + d for v in more for d in (-step, -1, 0, 1) if abs(v + d) <= limit}
        edges = np.concatenate([edges, np.resize(np.array(sorted(around), dtype=np.int64), edges.size)])
    uniform = rng.integers(-limit, limit, size=shape, endpoint=True)
    anywhere = uniform >> rng.integers(0, max(1, limit.bit_length()), size=shape)
    kind = rng.integers(0, 3, size=shape)
    return np.choose(kind, [edges[rng.integers(0, edges.size, size=shape)], anywhere, uniform])


def shapes(least: int = 1, most: int = 3, side: int = 4) -> st.SearchStrategy[Shape]:
    """("batch", a, b ..)."""
    sides = st.lists(st.integers(1, side), min_size=least - 1, max_size=most - 1)
    return sides.map(lambda rest: ("batch", *rest))


scales = st.builds(Fraction, st.integers(1, 1 << 20), st.integers(1, 1 << 20))


@st.composite
def thinned(draw: Draw, shape: Shape, batch: bool = True) -> Shape:
    """A shape that broadcasts to this one: without its first axes, and with some of size 1."""
    first = draw(st.integers(0, len(shape)))
    if not batch:
        first = max(first, 1 + max((i for i, d in enumerate(shape) if d == "batch"), default=-1))
    return tuple(1 if draw(st.booleans()) else size for size in shape[first:])


def rounded(y: np.ndarray, x: np.ndarray, shift: int) -> None:
    """y is floor(x / 2^shift) or one more."""
    above = y - (x >> np.int64(shift))
    assert ((above == 0) | (above == 1)).all()


@st.composite
def how_compared(draw: Draw, bits: int) -> dict[str, Any]:
    """How a gate compares so many bits: at once or in two rounds, and in how many chunks, if it says so."""
    at_once = bits <= MOST_CHUNKS * CHUNK_BITS and draw(st.booleans())
    most = MOST_CHUNKS if at_once else MAX_CHUNKS
    chunks = draw(st.one_of(st.none(), st.integers(-(-bits // CHUNK_BITS), min(bits, most))))
    return {"chunks": chunks, "at_once": at_once}


def shifted(draw: Draw, most: int) -> tuple[int, int]:
    """(bits, shift) with 1 <= bits - shift <= most, edges often."""
    left = draw(st.sampled_from([v for v in (1, 2, 6, 7, 12, 13, 24, 47, 48, most) if v <= most]))
    shift = draw(st.one_of(st.sampled_from([0, 1, 58]), st.integers(0, 58)))
    shift = min(shift, MAX_BITS - left)
    return left + shift, shift


def finish(b: Builder, name: str, drawn: bool) -> None:
    """Output a drawn wire, the truncation of one that is not, or an unopened one once it is opened."""
    if drawn:
        b.output(name)
        return
    last = next(each for each in b.wires if each.name == name)
    if last.masking is Masking.UNOPENED:
        b.gate(Open(name="last", x=name, out="last"), wire("last", last.shape, last.bits, last.scale))
        b.output("last")
        return
    shift = 1 if last.bits > 1 else 0
    b.gate(
        Truncate(name="last", x=name, out="last", shift=shift),
        wire("last", last.shape, min(last.bits + 1, MAX_BITS), last.scale / (1 << shift)),
    )
    b.output("last")


def add_source(draw: Draw, b: Builder, limits: Limits, name: str, shape: Shape, bits: int) -> int:
    """A wire of a known mask, an input; or of a derived one, the square of an input; or an unopened one, the ReLU of
    an input.  The last two do not go together.  Returns its bits."""
    kinds = {w.masking for w in b.wires}
    derived, unopened = Masking.UNOPENED not in kinds, Masking.DERIVED not in kinds
    kind = draw(st.sampled_from(["known", *["derived"] * derived, *["unopened"] * unopened]))
    if kind == "known":
        b.enter(name, shape, bits)
        limits[name] = ((1 << bits) - 1, 1)
        return bits
    if kind == "unopened":
        add_unopened(b, limits, name, shape, bits)
        return bits
    source = b.enter(f"{name}/in", shape, bits)
    limits[source] = ((1 << bits) - 1, 1)
    squared = wire(name, shape, 2 * bits, masking=Masking.DERIVED)
    b.gate(Multiply(name=f"by:{name}", x=source, y=source, out=name), squared)
    return 2 * bits


def add_unopened(b: Builder, limits: Limits, name: str, shape: Shape, bits: int, scale: Fraction | int = 1) -> None:
    """A wire of at most 48 bits that is not opened: the ReLU of an input."""
    source = b.enter(f"{name}/in", shape, bits, scale)
    limits[source] = ((1 << bits) - 2, 1)
    b.gate(
        Relu(name=f"by:{name}", x=source, out=name, shift=0), wire(name, shape, bits, scale, masking=Masking.UNOPENED)
    )
