"""For every kind of gate a hypothesis strategy of plans, inputs and a judge.

The judge compares the reference's integers with the real-number function, within the error
that the gate's docstring declares; `Trial` compares the parties with the reference.
"""

from __future__ import annotations

from fractions import Fraction
from math import inf

import numpy as np
from hypothesis import strategies as st

from mpc import tables
from mpc.gates.bound import Bound
from mpc.gates.draw import WORD_BITS, Draw
from mpc.gates.fourier import Clamp, Fourier
from mpc.gates.gaussian import Gaussian
from mpc.gates.linear import Combine
from mpc.gates.maximum import Maximum
from mpc.gates.onehot import OneHot
from mpc.gates.open import Open
from mpc.gates.relu import Relu
from mpc.gates.select import Select
from mpc.gates.step import Step
from mpc.gates.truncate import Truncate
from mpc.gaussian import reach
from mpc.wires import MAX_BITS, Masking
from tests.support.bilinear_cases import convolution_case, matmul_case, multiply_case
from tests.support.case import Case, Limits, add_unopened, finish, how_compared, rounded, scales, shapes, shifted
from tests.support.case import Draw as Drawing
from tests.support.linear_cases import (
    combine_case,
    concat_case,
    reshape_case,
    rows_case,
    scatter_case,
    take_case,
    total_case,
    weigh_case,
)
from tests.support.piecewise_cases import between_case, pieces_case
from tests.support.plans import Builder, wire
from tests.support.worlds import Arrays


@st.composite
def input_case(draw: Drawing) -> Case:
    bits, shape = draw(st.integers(1, 58)), draw(shapes())
    b = Builder()
    b.enter("x", shape, bits)
    b.gate(Truncate(name="t", x="x", out="y", shift=0), wire("y", shape, bits + 1))
    b.output("y")
    return Case(b, {"x": ((1 << bits) - 1, 1)}, lambda v: rounded(v["y"], v["x"], 0))


@st.composite
def truncate_case(draw: Drawing) -> Case:
    bits, shift = shifted(draw, MAX_BITS)
    shape, scale = draw(shapes()), draw(scales)
    out_bits = min(bits - shift + 1, MAX_BITS)
    limit = (1 << bits) - (1 if out_bits > bits - shift else 2)
    b = Builder()
    b.enter("x", shape, bits, scale)
    mask = draw(st.sampled_from([Masking.DRAWN, Masking.UNOPENED]))
    out = wire("y", shape, out_bits, scale / (1 << shift), masking=mask)
    b.gate(Truncate(name="t", x="x", out="y", shift=shift), out)
    finish(b, "y", mask is Masking.DRAWN)
    return Case(b, {"x": (limit, 1 << shift)}, lambda v: rounded(v["y"], v["x"], shift))


@st.composite
def relu_case(draw: Drawing) -> Case:
    bits, shift = shifted(draw, 48)
    shape, scale = draw(shapes()), draw(scales)
    room = (1 << bits - shift) - 1
    ceiling = (
        draw(st.one_of(st.none(), st.sampled_from([1, room // 2]), st.integers(1, room - 1))) if room > 1 else None
    )
    bit, mask = draw(st.booleans()), draw(st.sampled_from([Masking.DRAWN, Masking.UNOPENED]))
    coarse = 0 if ceiling else draw(st.integers(0, min(bits - shift - 1, 6)))
    drop = shift + coarse
    cut = draw(how_compared(bits - drop))
    b = Builder()
    b.enter("x", shape, bits, scale)
    out = wire("y", shape, bits - shift, scale / (1 << shift), masking=mask)
    settings = {"shift": shift, "ceiling": ceiling or None, "coarse": coarse, **cut}
    gate = Relu(name="r", x="x", out="y", bit="d" if bit else None, **settings)
    b.gate(gate, out, *[wire("d", shape, 1, masking=Masking.FLIPPED)] * bit)
    finish(b, "y", mask is Masking.DRAWN)

    def judge(v: Arrays) -> None:
        either = [(v["x"] >> np.int64(shift)) + more for more in (0, 1)]
        above = [(v["x"] >> np.int64(drop)) + more >= 0 for more in (0, 1)]
        if coarse:
            passed = (v["y"] == either[0]) | (v["y"] == either[1])
            assert ((passed & above[1]) | ((v["y"] == 0) & ~above[0])).all()
        else:
            clipped = [np.clip(floor, 0, ceiling or None) for floor in either]
            assert ((v["y"] == clipped[0]) | (v["y"] == clipped[1])).all()
        if bit and coarse:
            assert ((v["d"] == above[0]) | (v["d"] == above[1])).all()
        elif bit:
            inside = [(floor >= 0) & (floor < (ceiling or 1 << 60)) for floor in either]
            assert ((v["d"] == inside[0]) | (v["d"] == inside[1])).all()

    limit = (1 << bits) - (1 + (ceiling or 0) << drop) - 1
    return Case(b, {"x": (limit, 1 << shift)}, judge, {"x": [(ceiling or 0) << shift]})


@st.composite
def select_case(draw: Drawing) -> Case:
    """A gradient that passes where a ReLU's value is inside, or at the first of the largest of a row."""
    among, shape = draw(st.booleans()), draw(shapes(least=2))
    compared = draw(st.sampled_from([3, 7, 20]))
    bits, shift = shifted(draw, 57)
    b = Builder()
    b.enter("z", shape, compared)
    b.enter("x", (*shape[:-1], 1) if among else shape, bits, 5)
    flipped = wire("d", shape, 1, masking=Masking.FLIPPED)
    ceiling = draw(st.sampled_from([None, 1, 2])) if not among else None
    if among and shape[-1] == 1:
        among = False
    if among:
        largest = Maximum(name="m", x="z", value="y", bit="d", shift=0, rectify=draw(st.booleans()))
        b.gate(largest, wire("y", (*shape[:-1], 1), compared + 1), flipped)
    else:
        b.gate(Relu(name="r", x="z", out="y", shift=0, bit="d", ceiling=ceiling), wire("y", shape, compared), flipped)
    twice = draw(st.booleans())
    for name in ["g", "h"] if twice else ["g"]:
        out = wire(name, shape, min(bits - shift + 1, MAX_BITS), Fraction(5, 1 << shift))
        b.gate(Select(name=f"s{name}", x="x", bit="d", out=name, shift=shift), out)
        b.output(name)

    def judge(v: Arrays) -> None:
        floor = v["x"] >> np.int64(shift)
        if among:
            passes = np.arange(shape[-1]) == v["z"].argmax(axis=-1)[..., None]
            passes &= (v["z"] >= 0) | (not largest.rectify)
        else:
            passes = (v["z"] >= 0) & (v["z"] < (ceiling or 1 << 60))
        for name in ["g", "h"] if twice else ["g"]:
            if shift == 0:
                assert (v[name] == passes * v["x"]).all()
            assert ((v[name] == passes * floor) | (v[name] == passes * (floor + 1))).all()

    edge = (1 << bits) - (1 << shift) - 1 if bits - shift + 1 > MAX_BITS else (1 << bits) - 1
    return Case(b, {"z": ((1 << compared) - 4, 1), "x": (edge, 1 << shift)}, judge)


@st.composite
def maximum_case(draw: Drawing, most: int = 18) -> Case:
    bits, shift = shifted(draw, 47)
    wants = draw(st.sampled_from([("v",), ("i",), ("v", "i"), ("rectified",)]))
    rectify = wants == ("rectified",)
    wants = ("v",) if rectify else wants
    few = (2, 2, 3, 4) if rectify else ()  # so that all of a row are negative at times
    candidates = draw(st.sampled_from([*few, *(n for n in (2, 3, 4, 5, 6, 9, 17, 18, most) if n <= most)]))
    if shift and "i" in wants:  # rounded values have to have room for so many
        candidates = min(candidates, (1 << min(bits - shift, 5)) - 1)
        if candidates < 2:
            shift = min(shift, MAX_BITS - 2)
            bits, candidates = shift + 2, 2
    last, head = draw(st.booleans()), draw(shapes(most=2, side=2))
    mask = draw(st.sampled_from([Masking.DRAWN, Masking.UNOPENED]))
    bit = not last and draw(st.booleans())
    coarse = 0 if "i" in wants else draw(st.sampled_from(range(min(bits - shift, 7))))
    b = Builder()
    b.enter("x", (*head, candidates), bits, Fraction(1 << 10))
    written = {
        "v": wire("v", (*head, 1), bits - shift + 1, Fraction(1 << 10) / (1 << shift), masking=mask),
        "i": wire("i", (*head, 1), 8),
    }
    gate = Maximum(
        name="m",
        x="x",
        value="v" if "v" in wants else None,
        index="i" if "i" in wants else None,
        shift=shift,
        last=last,
        rectify=rectify,
        bit="d" if bit else None,
        coarse=coarse,
        **draw(how_compared(bits - shift - coarse + 1)),
        direct=rectify and candidates == 2 and not bit and draw(st.booleans()),
    )
    flipped = [wire("d", (*head, candidates), 1, masking=Masking.FLIPPED)] * bit
    b.gate(gate, *(written[name] for name in wants), *flipped)
    if mask is Masking.UNOPENED and "v" in wants:
        b.gate(Open(name="o", x="v", out="v^"), wire("v^", written["v"].shape, written["v"].bits, written["v"].scale))
    b.output(*("v^" if name == "v" and mask is Masking.UNOPENED else name for name in wants))
    exact = shift == 0 and bits <= 20  # then a rounding up has probability 2^-40

    def judge(v: Arrays) -> None:
        floor = v["x"] >> np.int64(shift)
        best = floor.max(axis=-1)
        if coarse:
            judge_coarse(gate, v)
            return
        if bit:
            count = v["d"].sum(axis=-1)
            assert (count <= 1).all() and (count[best >= 0] == 1).all() and (rectify or (count == 1).all())
            if "i" in wants:
                assert (v["d"].argmax(axis=-1) == v["i"][..., 0]).all()
        if "v" in wants:
            either = [np.maximum(best + d, 0) if rectify else best + d for d in (0, 1)]
            if shift and "i" in wants:  # the value of the place that was found
                found = np.take_along_axis(floor, v["i"], axis=-1)[..., 0]
                either = [found, found + 1]
            assert ((v["v"][..., 0] == either[0]) | (v["v"][..., 0] == either[1])).all()
        if "i" in wants:
            chosen = np.take_along_axis(floor, v["i"], axis=-1)[..., 0]
            assert (chosen >= best - (candidates if shift else 1)).all()
            equal = v["x"] == np.take_along_axis(v["x"], v["i"], axis=-1)
            places = np.arange(candidates)
            before = equal & (places > v["i"] if last else places < v["i"])
            assert not before.any()  # of equal values the first, whatever is rounded off
            if exact:
                place = floor.shape[-1] - 1 - floor[..., ::-1].argmax(-1) if last else floor.argmax(-1)
                assert (v["i"][..., 0] == place).all()

    room = candidates if shift and "i" in wants else 1
    return Case(b, {"x": ((1 << bits) - (room << shift + coarse) - 1, 1 << shift)}, judge)


def judge_coarse(gate: Maximum, v: Arrays) -> None:
    """The value is that of one whose coarse value is the largest, if that is not negative where it has to be."""
    floor, compared = v["x"] >> np.int64(gate.shift), v["x"] >> np.int64(gate.shift + gate.coarse)
    best = compared.max(axis=-1, keepdims=True)
    fits = (compared + 1 >= best) & ((compared + 1 >= 0) | (not gate.rectify))
    none = (v["v"][..., 0] == 0) & gate.rectify & (best[..., 0] < gate.last)  # zero is the last
    chosen = fits & ((v["v"] == floor) | (v["v"] == floor + 1))
    assert (chosen.any(axis=-1) | none).all()
    if gate.bit is not None:
        assert ((v["d"] == 0) | chosen).all()
        assert ((v["d"].sum(axis=-1) == 1) | none).all()


@st.composite
def step_case(draw: Drawing) -> Case:
    levelled = draw(st.booleans())
    left, shift = shifted(draw, 48)  # of x - level, whose bound is one or two bits above x's
    room = 2 if levelled else 1
    left, shift = max(left, room + 1), min(shift, 57)
    bits = left - room
    limit = (1 << bits) - 1
    level = st.one_of(st.sampled_from([0, 1, limit, -limit, limit >> 1]), st.integers(-limit, limit))
    levels = tuple(draw(st.lists(level, min_size=1, max_size=5))) if levelled else (0,) * draw(st.integers(1, 2))
    if levelled and not any(levels):
        levels = (*levels, 1)
    shape = draw(st.one_of(shapes(), st.just(())))
    b = Builder()
    b.enter("x", shape, bits, Fraction(1 << 7))
    gate = Step(name="s", x="x", levels=levels, shift=shift, out="y", **draw(how_compared(left - shift)))
    mask = draw(st.sampled_from([Masking.DRAWN, Masking.UNOPENED]))
    b.gate(gate, wire("y", (*shape, len(levels)), draw(st.integers(1, 3)), draw(scales), masking=mask))
    finish(b, "y", mask is Masking.DRAWN)
    # where x + r wraps, about once in 2^(61 - left), the sum is one more
    fuzzy = (1 << shift) - 1 if shift else int(left > 20)

    def judge(v: Arrays) -> None:
        above = v["x"][..., None] - np.array(levels)
        assert np.isin(v["y"], (0, 1)).all()
        assert ((v["y"] == (above >= 0)) | ((v["y"] == 1) & (above >= -fuzzy))).all()

    return Case(b, {"x": (limit, 1 << shift)}, judge, {"x": list(levels)})


@st.composite
def fourier_case(draw: Drawing) -> Case:
    window = draw(st.one_of(st.sampled_from([8, 23, 24, 25, 56]), st.integers(8, 56)))
    terms, dealt = draw(st.integers(1, 5)), draw(st.integers(4, 30))
    most = (1 << min(31, 54 - dealt)) // terms - 1
    coefficient = st.one_of(st.sampled_from([0, 1, -1, most, -most]), st.integers(-most, most))
    cosines, sines = (tuple(draw(st.lists(coefficient, min_size=terms, max_size=terms))) for _ in range(2))
    constant = draw(st.integers(-(1 << 56 - dealt), 1 << 56 - dealt))
    clamped, fine = draw(st.booleans()), draw(st.sampled_from([0, 1, 12]))
    bits = draw(st.integers(1, MAX_BITS))
    clamp = None
    if clamped:
        bits = draw(st.integers(1, 57))
        edges = draw(st.lists(st.integers(1 - (1 << bits), (1 << bits) - 1), min_size=2, max_size=2, unique=True))
        below, above = draw(st.integers(-(1 << 57), 1 << 57)), draw(st.integers(-(1 << 57), 1 << 57))
        shift = draw(st.integers(max(0, bits + 2 - 48), bits + 1))
        low, high = draw(st.sampled_from([(0, 1), (0, None), (None, 1)]))
        ends = {"low": None if low is None else min(edges), "high": None if high is None else max(edges)}
        clamp = Clamp(**ends, below=below, above=above, shift=shift)
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
        fine=fine,
        **({} if clamp is None else draw(how_compared(bits + 2 - clamp.shift))),
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
        a, b = a / 2**gate.fine, b / 2**gate.fine
        series += (a * np.cos(angle) + b * np.sin(angle)) * unit
        size = abs(a) + abs(b) + bool(gate.fine)
        wrong_angle = 2 * (np.pi / (1 << 24)) + 2 * np.pi * j / (1 << gate.window)  # two look-ups; the wrap
        slack += size * unit * (wrong_angle + 8 / (1 << 30)) + 2 * size + 2 * unit
    near = np.abs(z - series) <= slack + 1e-9 * np.abs(series) + 1
    if gate.clamp is None:
        assert near.all()
        return
    clamp = gate.clamp
    fuzzy = 1 << clamp.shift  # rounding up moves a value that is less than this below a threshold
    low, high = (-inf if clamp.low is None else clamp.low), (inf if clamp.high is None else clamp.high)
    inside = near & (x >= low - fuzzy) & (x < high)
    over = (z == clamp.above) & (x >= high - fuzzy)
    under = (z == clamp.below) & (x < low)
    assert (inside | over | under).all()


@st.composite
def open_case(draw: Drawing) -> Case:
    """One unopened wire, opened once or twice."""
    bits, shape, limits = draw(st.integers(1, 48)), draw(shapes()), Limits()
    b = Builder()
    add_unopened(b, limits, "x", shape, bits)
    names = ["y", "z"][: draw(st.integers(1, 2))]
    for name in names:
        b.gate(Open(name=f"open:{name}", x="x", out=name), wire(name, shape, bits))
    b.output(*names)

    def judge(v: Arrays) -> None:
        assert all((v[name] == np.maximum(v["x/in"], 0)).all() or bits > 20 for name in names)

    return Case(b, limits, judge)


@st.composite
def bound_case(draw: Drawing) -> Case:
    """Values in range, and beyond it on either side."""
    shift = draw(st.one_of(st.sampled_from([0, 1, 12]), st.integers(0, 57)))
    width = draw(st.sampled_from([w for w in (1, 2, 6, 7, 12, 16, 20, 47, 48) if w + shift <= 61]))
    bits, shape, scale = draw(st.integers(1, MAX_BITS)), draw(shapes()), draw(scales)
    b = Builder()
    b.enter("x", shape, bits, scale)
    mask = draw(st.sampled_from([Masking.DRAWN, Masking.UNOPENED]))
    out = wire("y", shape, draw(st.integers(width, MAX_BITS)), scale / (1 << shift), masking=mask)
    b.gate(Bound(name="b", x="x", out="y", width=width, shift=shift, **draw(how_compared(width))), out)
    finish(b, "y", mask is Masking.DRAWN)

    def judge(v: Arrays) -> None:
        x, y, floor = v["x"], v["y"], v["x"] >> np.int64(shift)
        assert (y >= 0).all() and (y < 1 << width).all()
        fits = (x >= 0) & (floor < (1 << width) - 1)
        assert ((y == floor) | ((y == floor + 1) & (shift > 0 or bits > 20)))[fits].all()

    return Case(b, {"x": ((1 << bits) - 1, 1 << shift)}, judge, {"x": [(1 << width) << shift]})


@st.composite
def onehot_case(draw: Drawing) -> Case:
    """Classes, and numbers that are none: at most one bit is set, whatever the number is."""
    number, bits, shape = draw(st.integers(2, 40)), draw(st.integers(1, MAX_BITS)), draw(shapes())
    b = Builder()
    b.enter("x", shape, bits)
    mask = draw(st.sampled_from([Masking.DRAWN, Masking.UNOPENED]))
    out = wire("y", (*shape, number), draw(st.integers(1, 5)), draw(scales), masking=mask)
    b.gate(OneHot(name="b", x="x", out="y", number=number), out)
    finish(b, "y", mask is Masking.DRAWN)
    width = (number - 1).bit_length()

    def judge(v: Arrays) -> None:
        x, y = v["x"], v["y"]
        assert ((y == 0) | (y == 1)).all() and (y.sum(axis=-1) <= 1).all()
        one = x[..., None] & ((1 << width) - 1) == np.arange(number)
        if bits <= 20:
            np.testing.assert_array_equal(y, one)

    return Case(b, {"x": ((1 << bits) - 1, 1)}, judge, {"x": [number - 1, 1 << width]})


@st.composite
def draw_case(draw: Drawing) -> Case:
    """Noise alone, or on what an owner enters; with as many elements as rows too."""
    width = draw(st.sampled_from([1, 2, 7, 42, WORD_BITS]))
    shape = draw(st.sampled_from([(), (2,), ("batch", 2), (1, 3)]))
    threshold = st.one_of(st.sampled_from([0, 1, (1 << width) - 1]), st.integers(0, (1 << width) - 1))
    thresholds = tuple(draw(st.lists(threshold, min_size=1, max_size=4)))
    b, added = Builder(), draw(st.booleans())
    if added:
        b.enter("x", shape, 5)
    gate = Draw(name="d", out="n", thresholds=thresholds, epsilon=Fraction(1, 3), width=width)
    b.gate(gate, wire("n", shape, 5, masking=Masking.UNOPENED))
    if added:
        b.gate(Combine(name="c", xs=("x", "n"), factors=(1, -1), out="s"), wire("s", shape, 6))
    finish(b, "s" if added else "n", False)

    def judge(v: Arrays) -> None:
        sure = [j for j, level in enumerate(thresholds) if level == 0]  # digits that are never one
        assert (np.abs(v["n"]) < 1 << len(thresholds)).all()
        if len(sure) == len(thresholds):
            assert not v["n"].any()

    return Case(b, {"x": (31, 1)} if added else {}, judge)


@st.composite
def gaussian_case(draw: Drawing) -> Case:
    """Noise alone, or on what an owner enters."""
    sigma = draw(st.sampled_from([Fraction(1, 64), Fraction(3, 2), Fraction(40)]))
    shape = draw(st.sampled_from([(), (2,), ("batch", 2), (1, 3)]))
    b, added = Builder(), draw(st.booleans())
    if added:
        b.enter("x", shape, 5)
    b.gate(
        Gaussian(name="g", sigma=sigma, epsilon=Fraction(1, 3), out="n"), wire("n", shape, 11, masking=Masking.UNOPENED)
    )
    if added:
        b.gate(Combine(name="c", xs=("x", "n"), factors=(1, -1), out="s"), wire("s", shape, 12))
    finish(b, "s" if added else "n", False)

    def judge(v: Arrays) -> None:
        assert (np.abs(v["n"]) <= 2 * reach(sigma)).all()

    return Case(b, {"x": (31, 1)} if added else {}, judge)


CASES: dict[str, st.SearchStrategy[Case]] = {
    "between": between_case(),
    "bound": bound_case(),
    "combine": combine_case(),
    "concat": concat_case(),
    "convolution": convolution_case(),
    "draw": draw_case(),
    "fourier": fourier_case(),
    "gaussian": gaussian_case(),
    "input": input_case(),
    "matmul": matmul_case(),
    "maximum": maximum_case(),
    "multiply": multiply_case(),
    "onehot": onehot_case(),
    "open": open_case(),
    "pieces": pieces_case(),
    "relu": relu_case(),
    "reshape": reshape_case(),
    "rows": rows_case(),
    "scatter": scatter_case(),
    "select": select_case(),
    "step": step_case(),
    "take": take_case(),
    "total": total_case(),
    "truncate": truncate_case(),
    "weigh": weigh_case(),
}
"""A new gate needs its case here; `tests/gates/test_every_gate.py` fails without one."""
