"""Cases of gates that find the piece of a function in which a value lies, and add up what the pieces are."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import strategies as st

from mpc.gates.between import Between
from mpc.gates.pieces import Pieces
from mpc.gates.select import Select
from mpc.wires import MAX_BITS, Masking
from tests.support.case import Case, how_compared, shapes
from tests.support.case import Draw as Drawing
from tests.support.plans import Builder, Shape, wire
from tests.support.worlds import Arrays

Found = tuple[list[int], int, list[str]]
"""Levels, the comparison's shift, the wires of the bits."""


def add_between(draw: Drawing, b: Builder, shape: Shape, bits: int) -> Found:
    """Compare x of so many bits with some levels."""
    most = (1 << bits) - 1
    edges = [0, 1, -1, most, -most]
    level = st.one_of(st.sampled_from(edges), st.integers(-most, most))
    levels = sorted(draw(st.sets(level, min_size=1, max_size=3)))
    compared = bits + (2 if any(levels) else 1)
    shift = draw(st.sampled_from([s for s in (0, 1, 3, 9, compared - 1) if s < compared and compared - s <= 48]))
    names = [f"d{place}" for place in range(len(levels))]
    gate = Between(name="b", x="x", bits=names, levels=levels, shift=shift, **draw(how_compared(compared - shift)))
    b.gate(gate, *(wire(name, shape, 1, masking=Masking.FLIPPED) for name in names))
    return levels, shift, names


def judge_bits(v: Arrays, found: Found) -> None:
    """Hold the bits to what they say: of each value one at most, and the right one but for less than 2^shift."""
    levels, shift, names = found
    total, room = sum(v[name] for name in names), (1 << shift) - 1
    for place, name in enumerate(names):
        above = sum(v[later] for later in names[place:])  # x is at least this level
        x = v["x"] - levels[place]
        assert ((v[name] == 0) | (v[name] == 1)).all()
        assert (above[x >= 0] == 1).all() and (above[x < -room] == 0).all()
    assert (total <= 1).all()


@st.composite
def between_case(draw: Drawing) -> Case:
    bits, shape = draw(st.sampled_from([1, 3, 6, 17, 24, 46])), draw(shapes())
    b = Builder()
    b.enter("x", shape, bits)
    b.enter("v", shape, 9)
    found = add_between(draw, b, shape, bits)
    for name in found[2]:
        b.gate(Select(name=f"s{name}", x="v", bit=name, shift=0, out=f"o{name}"), wire(f"o{name}", shape, 10))
        b.output(f"o{name}")

    def judge(v: Arrays) -> None:
        judge_bits(v, found)
        for name in found[2]:
            assert (v[f"o{name}"] == v[name] * v["v"]).all()

    return Case(b, {"x": ((1 << bits) - 1, 1), "v": ((1 << 9) - 1, 1)}, judge, {"x": found[0]})


@st.composite
def pieces_case(draw: Drawing) -> Case:
    """Of x itself and of values beside it, each at a scale of its own."""
    bits, shape, out_bits = draw(st.sampled_from([3, 17, 40])), draw(shapes()), draw(st.sampled_from([2, 12, 40]))
    b = Builder()
    b.enter("x", shape, bits, Fraction(3))
    xs, shifts, limits, edges = [], [], {"x": ((1 << bits) - 1, 1)}, {}
    found = add_between(draw, b, shape, bits)
    edges["x"] = found[0]
    own = draw(st.integers(1, bits - 1))
    for name in found[2]:
        if draw(st.booleans()):
            xs.append("x")
            shifts.append(own)
            continue
        shift = draw(st.integers(1, MAX_BITS - out_bits))
        xs.append(f"v{name}")
        shifts.append(shift)
        b.enter(xs[-1], shape, out_bits + shift, Fraction(3 << shift, 1 << own))
        limits[xs[-1]] = ((1 << out_bits + shift) - 1, 1 << shift)
    room = min(MAX_BITS, max(bits - own, out_bits) + 1)
    out = wire("y", shape, room, Fraction(3, 1 << own))
    b.gate(Pieces(name="p", xs=xs, bits=found[2], shifts=shifts, out="y"), out)
    b.output("y")

    def judge(v: Arrays) -> None:
        judge_bits(v, found)
        floors = sum(v[bit] * (v[x] >> np.int64(s)) for x, bit, s in zip(xs, found[2], shifts, strict=True))
        chosen = sum(v[bit] for bit in found[2])
        assert ((v["y"] == floors) | (v["y"] == floors + chosen)).all()

    return Case(b, limits, judge, edges)
