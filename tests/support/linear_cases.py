"""Cases of the free gates, on wires whose masks are known or derived."""

from __future__ import annotations

from fractions import Fraction
from itertools import accumulate
from math import prod

import numpy as np
from hypothesis import strategies as st

from mpc.gates.linear import Combine, Total, Weigh
from mpc.gates.moves import Concat, Reshape, Take
from mpc.gates.rows import Rows
from mpc.gates.scatter import Scatter
from mpc.wires import Masking, broadcast
from tests.support.case import Case, Draw, Limits, add_source, finish, shapes, thinned
from tests.support.plans import Builder, Shape, wire
from tests.support.worlds import Arrays

INHERITED = {"masking": Masking.INHERITED}
factor = st.one_of(st.sampled_from([1, -1, 2]), st.integers(-(1 << 20), 1 << 20).filter(bool))


def inner_axis(draw: Draw, shape: Shape) -> int:
    """Any axis but the batch's."""
    return draw(st.integers(1, len(shape) - 1))


@st.composite
def reshape_case(draw: Draw) -> Case:
    shape = draw(shapes(least=2, most=4, side=3))
    axes = draw(st.one_of(st.none(), st.permutations(range(len(shape))).map(tuple)))
    b, limits = Builder(), {}
    bits = add_source(draw, b, limits, "x", shape, draw(st.integers(1, 28)))
    moved = shape if axes is None else tuple(shape[i] for i in axes)
    sizes = [d for d in moved if d != "batch"]
    flat = draw(st.booleans())
    # with the batch dimension wherever the axes put it: in the middle it can only stay there
    out: Shape = ("batch", int(np.prod(sizes))) if flat and moved[0] == "batch" else moved
    b.gate(Reshape(name="s", x="x", out="y", axes=axes), wire("y", out, bits, **INHERITED))
    finish(b, "y", False)

    def judge(v: Arrays) -> None:
        x = v["x"] if axes is None else np.transpose(v["x"], axes)
        assert v["y"].reshape(-1).tolist() == x.reshape(-1).tolist()

    return Case(b, limits, judge)


@st.composite
def combine_case(draw: Draw) -> Case:
    """Any number of operands, none too; a stored addend; a public constant."""
    shape = draw(st.one_of(shapes(least=1), st.just(())))
    count, scale = draw(st.integers(0, 4)), Fraction(5, 7)
    stored = count == 0 or draw(st.booleans())
    factors = tuple(draw(st.lists(factor, min_size=count, max_size=count)))
    constant = draw(st.sampled_from([0, 0, 1, -1, (1 << 38) - 1, -(1 << 38)]))
    b, limits = Builder(), Limits()
    names = tuple(f"x{i}" for i in range(count))
    own: list[Shape] = [draw(st.one_of(st.just(shape), thinned(shape))) for _ in names]
    most = abs(constant)
    if stored:
        b.enter("w", draw(thinned(shape, batch=False)), 20, scale, session=True, public=draw(st.booleans()))
        limits["w"] = ((1 << 20) - 1, 1)
        own.append(b.wires[-1].shape)
        most += 1 << 20
    for name, k, part in zip(names, factors, own, strict=False):
        most += abs(k) << add_source(draw, b, limits, name, part, draw(st.integers(1, 17)))
    out: Shape = shape if not names else broadcast(*own)
    gate = Combine(name="c", xs=names, factors=factors, stored="w" if stored else None, constant=constant, out="y")
    b.gate(gate, wire("y", out, most.bit_length(), scale, **INHERITED))
    finish(b, "y", False)

    def judge(v: Arrays) -> None:
        total = constant + sum(k * v[name].astype(object) for name, k in zip(names, factors, strict=True))
        total = total + (v["w"].astype(object) if stored else 0)
        assert (v["y"] == np.broadcast_to(total, v["y"].shape)).all()

    return Case(b, limits, judge)


@st.composite
def weigh_case(draw: Draw) -> Case:
    shape = draw(shapes(least=2))
    axis = inner_axis(draw, shape)
    factors = tuple(draw(st.lists(st.one_of(st.just(0), factor), min_size=shape[axis], max_size=shape[axis])))
    b, limits = Builder(), {}
    bits = add_source(draw, b, limits, "x", shape, draw(st.integers(1, 18)))
    bits += max(map(abs, factors)).bit_length()
    b.gate(Weigh(name="w", x="x", axis=axis, factors=factors, out="y"), wire("y", shape, bits, 3, **INHERITED))
    finish(b, "y", False)

    def judge(v: Arrays) -> None:
        for place, k in enumerate(factors):
            assert (v["y"].take(place, axis) == v["x"].take(place, axis).astype(object) * k).all()

    return Case(b, limits, judge)


@st.composite
def total_case(draw: Draw) -> Case:
    shape = draw(shapes(least=2, most=4))
    axes = tuple(sorted(draw(st.sets(st.integers(1, len(shape) - 1), min_size=1))))
    b, limits = Builder(), {}
    bits = add_source(draw, b, limits, "x", shape, draw(st.integers(1, 26)))
    bits += prod(shape[axis] for axis in axes).bit_length()
    out: Shape = tuple(1 if axis in axes else size for axis, size in enumerate(shape))
    b.gate(Total(name="s", x="x", axes=axes, out="y"), wire("y", out, bits, Fraction(1, 3), **INHERITED))
    finish(b, "y", False)

    def judge(v: Arrays) -> None:
        assert (v["y"] == v["x"].astype(object).sum(axis=axes, keepdims=True)).all()

    return Case(b, limits, judge)


@st.composite
def rows_case(draw: Draw) -> Case:
    """One sum over the rows, or two; tests run at most nine rows."""
    shape, most = draw(shapes()), draw(st.sampled_from([9, 10, 1000]))
    b, limits = Builder(), {}
    bits = add_source(draw, b, limits, "x", shape, draw(st.integers(1, 18)))
    bits = (most * ((1 << bits) - 1)).bit_length()
    names = ["y", "z"][: draw(st.integers(1, 2))]
    for name in names:
        b.gate(Rows(name=f"sum:{name}", x="x", most=most, out=name), wire(name, shape[1:], bits, 3, **INHERITED))
    finish(b, names[-1], False)

    def judge(v: Arrays) -> None:
        assert all((v[name] == v["x"].astype(object).sum(axis=0)).all() for name in names)

    return Case(b, limits, judge)


@st.composite
def concat_case(draw: Draw) -> Case:
    shape = draw(shapes(least=2))
    axis, widths = inner_axis(draw, shape), draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    b, limits = Builder(), {}
    names = tuple(f"x{i}" for i in range(len(widths)))
    parts: list[Shape] = [(*shape[:axis], size, *shape[axis + 1 :]) for size in (*widths, sum(widths))]
    widest = 0
    for name, part in zip(names, parts, strict=False):
        widest = max(widest, add_source(draw, b, limits, name, part, draw(st.integers(1, 28))))
    b.gate(Concat(name="j", xs=names, axis=axis, out="y"), wire("y", parts[-1], widest, **INHERITED))
    finish(b, "y", False)

    def judge(v: Arrays) -> None:
        for name, start, width in zip(names, accumulate([0, *widths]), widths, strict=False):
            assert (v["y"].take(range(start, start + width), axis) == v[name]).all()

    return Case(b, limits, judge)


@st.composite
def scatter_case(draw: Draw) -> Case:
    shape = draw(shapes(least=2))
    axis = inner_axis(draw, shape)
    size = draw(st.integers(1, 4))
    indices = tuple(draw(st.lists(st.integers(-1, size - 1), min_size=shape[axis], max_size=shape[axis])))
    b, limits = Builder(), {}
    bits = add_source(draw, b, limits, "x", shape, draw(st.integers(1, 28)))
    out: Shape = (*shape[:axis], size, *shape[axis + 1 :])
    b.gate(Scatter(name="t", x="x", axis=axis, indices=indices, out="y"), wire("y", out, bits + 3, **INHERITED))
    finish(b, "y", False)

    def judge(v: Arrays) -> None:
        for place in range(size):
            chosen = [i for i, index in enumerate(indices) if index == place]
            assert (v["y"].take(place, axis) == v["x"].take(chosen, axis).sum(axis=axis)).all()

    return Case(b, limits, judge)


@st.composite
def take_case(draw: Draw) -> Case:
    shape = draw(shapes(least=2))
    axis = inner_axis(draw, shape)
    indices = tuple(draw(st.lists(st.integers(-1, shape[axis] - 1), min_size=1, max_size=9)))
    b, limits = Builder(), {}
    bits = add_source(draw, b, limits, "x", shape, draw(st.integers(1, 28)))
    out: Shape = (*shape[:axis], len(indices), *shape[axis + 1 :])
    b.gate(Take(name="t", x="x", axis=axis, indices=indices, out="y"), wire("y", out, bits, **INHERITED))
    finish(b, "y", False)

    def judge(v: Arrays) -> None:
        for place, index in enumerate(indices):
            assert (v["y"].take(place, axis) == (v["x"].take(index, axis) if index >= 0 else 0)).all()

    return Case(b, limits, judge)
