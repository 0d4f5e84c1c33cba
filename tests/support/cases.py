"""For every kind of gate a hypothesis strategy of plans, inputs and a judge.

The judge compares the reference's integers with the real-number function, within the error
that the gate's docstring declares; `Trial` compares the parties with the reference.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import accumulate

import numpy as np
from hypothesis import strategies as st

from mpc import tables
from mpc.gates.affine import Affine
from mpc.gates.fourier import Clamp, Fourier
from mpc.gates.linear import Combine, Concat, Reshape, Total
from mpc.gates.maximum import Maximum
from mpc.gates.multiply import Multiply
from mpc.gates.relu import Relu
from mpc.gates.truncate import Truncate
from mpc.wires import MAX_BITS, Masking
from tests.support.plans import Builder, Shape, wire
from tests.support.worlds import Arrays

Judge = Callable[[Arrays], None]
Draw = Callable[[st.SearchStrategy], object]


@dataclass
class Case:
    """One plan, and how to make values for it.

    Args:
        limits: input or weight -> (largest size of a value, step whose multiples are edges).
        judge: raises unless the reference is right.
    """

    builder: Builder
    limits: dict[str, tuple[int, int]]
    judge: Judge
    weights: Arrays = field(default_factory=dict)

    def values(self, name: str, batch: int, seed: int) -> np.ndarray:
        """Random integers of an input, edges among them."""
        shape = next(w for w in self.builder.wires if w.name == name).bind(batch).sizes
        limit, step = self.limits[name]
        return edgy(np.random.default_rng([seed, *name.encode()]), shape, limit, step)

    def inputs(self, batch: int, seed: int) -> Arrays:
        """Every input of a run."""
        return {given.name: self.values(given.name, batch, seed) for given in self.builder.inputs}


def edgy(rng: np.random.Generator, shape: tuple[int, ...], limit: int, step: int = 1) -> np.ndarray:
    """int64 with |v| <= limit: a third edges, a third of any magnitude, a third uniform."""
    near = (0, 1, step - 1, step, step + 1, limit // 2, limit - step, limit - 1, limit)
    edges = np.array(sorted({s * v for v in near for s in (1, -1) if 0 <= v <= limit}), dtype=np.int64)
    uniform = rng.integers(-limit, limit, size=shape, endpoint=True)
    anywhere = uniform >> rng.integers(0, max(1, limit.bit_length()), size=shape)
    kind = rng.integers(0, 3, size=shape)
    return np.choose(kind, [edges[rng.integers(0, edges.size, size=shape)], anywhere, uniform])


def shapes(least: int = 1, most: int = 3, side: int = 4) -> st.SearchStrategy[Shape]:
    """("batch", a, b ..)."""
    sides = st.lists(st.integers(1, side), min_size=least - 1, max_size=most - 1)
    return sides.map(lambda rest: ("batch", *rest))


scales = st.builds(Fraction, st.integers(1, 1 << 20), st.integers(1, 1 << 20))


def rounded(y: np.ndarray, x: np.ndarray, shift: int) -> None:
    """y is floor(x / 2^shift) or one more."""
    above = y - (x >> np.int64(shift))
    assert ((above == 0) | (above == 1)).all()


def _shifted(draw: Draw, most: int, least_left: int = 1) -> tuple[int, int]:
    """(bits, shift) with least_left <= bits - shift <= most, edges often."""
    left = draw(st.sampled_from([v for v in (1, 2, 6, 7, 12, 13, 24, 47, 48, most) if least_left <= v <= most]))
    shift = draw(st.one_of(st.sampled_from([0, 1, 58]), st.integers(0, 58)))
    shift = min(shift, MAX_BITS - left)
    return left + shift, shift


# ------------------------------------------------------------------------- the kinds


@st.composite
def input_case(draw: Draw) -> Case:
    bits, shape = draw(st.integers(1, 58)), draw(shapes())
    b = Builder()
    b.enter("x", shape, bits)
    b.gate(Truncate(name="t", x="x", out="y", shift=0), wire("y", shape, bits + 1))
    b.output("y")
    return Case(b, {"x": ((1 << bits) - 1, 1)}, lambda v: rounded(v["y"], v["x"], 0))


@st.composite
def truncate_case(draw: Draw) -> Case:
    bits, shift = _shifted(draw, MAX_BITS)
    shape, scale = draw(shapes()), draw(scales)
    out_bits = min(bits - shift + 1, MAX_BITS)
    limit = (1 << bits) - (1 if out_bits > bits - shift else 2)
    b = Builder()
    b.enter("x", shape, bits, scale)
    b.gate(Truncate(name="t", x="x", out="y", shift=shift), wire("y", shape, out_bits, scale / (1 << shift)))
    b.output("y")
    return Case(b, {"x": (limit, 1 << shift)}, lambda v: rounded(v["y"], v["x"], shift))


@st.composite
def relu_case(draw: Draw) -> Case:
    bits, shift = _shifted(draw, 48)
    shape, scale = draw(shapes()), draw(scales)
    b = Builder()
    b.enter("x", shape, bits, scale)
    b.gate(Relu(name="r", x="x", out="y", shift=shift), wire("y", shape, bits - shift, scale / (1 << shift)))
    b.output("y")

    def judge(v: Arrays) -> None:
        floor = v["x"] >> np.int64(shift)
        assert ((v["y"] == np.maximum(floor, 0)) | (v["y"] == np.maximum(floor + 1, 0))).all()

    return Case(b, {"x": ((1 << bits) - (1 << shift) - 1, 1 << shift)}, judge)


@st.composite
def multiply_case(draw: Draw) -> Case:
    shape = draw(shapes())
    x_bits = draw(st.integers(1, 58))
    y_bits = draw(st.one_of(st.just(MAX_BITS - x_bits), st.integers(1, MAX_BITS - x_bits)))
    thin, square, drawn = draw(st.booleans()), draw(st.booleans()), draw(st.booleans())
    b = Builder()
    b.enter("x", shape, x_bits, Fraction(1 << 4))
    limits = {"x": ((1 << x_bits) - 1, 1)}
    y = "x"
    if square and 2 * x_bits <= MAX_BITS:
        y_bits = x_bits
    else:
        y = b.enter("y", (*shape[:-1], 1) if thin else shape, y_bits, Fraction(1, 3))
        limits["y"] = ((1 << y_bits) - 1, 1)
    z_scale = Fraction(1 << 8) if y == "x" else Fraction(1 << 4, 3)
    masking = Masking.DRAWN if drawn else Masking.DERIVED
    b.gate(Multiply(name="m", x="x", y=y, out="z"), wire("z", shape, x_bits + y_bits, z_scale, masking=masking))
    _finish(b, "z", drawn)

    def judge(v: Arrays) -> None:
        assert (v["z"] == v["x"].astype(object) * v[y].astype(object)).all()

    return Case(b, limits, judge)


def _finish(b: Builder, name: str, drawn: bool) -> None:
    """Output a drawn wire, or the truncation of one that is not."""
    if drawn:
        b.output(name)
        return
    last = b.wires[-1]
    shift = 1 if last.bits > 1 else 0
    b.gate(
        Truncate(name="last", x=name, out="last", shift=shift),
        wire("last", last.shape, min(last.bits + 1, MAX_BITS), last.scale / (1 << shift)),
    )
    b.output("last")


@st.composite
def affine_case(draw: Draw) -> Case:
    shape = draw(shapes(least=2, most=3))
    k, columns = shape[-1], draw(st.integers(1, 9))
    x_bits, w_bits = draw(st.integers(1, 28)), draw(st.integers(1, 26))
    bits = x_bits + w_bits + int(k).bit_length() + 1
    with_bias, drawn, chained = draw(st.booleans()), draw(st.booleans()), draw(st.booleans())
    out: Shape = (*shape[:-1], columns)
    b = Builder()
    b.enter("w", (k, columns), w_bits, Fraction(1 << 9), session=True)
    limits = {"w": ((1 << w_bits) - 1, 1), "x": ((1 << x_bits) - 1, 1)}
    if with_bias:
        b.enter("b", (columns,), x_bits + w_bits, Fraction(1 << 14), session=True)
        limits["b"] = ((1 << (x_bits + w_bits)) - 1, 1)
    b.enter("x", shape, x_bits, Fraction(1 << 5))
    masking = Masking.DRAWN if drawn else Masking.DERIVED
    b.gate(
        Affine(name="a", x="x", weight="w", bias="b" if with_bias else None, out="z"),
        wire("z", out, bits, Fraction(1 << 14), masking=masking),
    )
    if chained and drawn and columns == k and bits + w_bits + 4 <= MAX_BITS:  # the drawn mask is multiplied again
        b.gate(
            Affine(name="a2", x="z", weight="w", out="z2"),
            wire("z2", out, bits + w_bits + 4, Fraction(1 << 23), masking=Masking.DERIVED),
        )
        _finish(b, "z2", False)
    else:
        _finish(b, "z", drawn)

    def judge(v: Arrays) -> None:
        z = v["x"].astype(object) @ v["w"].astype(object) + (v["b"].astype(object) if with_bias else 0)
        assert (v["z"] == z).all()
        if "z2" in v:
            assert (v["z2"] == z @ v["w"].astype(object)).all()

    return Case(b, limits, judge)


def _source(draw: Draw, b: Builder, name: str, shape: Shape, bits: int) -> tuple[int, int]:
    """An input, or (its mask derived) the product of it with a stored number; returns its limit."""
    if not draw(st.booleans()):
        b.enter(name, shape, bits)
        return (1 << bits) - 1, 1
    b.enter(f"{name}/in", shape, bits)
    b.gate(
        Multiply(name=f"by:{name}", x=f"{name}/in", y=f"{name}/in", out=name),
        wire(name, shape, 2 * bits, masking=Masking.DERIVED),
    )
    return (1 << bits) - 1, 1


def _add_source(
    draw: Draw, case: tuple[Builder, dict[str, tuple[int, int]]], name: str, shape: Shape, bits: int
) -> int:
    b, limits = case
    limit = _source(draw, b, name, shape, bits)
    derived = b.wires[-1].masking is Masking.DERIVED
    limits[f"{name}/in" if derived else name] = limit
    return b.wires[-1].bits


@st.composite
def reshape_case(draw: Draw) -> Case:
    shape = draw(shapes(least=2, most=4, side=3))
    axes = draw(st.one_of(st.none(), st.permutations(range(len(shape))).map(tuple)))
    b, limits = Builder(), {}
    bits = _add_source(draw, (b, limits), "x", shape, draw(st.integers(1, 28)))
    moved = shape if axes is None else tuple(shape[i] for i in axes)
    sizes = [d for d in moved if d != "batch"]
    flat = draw(st.booleans())
    # with the batch dimension wherever the axes put it: in the middle it can only stay there
    out: Shape = ("batch", int(np.prod(sizes))) if flat and moved[0] == "batch" else moved
    b.gate(Reshape(name="s", x="x", out="y", axes=axes), wire("y", out, bits, masking=Masking.INHERITED))
    _finish(b, "y", False)

    def judge(v: Arrays) -> None:
        x = v["x"] if axes is None else np.transpose(v["x"], axes)
        assert v["y"].reshape(-1).tolist() == x.reshape(-1).tolist()

    return Case(b, limits, judge)


@st.composite
def combine_case(draw: Draw) -> Case:
    shape = draw(shapes(least=1))
    count = draw(st.integers(1, 4))
    factor = st.integers(-(1 << 20), 1 << 20).filter(bool)
    factors = tuple(draw(st.lists(factor, min_size=count, max_size=count)))
    b, limits = Builder(), {}
    names, most = tuple(f"x{i}" for i in range(count)), 0
    for name, k in zip(names, factors, strict=True):
        narrow = draw(st.booleans()) and len(shape) > 1
        bits = _add_source(draw, (b, limits), name, (*shape[:-1], 1) if narrow else shape, draw(st.integers(1, 17)))
        most += abs(k) << bits
    out = wire("y", shape, most.bit_length(), Fraction(5, 7), masking=Masking.INHERITED)
    b.gate(Combine(name="c", xs=names, factors=factors, out="y"), out)
    _finish(b, "y", False)

    def judge(v: Arrays) -> None:
        total = sum(k * v[name].astype(object) for name, k in zip(names, factors, strict=True))
        assert (v["y"] == np.broadcast_to(total, v["y"].shape)).all()

    return Case(b, limits, judge)


@st.composite
def total_case(draw: Draw) -> Case:
    shape = draw(shapes(least=2, side=9))
    b, limits = Builder(), {}
    bits = _add_source(draw, (b, limits), "x", shape, draw(st.integers(1, 27)))
    b.gate(Total(name="s", x="x", out="y"), wire("y", (*shape[:-1], 1), bits + 4, masking=Masking.INHERITED))
    _finish(b, "y", False)

    def judge(v: Arrays) -> None:
        assert (v["y"][..., 0] == v["x"].astype(object).sum(axis=-1)).all()

    return Case(b, limits, judge)


@st.composite
def concat_case(draw: Draw) -> Case:
    head = draw(shapes(most=2))
    columns = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    b, limits = Builder(), {}
    names = tuple(f"x{i}" for i in range(len(columns)))
    widest = 0
    for name, width in zip(names, columns, strict=True):
        widest = max(widest, _add_source(draw, (b, limits), name, (*head, width), draw(st.integers(1, 28))))
    b.gate(Concat(name="j", xs=names, out="y"), wire("y", (*head, sum(columns)), widest, masking=Masking.INHERITED))
    _finish(b, "y", False)

    def judge(v: Arrays) -> None:
        for name, start, width in zip(names, accumulate([0, *columns]), columns, strict=False):
            assert (v["y"][..., start : start + width] == v[name]).all()

    return Case(b, limits, judge)


@st.composite
def maximum_case(draw: Draw, most: int = 18) -> Case:
    candidates = draw(st.sampled_from([n for n in (2, 3, 4, 5, 6, 9, 17, 18, most) if n <= most]))
    bits, shift = _shifted(draw, 47)
    wants = draw(st.sampled_from([("v",), ("i",), ("v", "i")]))
    last, head = draw(st.booleans()), draw(shapes(most=2, side=2))
    b = Builder()
    b.enter("x", (*head, candidates), bits, Fraction(1 << 10))
    written = {
        "v": wire("v", (*head, 1), bits - shift + 1, Fraction(1 << 10) / (1 << shift)),
        "i": wire("i", (*head, 1), 8),
    }
    gate = Maximum(
        name="m",
        x="x",
        value="v" if "v" in wants else None,
        index="i" if "i" in wants else None,
        shift=shift,
        last=last,
    )
    b.gate(gate, *(written[name] for name in wants))
    b.output(*wants)
    exact = shift == 0 and bits <= 20  # then a rounding up has probability 2^-40

    def judge(v: Arrays) -> None:
        floor = v["x"] >> np.int64(shift)
        best = floor.max(axis=-1)
        if "v" in wants:
            assert np.isin(v["v"][..., 0] - best, (0, 1)).all()
        if "i" in wants:
            chosen = np.take_along_axis(floor, v["i"], axis=-1)[..., 0]
            assert (chosen >= best - 1).all()
            if exact:
                place = floor.shape[-1] - 1 - floor[..., ::-1].argmax(-1) if last else floor.argmax(-1)
                assert (v["i"][..., 0] == place).all()

    return Case(b, {"x": ((1 << bits) - (1 << shift) - 1, 1 << shift)}, judge)


@st.composite
def fourier_case(draw: Draw) -> Case:
    window = draw(st.one_of(st.sampled_from([8, 23, 24, 25, 56]), st.integers(8, 56)))
    terms, dealt = draw(st.integers(1, 5)), draw(st.integers(4, 30))
    most = (1 << min(31, 54 - dealt)) // terms - 1
    coefficient = st.one_of(st.sampled_from([0, 1, -1, most, -most]), st.integers(-most, most))
    cosines, sines = (tuple(draw(st.lists(coefficient, min_size=terms, max_size=terms))) for _ in range(2))
    constant = draw(st.integers(-(1 << 56 - dealt), 1 << 56 - dealt))
    clamped = draw(st.booleans())
    bits = draw(st.integers(1, min(57, window + 1)))
    clamp = None
    if clamped:
        bits = draw(st.integers(1, 57))
        edges = draw(st.lists(st.integers(1 - (1 << bits), (1 << bits) - 1), min_size=2, max_size=2, unique=True))
        below, above = draw(st.integers(-(1 << 57), 1 << 57)), draw(st.integers(-(1 << 57), 1 << 57))
        shift = draw(st.integers(max(0, bits + 2 - 48), bits + 1))
        clamp = Clamp(low=min(edges), high=max(edges), below=below, above=above, shift=shift)
    shape = draw(shapes(most=2))
    b = Builder()
    b.enter("x", shape, bits, Fraction(1 << window, 7))
    gate = Fourier(
        name="f",
        x="x",
        out="z",
        window=window,
        constant=constant,
        cosines=cosines,
        sines=sines,
        dealt_bits=dealt,
        table=tables.sincos_digest(),
        clamp=clamp,
    )
    b.gate(gate, wire("z", shape, MAX_BITS, Fraction(3, 5)))
    b.output("z")
    return Case(b, {"x": ((1 << bits) - 1, 1 << window)}, lambda v: judge_fourier(gate, v["x"], v["z"]))


def judge_fourier(gate: Fourier, x: np.ndarray, z: np.ndarray) -> None:
    """z is the series at x, within the error of its integer tables, or beyond the clamp a constant."""
    unit, series, slack = 2.0**gate.dealt_bits, np.full(x.shape, float(gate.constant)), 0.0
    for j, (a, b) in enumerate(zip(gate.cosines, gate.sines, strict=True), 1):
        turns = (x.astype(object) * j) % (1 << gate.window)
        angle = turns.astype(np.float64) * (2 * np.pi / (1 << gate.window))
        series += (a * np.cos(angle) + b * np.sin(angle)) * unit
        size = abs(a) + abs(b)
        wrong_angle = 2 * (np.pi / (1 << 24)) + 2 * np.pi * j / (1 << gate.window)  # two look-ups; the wrap
        slack += size * unit * (wrong_angle + 8 / (1 << 30)) + 2 * size + 2 * unit
    near = np.abs(z - series) <= slack + 1e-9 * np.abs(series) + 1
    if gate.clamp is None:
        assert near.all()
        return
    clamp = gate.clamp
    fuzzy = 1 << clamp.shift  # rounding up moves a value that is less than this below a threshold
    inside = near & (x >= clamp.low - fuzzy) & (x < clamp.high)
    over = (z == clamp.above) & (x >= clamp.high - fuzzy)
    under = (z == clamp.below) & (x < clamp.low)
    assert (inside | over | under).all()


CASES: dict[str, st.SearchStrategy[Case]] = {
    "affine": affine_case(),
    "combine": combine_case(),
    "concat": concat_case(),
    "fourier": fourier_case(),
    "input": input_case(),
    "maximum": maximum_case(),
    "multiply": multiply_case(),
    "relu": relu_case(),
    "reshape": reshape_case(),
    "total": total_case(),
    "truncate": truncate_case(),
}
"""A new gate needs its case here; `tests/gates/test_every_gate.py` fails without one."""
