"""Small plans, in which every gate opens all that it can open and takes all that it can be dealt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from mpc import tables
from mpc.gates.between import Between
from mpc.gates.bound import Bound
from mpc.gates.convolution import Convolution
from mpc.gates.draw import Draw
from mpc.gates.fourier import Clamp, Fourier
from mpc.gates.gaussian import Gaussian
from mpc.gates.linear import Combine, Total, Weigh
from mpc.gates.matmul import Matmul
from mpc.gates.maximum import Maximum
from mpc.gates.moves import Concat, Reshape, Take
from mpc.gates.multiply import Multiply
from mpc.gates.onehot import OneHot
from mpc.gates.open import Open
from mpc.gates.pieces import Pieces
from mpc.gates.relu import Relu
from mpc.gates.rows import Rows
from mpc.gates.scatter import Scatter
from mpc.gates.select import Select
from mpc.gates.step import Step
from mpc.gates.truncate import Truncate
from mpc.plan.plan import Plan
from mpc.windows import Windows
from mpc.wires import Masking
from tests.support.plans import Builder, wire

B, BATCH = "batch", 4
DERIVED, INHERITED = {"masking": Masking.DERIVED}, {"masking": Masking.INHERITED}
UNOPENED, FLIPPED = {"masking": Masking.UNOPENED}, {"masking": Masking.FLIPPED}


@dataclass(frozen=True)
class Small:
    """A plan, its weights, and inputs for `BATCH` rows."""

    plan: Plan
    weights: dict[str, np.ndarray]
    inputs: dict[str, np.ndarray]


def _matmul(b: Builder) -> None:
    """With a weight and a bias, and of two wires; masks derived, drawn."""
    b.enter("x", (B, 3), 8)
    b.enter("w", (3, 2), 8, session=True)
    b.enter("c", (2,), 8, session=True)
    b.gate(Matmul(name="m", x="x", weight="w", bias="c", out="z"), wire("z", (B, 2), 20))
    b.gate(Matmul(name="n", x="x", weight="w", out="y"), wire("y", (B, 2), 20, **DERIVED))
    b.gate(Truncate(name="t", x="y", out="s", shift=2), wire("s", (B, 2), 19, Fraction(1, 4)))
    b.gate(Reshape(name="r", x="z", out="column"), wire("column", (B, 2, 1), 20, **INHERITED))
    b.gate(Reshape(name="q", x="x", out="row"), wire("row", (B, 1, 3), 8, **INHERITED))
    b.gate(Matmul(name="o", x="column", y="row", out="g"), wire("g", (B, 2, 3), 28))
    b.output("z", "s", "g")


def _convolution(b: Builder) -> None:
    b.enter("x", (B, 1, 4), 8)
    b.enter("w", (2, 1, 2), 8, session=True)
    windows = Windows(kernel=(2,), strides=(1,), dilations=(1,), pads=((1, 0),))
    b.gate(Convolution(name="m", x="x", weight="w", out="z", windows=windows), wire("z", (B, 2, 4), 20))
    b.gate(Convolution(name="n", x="x", weight="w", out="y", windows=windows), wire("y", (B, 2, 4), 20, **DERIVED))
    b.gate(Truncate(name="t", x="y", out="s", shift=2), wire("s", (B, 2, 4), 19, Fraction(1, 4)))
    b.output("z", "s")


def _multiply(b: Builder) -> None:
    b.enter("x", (B, 3), 8)
    b.enter("w", (3,), 8, session=True)
    b.gate(Multiply(name="m", x="x", weight="w", out="z"), wire("z", (B, 3), 20))
    b.gate(Multiply(name="n", x="z", y="x", out="y"), wire("y", (B, 3), 30, **DERIVED))
    b.gate(Truncate(name="t", x="y", out="s", shift=0), wire("s", (B, 3), 31))
    b.output("z", "s")


def _relu(b: Builder) -> None:
    """With a ceiling, and a bit by which it is chosen again; and compared on few bits."""
    b.enter("x", (B, 3), 12)
    b.enter("v", (B, 3), 12)
    b.gate(
        Relu(name="r", x="x", out="y", shift=2, bit="d", ceiling=99),
        wire("y", (B, 3), 10, Fraction(1, 4)),
        wire("d", (B, 3), 1, **FLIPPED),
    )
    b.gate(Select(name="s", x="v", bit="d", out="g", shift=2), wire("g", (B, 3), 11, Fraction(1, 4)))
    b.gate(Relu(name="t", x="v", out="h", shift=2, coarse=3, chunks=5), wire("h", (B, 3), 10, Fraction(1, 4)))
    b.output("y", "g", "h")


def _unopened(b: Builder) -> None:
    """What is left unopened by a ReLU is mapped by a public weight, and opened then."""
    b.enter("x", (B, 3), 12)
    b.enter("w", (3, 2), 8, session=True, public=True)
    b.gate(Relu(name="r", x="x", out="y", shift=2), wire("y", (B, 3), 10, Fraction(1, 4), **UNOPENED))
    b.gate(Matmul(name="m", x="y", weight="w", out="z"), wire("z", (B, 2), 22, Fraction(1, 4), **UNOPENED))
    b.gate(Open(name="o", x="z", out="g"), wire("g", (B, 2), 22, Fraction(1, 4)))
    b.output("g")


def _maximum(b: Builder) -> None:
    """Six candidates: two levels of AND nodes; and two beside zero, chosen directly and compared on few bits."""
    b.enter("x", (B, 6), 12)
    b.gate(
        Maximum(name="m", x="x", value="y", index="i", bit="d", shift=2),
        wire("y", (B, 1), 11, Fraction(1, 4)),
        wire("i", (B, 1), 8),
        wire("d", (B, 6), 1, **FLIPPED),
    )
    b.gate(Select(name="s", x="x", bit="d", out="g", shift=2), wire("g", (B, 6), 11, Fraction(1, 4)))
    index = Maximum(name="n", x="x", index="j", shift=0)
    b.gate(index, wire("j", (B, 1), 8))
    b.enter("v", (B, 2), 12)
    settings = {"rectify": True, "direct": True, "coarse": 3, "chunks": 4}
    b.gate(Maximum(name="o", x="v", value="k", shift=2, **settings), wire("k", (B, 1), 11, Fraction(1, 4)))
    b.output("y", "i", "g", "j", "k")


def _step(b: Builder) -> None:
    b.enter("x", (B, 2), 12)
    b.gate(Step(name="s", x="x", levels=(0, 99), shift=2, out="y"), wire("y", (B, 2, 2), 1))
    b.output("y")


def _pieces(b: Builder) -> None:
    """Nothing, another value, and the value itself, by where it lies."""
    b.enter("x", (B, 3), 12)
    b.enter("v", (B, 3), 14, Fraction(4))
    bits = [wire(name, (B, 3), 1, **FLIPPED) for name in ("d", "e")]
    b.gate(Between(name="b", x="x", bits=("d", "e"), levels=(-99, 99), shift=2), *bits)
    b.gate(
        Pieces(name="p", xs=("v", "x"), bits=("d", "e"), shifts=(4, 2), out="y"), wire("y", (B, 3), 11, Fraction(1, 4))
    )
    b.output("y")


def _bound(b: Builder) -> None:
    b.enter("x", (B, 2), 12)
    b.gate(Bound(name="b", x="x", width=8, shift=2, out="y"), wire("y", (B, 2), 8, Fraction(1, 4)))
    b.output("y")


def _onehot(b: Builder) -> None:
    b.enter("x", (B, 2), 2)
    b.gate(OneHot(name="o", x="x", number=3, out="y"), wire("y", (B, 2, 3), 1))
    b.output("y")


def _fourier(b: Builder) -> None:
    b.enter("x", (B, 2), 12)
    wave = {"window": 12, "constant": 5, "cosines": (9, -2), "sines": (1, 3), "dealt_bits": 10}
    clamp = Clamp(low=-999, high=999, below=-70000, above=70000, shift=2)
    table = tables.sincos_digest()
    b.gate(Fourier(name="f", x="x", out="y", table=table, **wave), wire("y", (B, 2), 20))
    b.gate(Fourier(name="c", x="x", out="z", table=table, clamp=clamp, **wave), wire("z", (B, 2), 20))
    b.output("y", "z")


def _noise(b: Builder) -> None:
    b.enter("x", (B, 2), 5)
    b.gate(
        Draw(name="d", thresholds=(1 << 6, 9), width=7, epsilon=Fraction(1, 3), out="n"), wire("n", (2,), 3, **UNOPENED)
    )
    b.gate(Gaussian(name="g", sigma=Fraction(5), epsilon=Fraction(1, 3), out="h"), wire("h", (2,), 8, **UNOPENED))
    b.gate(Rows(name="r", x="x", most=16, out="s"), wire("s", (2,), 9, **INHERITED))
    b.gate(Combine(name="c", xs=("s", "n", "h"), factors=(1, 1, -1), out="t"), wire("t", (2,), 11, **UNOPENED))
    b.gate(Open(name="o", x="t", out="u"), wire("u", (2,), 11))
    b.output("u")


def _maps(b: Builder) -> None:
    """Public linear maps, of which a product takes shares."""
    b.enter("x", (B, 3), 5)
    b.enter("w", (2,), 5, session=True)
    b.gate(Reshape(name="1", x="x", out="a"), wire("a", (B, 3), 5, **INHERITED))
    b.gate(Take(name="2", x="a", axis=1, indices=(2, -1, 0, 0), out="b"), wire("b", (B, 4), 5, **INHERITED))
    b.gate(Concat(name="3", xs=("b", "x"), axis=1, out="c"), wire("c", (B, 7), 5, **INHERITED))
    b.gate(Scatter(name="4", x="c", axis=1, indices=(0, 1, 0, -1, 1, 1, 0), out="d"), wire("d", (B, 2), 8, **INHERITED))
    b.gate(Weigh(name="5", x="d", axis=1, factors=(2, -3), out="e"), wire("e", (B, 2), 10, **INHERITED))
    b.gate(
        Combine(name="6", xs=("e",), factors=(3,), stored="w", constant=-9, out="f"), wire("f", (B, 2), 13, **INHERITED)
    )
    b.gate(Total(name="7", x="f", axes=(1,), out="g"), wire("g", (B, 1), 14, **INHERITED))
    b.gate(Multiply(name="8", x="f", y="g", out="h"), wire("h", (B, 2), 27))
    b.output("h")


def _at_once(b: Builder) -> None:
    """Every gate that compares, in a round less."""
    quarter, settings = Fraction(1, 4), {"shift": 2, "at_once": True}
    b.enter("x", (B, 2), 12)
    b.gate(
        Relu(name="r", x="x", out="y", bit="d", ceiling=99, **settings),
        wire("y", (B, 2), 10, quarter),
        wire("d", (B, 2), 1, **FLIPPED),
    )
    b.gate(Select(name="s", x="x", bit="d", out="g", shift=2), wire("g", (B, 2), 11, quarter))
    b.gate(Relu(name="t", x="x", out="h", coarse=3, chunks=5, **settings), wire("h", (B, 2), 10, quarter))
    b.gate(Maximum(name="m", x="x", value="k", rectify=True, **settings), wire("k", (B, 1), 11, quarter))
    b.gate(Step(name="l", x="x", levels=(0, 99), out="i", **settings), wire("i", (B, 2, 2), 1))
    bits = [wire(name, (B, 2), 1, **FLIPPED) for name in ("e", "f")]
    b.gate(Between(name="b", x="x", bits=("e", "f"), levels=(-99, 99), **settings), *bits)
    b.gate(Pieces(name="p", xs=("x", "x"), bits=("e", "f"), shifts=(4, 4), out="j"), wire("j", (B, 2), 9, quarter / 4))
    b.gate(Bound(name="w", x="x", width=8, out="u", **settings), wire("u", (B, 2), 8, quarter))
    wave = {"window": 12, "constant": 5, "cosines": (9,), "sines": (1,), "dealt_bits": 10}
    clamp, table = Clamp(low=-999, high=999, below=-70000, above=70000, shift=2), tables.sincos_digest()
    b.gate(Fourier(name="c", x="x", out="z", table=table, clamp=clamp, at_once=True, **wave), wire("z", (B, 2), 20))
    b.output("y", "g", "h", "k", "i", "j", "u", "z")


PLANS: dict[str, Callable[[Builder], None]] = {
    "at once": _at_once,
    "bound": _bound,
    "convolution": _convolution,
    "fourier": _fourier,
    "maps": _maps,
    "matmul": _matmul,
    "maximum": _maximum,
    "multiply": _multiply,
    "noise": _noise,
    "onehot": _onehot,
    "pieces": _pieces,
    "relu": _relu,
    "step": _step,
    "unopened": _unopened,
}


def small(name: str, seed: int = 0) -> Small:
    """Build one of them, with values that are small beside their bounds."""
    b = Builder()
    PLANS[name](b)
    plan, rng = b.build(), np.random.default_rng(seed)
    bound = plan.bind(BATCH)

    def values(wire_name: str) -> np.ndarray:
        limit = (1 << bound.wire[wire_name].bits) // 2
        return rng.integers(-limit, limit, bound.wire[wire_name].sizes)

    return Small(plan, {g.out: values(g.out) for g in plan.weights}, {g.out: values(g.out) for g in plan.entered})
